"""Formats of a solution that experts may be trained in, all from the same record.

*plain* steps, *annotated* steps (``<<48/2=24>>``), *markup* (tags around steps and
calculations) and *python* (straight-line code from the annotations).
"""

import decimal
import html
import re
from collections.abc import Callable, Mapping

from jaxlora.names import unknown
from jaxlora.tasks import numbers
from jaxlora.tasks.gsm.records import Problem, marked, unmarked
from jaxlora.tasks.gsm.straight_line import program

_CALCULATION = re.compile(r"<calc>(.*?)</calc>")
_STEP = re.compile(r"<step>(.*)</step>")
_ANSWER = re.compile(r"<answer>(.*)</answer>")


def plain(problem: Problem) -> str:
    r"""Returns the steps without annotations, and the final number.

    Args:
      problem: with its steps.

    >>> plain(Problem("?", ("48/2 = <<48/2=24>>24 clips",), 24))
    '48/2 = 24 clips\n#### 24'
    """
    return "\n".join([*map(unmarked, problem.steps), _end(problem)])


def annotated(problem: Problem) -> str:
    """Returns the steps as they are in the data, and the final number.

    Args:
      problem: with its steps.
    """
    return "\n".join([*problem.steps, _end(problem)])


def markup(problem: Problem) -> str:
    r"""Returns each step, calculation and the final number in tags of its kind.

    Args:
      problem: with its steps.

    >>> markup(Problem("?", ("48/2 = <<48/2=24>>24",), 24))
    '<step>48/2 = <calc>48/2=24</calc>24</step>\n<answer>24</answer>'
    """
    # Annotations first: what else looks like a tag is escaped.
    parts = (marked(step, "\0\\1=\\2\1") for step in problem.steps)
    escaped = (html.escape(part, quote=False) for part in parts)
    steps = (x.replace("\0", "<calc>").replace("\1", "</calc>") for x in escaped)
    lines = [f"<step>{step}</step>" for step in steps]
    return "\n".join([*lines, f"<answer>{_number(problem)}</answer>"])


def unmarkup(text: str) -> str:
    r"""Returns the annotated solution that :func:`markup` tagged.

    Args:
      text: lines of ``<step>`` and ``<answer>``; others are left out.

    >>> unmarkup("<step>48/2 = <calc>48/2=24</calc>24</step>\n<answer>24</answer>")
    '48/2 = <<48/2=24>>24\n#### 24'
    """
    lines = []
    for line in text.split("\n"):
        if step := _STEP.fullmatch(line):
            lines.append(
                html.unescape(_CALCULATION.sub(r"&lt;&lt;\1&gt;&gt;", step[1]))
            )
        elif answer := _ANSWER.fullmatch(line):
            lines.append(f"{numbers.MARK} {answer[1]}")
    return "\n".join(lines)


FORMATS: Mapping[str, Callable[[Problem], str]] = {
    "plain": plain,
    "annotated": annotated,
    "python": program,
    "markup": markup,
}
"""Formats by name: ``format(problem)``."""


def written(problem: Problem, name: str) -> str:
    """Returns the solution of a problem in a format.

    Args:
      problem: with its steps.
      name: of :data:`FORMATS`.

    Raises:
      ValueError: naming the formats there are, if there is none of that name; if it is
        ``python`` and the annotations do not give the answer.
    """
    if name not in FORMATS:
        raise ValueError(unknown("format", name, FORMATS))
    return FORMATS[name](problem)


def example(problem: Problem, name: str) -> dict[str, str]:
    """Returns a record to train on: the question, and its solution in a format.

    Args:
      problem: with its steps.
      name: of :data:`FORMATS`.

    Raises:
      ValueError: with file and line, if the problem has a canary: it is test data.
    """
    if problem.canary:
        raise ValueError(
            f"{problem.where}: the problem has the canary {problem.canary:.40}, which "
            f"asks to be kept out of training, as GSM-Symbolic does (its licence is "
            f"CC BY-NC-ND); ask it as test data, or train on GSM8K."
        )
    return {"question": problem.question, "answer": written(problem, name)}


def _end(problem: Problem) -> str:
    return f"{numbers.MARK} {_number(problem)}"


def _number(problem: Problem) -> str:
    return numbers.shown(decimal.Decimal(problem.answer))
