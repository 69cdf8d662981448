r"""Regular expressions of strangers, matched within a time limit.

``target_modules`` and the keys of ``rank_pattern`` are regular expressions, and a
matcher that tries one way after the other can be kept busy for years: ``(a+)+b`` on a
module name of 40 letters. The matcher here is that of the ``regex`` package, which
reads the syntax of :mod:`re` and stops when told to.
"""

import dataclasses
import re
import time
import warnings

import regex

LONGEST = 2000
"""Characters of a pattern."""

SECONDS = 2.0
"""Time that the patterns of one adapter may take."""

SECONDS_PER_MODULE = 0.01
"""And so much more for each module."""

_PLAIN = re.compile(r"[\w.-]*")


@dataclasses.dataclass
class Budget:
    """What the patterns of one adapter may spend."""

    seconds: float = SECONDS
    """Time that is left."""
    programs: dict[str, regex.Pattern[str] | None] = dataclasses.field(
        default_factory=dict
    )
    """Patterns that were read already; None if it is text, but for dots."""


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
    program = _program(pattern, budget)
    return _same(pattern, text) if program is None else _run(program, text, budget)


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
    program = _program(pattern, budget)
    if program is None:
        start = len(text) - len(pattern)
        at_a_dot = start == 0 or (start > 0 and text[start - 1] == ".")
        return at_a_dot and _same(pattern, text[start:])
    starts = [0, *(i + 1 for i, char in enumerate(text) if char == ".")]
    return any(_run(program, text, budget, start) for start in starts)


def _same(pattern: str, text: str) -> bool:
    """Equal, but for dots, which stand for any character."""
    # Most patterns are names; comparing them needs no matcher and no clock.
    return pattern == text or (
        len(pattern) == len(text)
        and all(p in (c, ".") for p, c in zip(pattern, text, strict=True))
    )


def _run(program: regex.Pattern[str], text: str, budget: Budget, start: int = 0):
    begin = time.perf_counter()
    try:
        if budget.seconds <= 0:
            raise TimeoutError
        match = program.fullmatch(text, start, timeout=budget.seconds)
    except TimeoutError:
        raise ValueError(
            f"the pattern {program.pattern[:100]!r} takes too long to match the names "
            f"of the modules, expected one without nested repetitions, or fewer of them"
        ) from None
    # The time is shared by all patterns, or a thousand slow ones would add up.
    budget.seconds -= time.perf_counter() - begin
    return match is not None


def _program(pattern: str, budget: Budget) -> regex.Pattern[str] | None:
    if pattern not in budget.programs:
        begin = time.perf_counter()
        budget.programs[pattern] = _compiled(pattern)
        budget.seconds -= time.perf_counter() - begin
    return budget.programs[pattern]


def _compiled(pattern: str) -> regex.Pattern[str] | None:
    if _PLAIN.fullmatch(pattern):
        return None
    # Compiling takes time as well, which no limit stops.
    if len(pattern) > LONGEST:
        raise ValueError(
            f"a pattern has {len(pattern)} characters, expected at most {LONGEST}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on syntax that may change one day
            re.compile(pattern)  # as PEFT reads it
            return regex.compile(pattern)
    except (re.error, regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(
            f"{pattern[:100]!r} is no regular expression ({str(error)[:100]})"
        ) from None
