r"""Regular expressions of strangers, read as :mod:`re` reads them, in bounded time.

``target_modules`` and the keys of ``rank_pattern`` are regular expressions of Python,
and its matcher, which tries one way after the other, can be kept busy for years:
``(a+)+b`` on a module name of 40 letters. Most are names, which are compared; those
that can try few ways are matched here; all others in a process that the operating
system ends (:mod:`jaxlora.strangers.child`).
"""

import dataclasses
import re
import time

from jaxlora.strangers.child import LimitError, shared

LONGEST = 2000
"""Characters of a pattern."""

SECONDS = 1.0
"""Processor time that the patterns of one adapter may take."""

SECONDS_PER_MODULE = 0.0005
"""And so much more for each module."""

_ASKING = 1e-4  # seconds of a request, in which nothing is matched

_PLAIN = re.compile(r"[\w.-]*")
# Names and dots, alternatives that are not repeated, and one character repeated.
_TAME = re.compile(r"(?:[\w./|()^$-]|\\[.dw]|(?:\.|\\[dw])[*+])*", re.ASCII)
_REPEATS = 2
_SHORT = 200


@dataclasses.dataclass
class Budget:
    """What the patterns of one adapter may spend."""

    seconds: float = SECONDS
    """Time that is left."""
    answers: dict[tuple[str, str], bool] = dataclasses.field(default_factory=dict)
    """What was asked already, by expression and text."""


def matches(pattern: str, text: str, budget: Budget) -> bool:
    r"""Does the pattern match all of ``text``?

    Args:
      pattern: a regular expression.
      text: the path of a module.
      budget: time that is left; it gets less.

    Raises:
      ValueError: if it is no regular expression, or time is up.

    >>> matches(r".*\.(q|v)_proj", "layers.0.q_proj", Budget())
    True
    """
    if _PLAIN.fullmatch(pattern):
        return _same(pattern, text)
    return _asked(pattern, pattern, text, budget)


def ends(pattern: str, text: str, budget: Budget) -> bool:
    """Does the pattern match ``text``, or what comes after one of its dots?

    Args:
      pattern: a regular expression.
      text: the path of a module.
      budget: time that is left; it gets less.

    Raises:
      ValueError: if it is no regular expression, or time is up.

    >>> ends("q_proj", "layers.0.q_proj", Budget()), ends("proj", "q_proj", Budget())
    (True, False)
    """
    if not _PLAIN.fullmatch(pattern):
        # As PEFT spells it.
        return _asked(pattern, rf"(.*\.)?({pattern})$", text, budget)
    start = len(text) - len(pattern)
    at_a_dot = start == 0 or (start > 0 and text[start - 1] == ".")
    return at_a_dot and _same(pattern, text[start:])


def _same(pattern: str, text: str) -> bool:
    """Equal, but for dots, which stand for any character."""
    # Most patterns are names; comparing them needs no matcher and no clock.
    return pattern == text or (
        len(pattern) == len(text)
        and all(p in (c, ".") for p, c in zip(pattern, text, strict=True))
    )


def _asked(pattern: str, expression: str, text: str, budget: Budget) -> bool:
    """Does the expression that is made of a pattern match all of a text?"""
    key = expression, text
    if key in budget.answers:
        return budget.answers[key]
    if len(pattern) > LONGEST:
        raise ValueError(
            f"a pattern has {len(pattern)} characters, expected at most {LONGEST}"
        )
    try:
        if budget.seconds <= 0:
            raise LimitError("it needs more time than is allowed")
        matched, seconds = _answer(pattern, expression, text, budget.seconds)
    except LimitError as error:
        raise ValueError(
            f"the pattern {pattern[:100]!r} takes too long to match the names of the "
            f"modules ({error}), expected one without nested repetitions, or fewer of "
            f"them"
        ) from None
    except (ValueError, re.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{pattern[:100]!r} is no regular expression ({str(error)[:100]})"
        ) from None
    # The time is shared by all patterns, or a thousand slow ones would add up.
    budget.seconds -= seconds
    budget.answers[key] = matched
    return matched


def _answer(
    pattern: str, expression: str, text: str, seconds: float
) -> tuple[bool, float]:
    """Does it match, and what processor time that took."""
    repeats = pattern.count("*") + pattern.count("+")
    if len(text) > _SHORT or repeats > _REPEATS or not _TAME.fullmatch(pattern):
        matched, taken = shared().ask("match", seconds, pattern=expression, text=text)
        return matched, taken + _ASKING
    begin = time.thread_time()
    matched = re.fullmatch(expression, text) is not None
    return matched, time.thread_time() - begin
