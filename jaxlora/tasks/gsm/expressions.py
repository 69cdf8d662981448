"""The expressions of templates: arithmetic, and lists that values are drawn from.

A thin layer over :mod:`jaxlora.tasks.arithmetic`: what it does not know (indices, lists
added and repeated, ``np.arange``) is rewritten as calls of the functions below, and the
rest stays what it was. Nothing is run, and no list is longer than :data:`LONGEST`.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from jaxlora.tasks import arithmetic
from jaxlora.tasks.arithmetic_numbers import DEFAULT, apply
from jaxlora.tasks.arithmetic_syntax import parse as parsed
from jaxlora.tasks.gsm.pools import POOLS, numbers_within
from jaxlora.tasks.refusals import Reason, RefusedError, refuse

LONGEST = 1_000_000
"""The most entries of a list that values are drawn from."""
PLACES = 30
"""The most decimal places of a rounded number."""


class Choice(NamedTuple):
    """What a line of ``#init`` draws: some entries of a list, all different."""

    items: Sequence[Any]
    count: int = 1
    consecutive: bool = False
    """Do they follow each other in the list?"""


def tree(text: str) -> ast.AST:
    """Returns the syntax tree of an expression, for :func:`value`.

    Args:
      text: of a template; a currency sign may stand in it as text.

    Raises:
      RefusedError: if it is no expression.
    """
    # Python's letters must be ASCII here, but a string may hold any.
    escaped = text.strip().encode("ascii", "backslashreplace").decode()
    return _Rewrite().visit(parsed(escaped, "eval", DEFAULT).body)


def _list_tree(text: str) -> ast.AST:
    """As :func:`tree`, where lists may be added and repeated."""
    return _RewriteLists().visit(tree(text))


def value(node: ast.AST, names: Mapping[str, Any]) -> Any:
    """Returns the value of an expression about drawn values.

    Args:
      node: of :func:`tree`.
      names: the drawn values.

    Raises:
      RefusedError: if it is anything but arithmetic, or divides by zero.

    >>> value(tree("is_int(n * frac[1]) and n > 3"), {"n": 6, "frac": Fraction(1, 3)})
    True
    """
    try:
        return arithmetic.evaluate(node, names, FUNCTIONS, extended=True)
    except (TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, RefusedError):
            raise
        shown = ast.unparse(node)
        refuse(Reason.TYPE, f"{shown!r:.60} is no arithmetic ({error})", "numbers")


def choice(text: str) -> Choice:
    """Returns what the right side of a line of ``#init`` draws from.

    Args:
      text: such as ``sample(names, 2)`` or ``range(2, 10)``.

    Raises:
      RefusedError: if it is anything else.

    >>> choice("sample(['tea', 'milk'] * 2)").items
    ['tea', 'milk', 'tea', 'milk']
    """
    drawn = value(_list_tree(text), POOLS)
    if isinstance(drawn, Choice):
        return drawn
    if not isinstance(drawn, Sequence) or isinstance(drawn, str):
        refuse(Reason.TYPE, f"{text!r:.60} is {drawn!r:.60}", "a list to draw from")
    return Choice(drawn)


class _Rewrite(ast.NodeTransformer):
    """Turns what the arithmetic does not know into calls of what it does."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        index = node.slice
        if not isinstance(index, ast.Slice):
            return _call("$item", node.value, index)
        last = index.upper or ast.Constant(LONGEST)
        return _call("$part", node.value, index.lower or ast.Constant(0), last)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        name = _NUMPY.get(ast.unparse(node))
        if name is None:
            got = f"The text holds {ast.unparse(node)!r:.60}"
            refuse(Reason.ATTRIBUTE, got, " or ".join(_NUMPY))
        return ast.Name(name, ast.Load())

    def visit_Set(self, node: ast.Set) -> ast.expr:
        # Three templates write their answer as {expression}.
        self.generic_visit(node)
        return node.elts[0] if len(node.elts) == 1 else node


class _RewriteLists(ast.NodeTransformer):
    """Turns sums and products, which may be of lists, into calls."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        name = _ON_LISTS.get(type(node.op))
        return _call(name, node.left, node.right) if name else node


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _plus(left: Any, right: Any) -> Any:
    if isinstance(left, list) and isinstance(right, list):
        return _short([*left, *right])
    return apply("+", left, right)


def _times(left: Any, right: Any) -> Any:
    if isinstance(left, list) and isinstance(right, int):
        _check_length(len(left) * right)
        return left * right
    return apply("*", left, right)


def _item(values: Any, index: int) -> Any:
    # A drawn number is what the second entry of its pair was.
    if isinstance(values, int | Fraction) and index == 1:
        return values
    if isinstance(values, list | tuple | str) and -len(values) <= index < len(values):
        return values[index]
    refuse(Reason.TYPE, f"Entry {index} is asked of {values!r:.60}", "a list")


def _part(values: list[Any], first: int, last: int) -> list[Any]:
    return list(values[first:last])


def _steps(start: Any, stop: Any = None, step: Any = 1) -> list[Any]:
    """The numbers from start up to but without stop, exactly."""
    start, stop = (0, start) if stop is None else (start, stop)
    if step == 0:
        refuse(Reason.DIVISION, "A range has steps of 0", "another step")
    count = max(0, -((start - stop) // step))
    _check_length(count)
    return [arithmetic.exact(start + i * step) for i in range(count)]


def _random_integers(low: int, high: int, size: int = 1) -> list[int]:
    """Any of them may be drawn, so that there is nothing to draw before."""
    return _steps(low, high)


def _sample(items: Any, count: int = 1) -> Choice:
    return Choice(_short(list(items)), count)


def _sample_sequential(items: Any, count: int) -> Choice:
    return Choice(_short(list(items)), count, consecutive=True)


def _short(values: list[Any]) -> list[Any]:
    _check_length(len(values))
    return values


def _check_length(length: int) -> None:
    if length > LONGEST:
        got = f"A list has {length} entries"
        refuse(Reason.MAGNITUDE, got, f"at most {LONGEST}")


def _is_int(number: Any) -> bool:
    return isinstance(arithmetic.exact(number), int)


def _divides(number: Any, divisor: Any) -> bool:
    return apply("%", number, divisor) == 0


def _fraction(top: Any, bottom: Any = 1) -> Any:
    return apply("/", top, bottom)


def _round(number: Any, places: int = 0) -> Any:
    if abs(places) > PLACES:
        refuse(Reason.MAGNITUDE, f"{places} places are kept", f"at most {PLACES}")
    return arithmetic.exact(round(Fraction(number), places))


def _numbers_within(first: int, last: int) -> list[tuple[str, int]]:
    if not 0 <= first <= last < 100:
        refuse(Reason.MAGNITUDE, f"Words of {first} to {last} are asked", "0 to 99")
    return numbers_within(first, last)


def _identity(value: Any) -> Any:
    """Of what mends or mixes lists: exact numbers need no mending, draws no mixing."""
    return value


_ON_LISTS: Mapping[type, str] = {ast.Add: "$plus", ast.Mult: "$times"}
_NUMPY = {"np.arange": "arange", "np.random.randint": "randint"}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    # No text can spell these names; only the rewriting calls them.
    "$item": _item,
    "$part": _part,
    "$plus": _plus,
    "$times": _times,
    "Fraction": _fraction,
    "arange": _steps,
    "divides": _divides,
    "fix_floats": _identity,
    "format_frac": _identity,
    "frange": _steps,
    "int": int,
    "is_int": _is_int,
    "list": list,
    "numbers_within": _numbers_within,
    "randint": _random_integers,
    "range": _steps,
    "round": _round,
    "sample": _sample,
    "sample_sequential": _sample_sequential,
    "shuffle_list": _identity,
}
"""What expressions of templates may call."""
