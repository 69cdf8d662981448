"""Arithmetic from text, exact and without ``eval``: a walk over a syntax tree.

Only the kinds of node in a table are known; whatever else a text holds is refused with
a :class:`Reason`. Values are ``int`` where they are whole and ``Fraction`` otherwise:
``0.1`` is a tenth, and ``/`` loses nothing. Every node is visited at most once and
costs at most a product of two numbers of ``Limits.magnitude`` bits, so that the limits
bound time and memory without a clock: the same text is refused on every machine.
"""

import ast
import operator
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxlora.tasks.arithmetic_numbers import BINARY, DEFAULT, apply
from jaxlora.tasks.arithmetic_numbers import Limits as Limits
from jaxlora.tasks.arithmetic_numbers import Number as Number
from jaxlora.tasks.arithmetic_numbers import exact as exact
from jaxlora.tasks.arithmetic_syntax import parse, too_deep
from jaxlora.tasks.refusals import CONSTRUCTS, refuse
from jaxlora.tasks.refusals import Reason as Reason
from jaxlora.tasks.refusals import RefusedError as RefusedError

NONE: Mapping[str, Any] = types.MappingProxyType({})


class Operation(NamedTuple):
    """One binary operation that was carried out."""

    symbol: str
    left: Number
    right: Number
    result: Number


def evaluate(
    expression: str | ast.AST,
    names: Mapping[str, Any] = NONE,
    functions: Mapping[str, Callable[..., Any]] = NONE,
    limits: Limits = DEFAULT,
    *,
    extended: bool = False,
) -> Any:
    """Returns the value of an arithmetic expression, exactly.

    Known are numbers, names, ``+ - * / // % **``, signs, comparisons, ``and or not``,
    brackets, and calls of the given functions with plain arguments.

    Args:
      expression: text, or a node of a syntax tree.
      names: values of names; floats and decimals are read as they are printed.
      functions: what may be called; a function bounds its work itself.
      limits: what the text may cost.
      extended: may strings, lists, tuples and ``x if c else y`` stand in it as well?
        Templates need them; there is no arithmetic on them.

    Returns:
      An int or a Fraction; a bool of a comparison; with ``extended`` or from a function
      also what else they give.

    Raises:
      RefusedError: with its reason, if the text is anything else or costs too much.

    >>> evaluate("(3 + x) * 2 / 4", {"x": 0.5})
    Fraction(7, 4)
    >>> evaluate("half(n) < 5 and n > 8", {"n": 9}, {"half": lambda n: n / 2})
    True
    >>> evaluate("9**9**9")
    Traceback (most recent call last):
    jaxlora.tasks.refusals.RefusedError: A power is ...
    """
    rules = EXTENDED if extended else CONDITIONS
    return Walk(names, functions, limits, rules).value(tree(expression, limits))


def trace(
    expression: str | ast.AST,
    names: Mapping[str, Any] = NONE,
    limits: Limits = DEFAULT,
) -> tuple[Any, tuple[Operation, ...]]:
    """Returns the value and every binary operation, in the order of their results.

    Args:
      expression: text, or a node of a syntax tree.
      names: values of names.
      limits: what the text may cost.

    Raises:
      RefusedError: as in :func:`evaluate`.

    >>> trace("3 * 4 + 5")[1][1]
    Operation(symbol='+', left=12, right=5, result=17)
    """
    log: list[Operation] = []
    value = Walk(names, NONE, limits, PLAIN, log).value(tree(expression, limits))
    return value, tuple(log)


def tree(expression: str | ast.AST, limits: Limits = DEFAULT) -> ast.AST:
    """Returns the node of one expression."""
    if isinstance(expression, str):
        return parse(expression.strip(), "eval", limits).body
    return expression.body if isinstance(expression, ast.Expression) else expression


class Walk:
    """The state of one evaluation; ``names`` may change between expressions.

    Args:
      names: values of names.
      functions: what may be called.
      limits: what all expressions may cost together.
      rules: what to do with each kind of node; others are refused.
      log: a list that gets every binary operation, or None.
    """

    __slots__ = ("functions", "left", "limits", "log", "names", "rules")

    def __init__(
        self,
        names: Mapping[str, Any],
        functions: Mapping[str, Callable[..., Any]],
        limits: Limits,
        rules: "Rules",
        log: list[Operation] | None = None,
    ):
        self.names, self.functions, self.limits = names, functions, limits
        self.rules, self.log = rules, log
        self.left = limits.nodes

    def value(self, node: ast.AST, depth: int = 1) -> Any:
        """Returns the value of one node; raises RefusedError."""
        self.left -= 1
        if self.left < 0:
            expected = f"at most {self.limits.nodes}"
            refuse(Reason.NODES, "The text has too many parts", expected)
        if depth > self.limits.depth:
            too_deep(self.limits)
        rule = self.rules.get(type(node))
        if rule is None:
            reason = CONSTRUCTS.get(type(node), Reason.STATEMENT)
            refuse(reason, f"The text holds {type(node).__name__}", "plain arithmetic")
        return rule(self, node, depth + 1)


def _constant(walk: Walk, node: ast.Constant, depth: int) -> Any:
    value = node.value
    kind = type(value)
    if kind is int or kind is float or kind is bool:
        return exact(value, walk.limits)
    reason = Reason.TEXT if kind in (str, bytes) else Reason.TYPE
    refuse(reason, f"The text holds {value!r:.60}", "a number")


def _literal(walk: Walk, node: ast.Constant, depth: int) -> Any:
    return node.value if type(node.value) is str else _constant(walk, node, depth)


def _name(walk: Walk, node: ast.Name, depth: int) -> Any:
    try:
        return exact(walk.names[node.id], walk.limits)
    except KeyError:
        known = ", ".join(walk.names) or "none"
        got = f"The name {node.id!r:.60} has no value"
        refuse(Reason.NAME, got, f"a name that has one ({known:.200})")


def _binary(walk: Walk, node: ast.BinOp, depth: int) -> Number:
    left, right = walk.value(node.left, depth), walk.value(node.right, depth)
    symbol = SYMBOLS.get(type(node.op))
    if symbol is None:
        kind = type(node.op).__name__
        refuse(Reason.OPERATOR, f"The operator is {kind}", f"one of {' '.join(BINARY)}")
    result = apply(symbol, left, right, walk.limits)
    if walk.log is not None:
        walk.log.append(Operation(symbol, left, right, result))
    return result


def _unary(walk: Walk, node: ast.UnaryOp, depth: int) -> Any:
    value = walk.value(node.operand, depth)
    if type(node.op) is ast.Not:
        return not value
    if type(node.op) is ast.Invert or isinstance(value, bool | str | tuple | list):
        refuse(Reason.TYPE, "A sign stands before no number, or is '~'", "+ or -")
    return -value if type(node.op) is ast.USub else value


def _compare(walk: Walk, node: ast.Compare, depth: int) -> bool:
    left = walk.value(node.left, depth)
    for kind, side in zip(node.ops, node.comparators, strict=True):
        right = walk.value(side, depth)
        compare = _COMPARISONS.get(type(kind))
        if compare is None:
            got = f"The comparison is {type(kind).__name__}"
            refuse(Reason.OPERATOR, got, "one of == != < <= > >=")
        try:
            if not compare(left, right):
                return False
        except TypeError:
            got = f"{left!r:.60} is compared with {right!r:.60}"
            refuse(Reason.TYPE, got, "two numbers")
        left = right
    return True


def _boolean(walk: Walk, node: ast.BoolOp, depth: int) -> Any:
    stop = type(node.op) is ast.Or
    value: Any = not stop
    for side in node.values:
        value = walk.value(side, depth)
        if bool(value) is stop:
            break
    return value


def _call(walk: Walk, node: ast.Call, depth: int) -> Any:
    name = node.func.id if type(node.func) is ast.Name else None
    function = None if name is None else walk.functions.get(name)
    if function is None or node.keywords:
        known = ", ".join(walk.functions) or "no function"
        got = f"The text calls {name!r:.60}" if name else "The text holds a call"
        refuse(Reason.CALL, got, f"plain arguments and {known:.200}")
    values = [walk.value(side, depth) for side in node.args]
    return exact(function(*values), walk.limits)


def _sequence(walk: Walk, node: ast.List | ast.Tuple, depth: int) -> Any:
    values = [walk.value(side, depth) for side in node.elts]
    return values if type(node) is ast.List else tuple(values)


def _conditional(walk: Walk, node: ast.IfExp, depth: int) -> Any:
    branch = node.body if walk.value(node.test, depth) else node.orelse
    return walk.value(branch, depth)


SYMBOLS: dict[type, str] = dict(
    zip(
        (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow),
        BINARY,
        strict=True,
    )
)
"""Symbols by operator of the syntax tree."""
_COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
Rules = Mapping[type, Callable[[Walk, Any, int], Any]]
PLAIN: Rules = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
}
"""Numbers, names and operations."""
CONDITIONS: Rules = {
    **PLAIN,
    ast.Compare: _compare,
    ast.BoolOp: _boolean,
    ast.Call: _call,
}
"""Comparisons and calls too."""
EXTENDED: Rules = {
    **CONDITIONS,
    ast.Constant: _literal,
    ast.List: _sequence,
    ast.Tuple: _sequence,
    ast.IfExp: _conditional,
}
"""Strings, lists, tuples and a choice of two too."""
