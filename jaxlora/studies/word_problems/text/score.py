"""What a written solution says: its answer, its format, and its first wrong step.

A program is worth its value, any other solution its last number. Steps are compared
with those of the solution that comes with the problem, read from the same format: of
our own problems it is the only one, of a file there may be other right ways.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from jaxlora.evaluate import solution_text, solutions
from jaxlora.evaluate.answers import answered
from jaxlora.evaluate.solutions import KINDS, NO_ERROR, Step
from jaxlora.studies.word_problems.text.problems import Problem
from jaxlora.tasks import numbers, programs
from jaxlora.tasks.word_problems import formats as english
from jaxlora.tasks.word_problems.templates import S

UNREAD = "none"
"""The format of a text of which no steps are expected."""
_FENCE = re.compile(r"```(?:python)?\s*\n(.*?)(?:```|\Z)", re.S)
_SIGNS_OF = {"markup": "<step", "annotated": "<<"}


class Reading(NamedTuple):
    """What one text says."""

    correct: bool
    """Is its answer the right one?"""
    form: str
    """The format that it was read in; :data:`UNREAD` for any."""
    steps: int
    """1 if all steps are those of the right solution, 0 if not, -1 if unknown."""
    error: int
    """Number of the kind of its first wrong step if the answer is wrong, else -1."""


def read(text: str, problem: Problem, forms: Sequence[str]) -> Reading:
    """Reads a written solution.

    Args:
      text: what a model wrote; thoughts up to ``</think>`` do not count.
      problem: that it should solve.
      forms: formats that its writer has learned; none for any text.
    """
    text = answered(text)
    form = format_of(text, forms)
    correct = value(text, form) == problem.answer
    if form not in problem.solutions:
        return Reading(correct, form, -1, NO_ERROR)
    expected = steps(problem.solutions[form], form, problem.english)
    if not expected:
        return Reading(correct, form, -1, NO_ERROR)
    first = solutions.first_error(expected, steps(text, form, problem.english))
    # A right answer by other steps, of which there may be several, has no error.
    wrong = first is not None and not correct
    error = KINDS.index(first.kind) if wrong else NO_ERROR
    return Reading(correct, form, int(first is None), error)


def format_of(text: str, forms: Sequence[str]) -> str:
    r"""The format of a text, of those that its writer has learned.

    Args:
      text: a solution.
      forms: formats; none for any text.

    >>> format_of("x1 = 3 * 4\nanswer = x1", ("plain", "python"))
    'python'
    >>> format_of("3 * 4 = <<3*4=12>>12", ("plain", "annotated"))
    'annotated'
    """
    if len(forms) < 2:
        return forms[0] if forms else UNREAD
    if "python" in forms and programs.run(program(text)).value is not None:
        return "python"
    marked = (x for x, sign in _SIGNS_OF.items() if x in forms and sign in text)
    # What carries no sign of a format is prose, if that was learned, or a failed other.
    usual = "plain" if "plain" in forms else next(x for x in forms if x != "python")
    return next(marked, usual)


def value(text: str, form: str) -> Fraction | None:
    r"""The answer of a solution; None if it has none.

    Args:
      text: a solution.
      form: its format.

    >>> value("x1 = 3 * 4\nanswer = x1 / 8", "python")
    Fraction(3, 2)
    """
    if form == "python":
        number = programs.run(program(text)).value
    else:
        number = numbers.answer(text)
    return None if number is None else Fraction(number)


def program(text: str) -> str:
    r"""The program in a text: what is fenced as code, or all of it.

    Args:
      text: a solution.

    >>> program("Here:\n```python\nx = 1\n```\nDone.")
    'x = 1\n'
    """
    fenced = _FENCE.search(text)
    return fenced[1] if fenced else text.strip()


def steps(text: str, form: str, own_world: bool) -> tuple[Step, ...]:
    """The steps of a solution, as far as its format shows them.

    Args:
      text: a solution.
      form: its format.
      own_world: is it of our own problems, whose plain steps are sentences?
    """
    if form == "python":
        text = program(text)
    if form != "plain" or not own_world:
        return solution_text.read(text, form)
    every = english.read(text, "plain", S).steps
    return tuple(_step(x) for x in every)


def _step(step: english.ReadStep | None) -> Step:
    if step is None:
        return Step(None, (), None)
    return Step(english.SIGNS[step.operation], (step.left, step.right), step.result)
