"""Straight-line Python programs, as models write them, without running Python.

A program is a list of assignments ``name = arithmetic`` (or ``+=`` and its kin). Its
answer is what a last ``print(...)`` or ``return`` gives, else the name ``answer``, else
the last value assigned. Everything else is refused with a reason, so that a program
that loops, imports, allocates or calls is counted as what it is: wrong.

The idea is that of PAL (Gao et al., arXiv 2211.10435), whose programs ran in Python.
"""

import ast
import contextlib
from typing import NamedTuple, NoReturn

from jaxlora.tasks.arithmetic import (
    NONE,
    PLAIN,
    Limits,
    Number,
    Operation,
    Reason,
    RefusedError,
    Walk,
)
from jaxlora.tasks.arithmetic_numbers import DEFAULT
from jaxlora.tasks.arithmetic_syntax import parse
from jaxlora.tasks.refusals import CONSTRUCTS, refuse

ANSWER = "answer"
"""The name whose value is the answer where nothing is printed or returned."""


class Outcome(NamedTuple):
    """What became of a program."""

    value: Number | None
    """The answer; None if the program was refused."""
    reason: Reason | None = None
    """Why it was refused."""
    message: str | None = None
    """The same as a sentence."""


def run(program: str, limits: Limits = DEFAULT) -> Outcome:
    """Returns the answer of a program, or why it has none; never raises on a text.

    Args:
      program: its lines.
      limits: what the program may cost.

    >>> run("eggs = 16 - 3; price = eggs * 2; print(price)").value
    26
    >>> run("while True: pass").reason.value
    'loop'
    """
    try:
        return Outcome(_execute(program, limits, None))
    except RefusedError as error:
        return Outcome(None, error.reason, str(error))


def operations(program: str, limits: Limits = DEFAULT) -> tuple[Operation, ...]:
    """Returns the binary operations of a program, in the order of their results.

    Those before what is refused count, for they are right or wrong by themselves.

    Args:
      program: its lines.
      limits: what the program may cost.

    >>> [x.result for x in operations("a = 16 - 3; b = a * 2; print(b / 0)")]
    [13, 26]
    """
    log: list[Operation] = []
    with contextlib.suppress(RefusedError):
        _execute(program, limits, log)
    return tuple(log)


def _execute(program: str, limits: Limits, log: list[Operation] | None) -> Number:
    names: dict[str, Number] = {}
    # All lines share the budget of nodes, so that many short ones cost no more.
    walk = Walk(names, NONE, limits, PLAIN, log)
    statements = parse(program, "exec", limits).body
    answer: Number | None = None
    for i, statement in enumerate(statements):
        if type(statement) is ast.Assign or type(statement) is ast.AugAssign:
            name, node = _assignment(statement)
            answer = names[name] = _number(walk, node)
        elif i == len(statements) - 1:
            return _number(walk, _output(statement))
        else:
            _refuse_statement(statement)
    if answer is None:
        refuse(Reason.ANSWER, "The program is empty", "assignments and a print")
    return names.get(ANSWER, answer)


def _number(walk: Walk, node: ast.expr) -> Number:
    value = walk.value(node)
    if type(value) is bool:
        refuse(Reason.TYPE, f"A value is {value}", "a number")
    return value


def _assignment(statement: ast.Assign | ast.AugAssign) -> tuple[str, ast.expr]:
    """Returns the name and what it is set to; ``x += y`` as ``x + y``."""
    if isinstance(statement, ast.AugAssign):
        target, value = statement.target, statement.value
    else:
        target, value = statement.targets[0], statement.value
    if type(target) is not ast.Name or len(getattr(statement, "targets", "1")) > 1:
        got = f"Line {statement.lineno} assigns to something else"
        refuse(Reason.ASSIGNMENT, got, "a single name before '='")
    if target.id == "print":
        refuse(Reason.ASSIGNMENT, "The program assigns to print", "another name")
    if isinstance(statement, ast.AugAssign):
        value = ast.BinOp(ast.Name(target.id, ast.Load()), statement.op, value)
    return target.id, value


def _output(statement: ast.stmt) -> ast.expr:
    """Returns what the last line prints or returns."""
    if isinstance(statement, ast.Return) and statement.value is not None:
        return statement.value
    call = statement.value if isinstance(statement, ast.Expr) else None
    if (
        not isinstance(call, ast.Call)
        or not isinstance(call.func, ast.Name)
        or call.func.id != "print"
        or len(call.args) != 1
        or call.keywords
    ):
        _refuse_statement(statement)
    return call.args[0]


def _refuse_statement(statement: ast.stmt) -> NoReturn:
    node = statement.value if isinstance(statement, ast.Expr) else statement
    reason = CONSTRUCTS.get(type(node), Reason.STATEMENT)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        reason = Reason.TEXT
    got = f"Line {statement.lineno} is {type(node).__name__}"
    refuse(reason, got, "name = arithmetic, and print(name) at the end")
