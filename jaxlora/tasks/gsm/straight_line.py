"""Straight-line Python from the annotations of a solution, checked as it is written.

Each annotation becomes one assignment; an operand that an earlier annotation gave
becomes its name. Nothing is run: :mod:`jaxlora.tasks.arithmetic` computes the values.
"""

import ast
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from jaxlora.tasks import arithmetic, numbers
from jaxlora.tasks.gsm.records import Annotation, Problem

ANSWER = "answer"
"""The name that the last line of a program assigns."""


def program(problem: Problem) -> str:
    """Returns the solution as assignments, the last to ``answer``.

    Args:
      problem: with annotations.

    Raises:
      ValueError: with file and line, if there are no annotations, one is no arithmetic
        or does not give its value, or the last does not give the answer.

    >>> steps = ("48/2 = <<48/2=24>>24", "48+24 = <<48+24=72>>72")
    >>> print(program(Problem("?", steps, 72)))
    x1 = 48 / 2
    x2 = 48 + x1
    answer = x2
    """
    lines, values = [], {}
    names: dict[Fraction, str] = {}
    for number, annotation in enumerate(problem.annotations, start=1):
        line = _renamed(annotation, names, problem.where)
        values[f"x{number}"] = _checked(line, annotation, values, problem.where)
        lines.append(f"x{number} = {line}")
        # The latest step of a value: what is used next is mostly the step before.
        names[_stated(annotation)] = f"x{number}"
    last = values[f"x{len(values)}"] if values else None
    if last is None or last != Fraction(problem.answer):
        raise ValueError(
            f"{problem.where}: the annotations give {last}, the answer is "
            f"{problem.answer}; expected a last annotation that gives it, so this "
            f"solution has no straight-line program."
        )
    return "\n".join([*lines, f"{ANSWER} = x{len(lines)}"])


class _Rename(ast.NodeTransformer):
    """Turns numbers that were computed before into the names of their steps."""

    def __init__(self, names: Mapping[Fraction, str]):
        self.names = names

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        name = self.names.get(Fraction(Decimal(repr(node.value))))
        return ast.Name(name, ast.Load()) if name else node


def _renamed(annotation: Annotation, names: Mapping[Fraction, str], where: str) -> str:
    try:
        # First, so that only arithmetic on numbers is renamed.
        arithmetic.evaluate(annotation.expression)
    except arithmetic.RefusedError as error:
        raise ValueError(
            f"{where}: {annotation.expression!r:.60} in step {annotation.step + 1} is "
            f"no arithmetic ({error})"
        ) from None
    tree = ast.parse(annotation.expression, mode="eval")
    return ast.unparse(_Rename(names).visit(tree))


def _checked(
    line: str, annotation: Annotation, values: Mapping[str, Fraction], where: str
) -> Fraction:
    """The exact value, which the annotation may round."""
    value = Fraction(arithmetic.evaluate(line, values))
    stated = numbers.exact(annotation.value)
    if stated is None or abs(value - Fraction(stated)) > _unit(stated):
        raise ValueError(
            f"{where}: {annotation.expression!r:.60} in step {annotation.step + 1} "
            f"gives {value}, the annotation says {annotation.value!r:.60}; a slip of "
            f"the data, so this solution has no straight-line program."
        )
    return value


def _stated(annotation: Annotation) -> Fraction:
    return Fraction(numbers.exact(annotation.value) or 0)


def _unit(stated: Decimal) -> Fraction:
    """One in the last place of a number that was rounded; nothing of a whole one."""
    places = -int(stated.as_tuple().exponent)
    return Fraction(1, 10**places) if places > 0 else Fraction(0)
