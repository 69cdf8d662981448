"""A word problem with a written solution, as GSM8K and GSM-Symbolic hold it.

A solution is lines of text, then ``#### 72``; a line may carry calculator annotations,
``<<48/2=24>>``. Source: Cobbe et al., arXiv 2110.14168.
"""

import dataclasses
import decimal
import re
from typing import Any

from jaxlora.tasks import jsonl, numbers

DIGITS = 40
"""The most digits of a final number; more is no answer to a word problem."""
EXPECTED = '{"question": "...", "answer": "... 48/2 = <<48/2=24>>24 ...\\n#### 24"}'
"""What a record looks like."""

_ANNOTATION = re.compile(r"<<([^<>]*)=([^<>=]*)>>")
_MARKS = re.compile(r"<<[^<>]*>>")


@dataclasses.dataclass(frozen=True)
class Annotation:
    """What a calculator was asked within a step, and what it gave."""

    step: int
    """The index of the step."""
    expression: str
    value: str


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question, its solution step by step, and the exact number that answers it."""

    question: str
    steps: tuple[str, ...]
    """The lines of the solution that are not blank, with their annotations."""
    answer: int | decimal.Decimal
    where: str = ""
    """File and line, for messages."""
    canary: str = ""
    """The mark of test data that asks to be kept out of training; empty without it."""

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """Those of all steps, in their order."""
        return tuple(
            Annotation(i, match[1].strip(), match[2].strip())
            for i, step in enumerate(self.steps)
            for match in _ANNOTATION.finditer(step)
        )


def problem(fields: dict[str, Any], where: str) -> Problem:
    r"""Returns the problem that a record stands for.

    Args:
      fields: ``question`` and ``answer``, perhaps ``canary``; others are left alone.
      where: file and line, for messages.

    Raises:
      ValueError: with file and line, if a field is missing, the question holds
        ``####``, or the answer does not end in exactly one number.

    >>> sums = {"question": "2 + 3?", "answer": "2+3=<<2+3=5>>5\n#### 5"}
    >>> problem(sums, "sums.jsonl:1").annotations
    (Annotation(step=0, expression='2+3', value='5'),)
    """
    question = jsonl.text(fields, "question", where, EXPECTED)
    if numbers.MARK in question:
        raise ValueError(
            f"{where}: the question holds {numbers.MARK}, which marks the final number "
            f"of an answer; was the answer pasted into it? Expected {EXPECTED}."
        )
    solution, end = split(jsonl.text(fields, "answer", where, EXPECTED), where)
    steps = tuple(line.strip() for line in solution.splitlines() if line.strip())
    canary = str(fields.get("canary") or "")
    return Problem(question, steps, final(end, where), where, canary)


def split(answer: str, where: str) -> tuple[str, str]:
    r"""Returns the text before the mark of the final number, and what follows it.

    Args:
      answer: a written solution.
      where: file and line, for messages.

    Raises:
      ValueError: with file and line, if there is no mark, or more than one.

    >>> split("2+3=5\n#### 5", "")
    ('2+3=5\n', ' 5')
    """
    parts = answer.split(numbers.MARK)
    if len(parts) == 1:
        raise ValueError(
            f"{where}: the answer has no final number, got "
            f"{jsonl.shorten(answer)!r}; expected a last line as in '#### 72'."
        )
    if len(parts) > 2:
        ends = " and ".join(repr(jsonl.shorten(part.strip())) for part in parts[1:3])
        raise ValueError(
            f"{where}: the answer has {len(parts) - 1} final numbers, {ends} first; "
            f"expected one line as in '#### 72', at its end."
        )
    return parts[0], parts[1]


def final(end: str, where: str) -> int | decimal.Decimal:
    """Returns the number after the mark: an int if it is whole, else a Decimal.

    Args:
      end: what follows ``####``.
      where: file and line, for messages.

    Raises:
      ValueError: with file and line, if it is not one number, or has over
        :data:`DIGITS` digits.

    >>> final(" $9{,}500", ""), final(" 32.5", ""), final(" -3.0", "")
    (9500, Decimal('32.5'), -3)
    """
    value = numbers.exact(end)
    if value is None:
        raise ValueError(
            f"{where}: {jsonl.shorten(end.strip())!r} after {numbers.MARK} is not one "
            f"number; expected a last line as in '#### 72' or '#### -1,072.50'."
        )
    digits = sum(map(str.isdigit, f"{value:f}"))
    if digits > DIGITS:
        raise ValueError(
            f"{where}: the final number has {digits} digits, expected at most "
            f"{DIGITS}; a repeated digit or an exponent too many, perhaps."
        )
    return int(value) if value == value.to_integral_value() else value


def unmarked(step: str) -> str:
    """Returns a step without its annotations.

    Args:
      step: a line of a solution.

    >>> unmarked("48/2 = <<48/2=24>>24 clips")
    '48/2 = 24 clips'
    """
    return _MARKS.sub("", step)


def marked(step: str, form: str) -> str:
    r"""Returns a step with its annotations in another form.

    Args:
      step: a line of a solution.
      form: of a replacement; ``\1`` is the expression, ``\2`` its value.

    >>> marked("48/2 = <<48/2=24>>24 clips", r"[\1]")
    '48/2 = [48/2]24 clips'
    """
    return _ANNOTATION.sub(form, step)
