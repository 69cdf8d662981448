"""What a prediction may claim of a value and its interval, and what becomes of it."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple


class Claim(StrEnum):
    """What a prediction says of a value and its interval.

    A claim on a value is judged by its interval, if it has one. ``REPORTED`` claims
    nothing but that the value is measured with an interval, and takes no bound.
    """

    VALUE_AT_LEAST = "value_at_least"
    VALUE_AT_MOST = "value_at_most"
    LOWER_AT_LEAST = "lower_at_least"
    UPPER_AT_MOST = "upper_at_most"
    UPPER_AT_MOST_CHANCE_PLUS = "upper_at_most_chance_plus"
    INTERVAL_CONTAINS = "interval_contains"
    REPORTED = "reported"


class Ending(StrEnum):
    """What became of a prediction.

    Held: the whole interval satisfies the claim. Failed: no point of it does.
    Undecided: it reaches both sides. Reported: there was no claim that could fail.
    """

    HELD = "held"
    FAILED = "failed"
    UNDECIDED = "undecided"
    NOT_MEASURED = "not measured"
    REPORTED = "reported"


def _at_least(bound: float, lo: float, hi: float) -> Ending:
    if lo >= bound:
        return Ending.HELD
    return Ending.FAILED if hi < bound else Ending.UNDECIDED


def _at_most(bound: float, lo: float, hi: float) -> Ending:
    if hi <= bound:
        return Ending.HELD
    return Ending.FAILED if lo > bound else Ending.UNDECIDED


def _contains(bound: float, lo: float, hi: float) -> Ending:
    return Ending.HELD if lo <= bound <= hi else Ending.FAILED


class _Rule(NamedTuple):
    """A claim in words, and its test on bound and interval."""

    text: str
    test: Callable[[float, float, float], Ending]


_RULES = {
    Claim.VALUE_AT_LEAST: _Rule("at least {bound}", _at_least),
    Claim.VALUE_AT_MOST: _Rule("at most {bound}", _at_most),
    Claim.LOWER_AT_LEAST: _Rule("lower bound at least {bound}", _at_least),
    Claim.UPPER_AT_MOST: _Rule("upper bound at most {bound}", _at_most),
    Claim.UPPER_AT_MOST_CHANCE_PLUS: _Rule(
        "upper bound at most chance {chance} + {bound}", _at_most
    ),
    Claim.INTERVAL_CONTAINS: _Rule("interval contains {bound}", _contains),
    Claim.REPORTED: _Rule("reported with an interval", lambda *_: Ending.REPORTED),
}
_ON_VALUES = (Claim.VALUE_AT_LEAST, Claim.VALUE_AT_MOST)


def ending(
    claim: Claim,
    bound: float | None,
    interval: tuple[float | None, float | None, float | None],
    chance: float | None = None,
) -> Ending:
    """Returns what became of a claim.

    Args:
      claim: what was said of the value or its interval.
      bound: the number in it; ``None`` for ``reported``.
      interval: value, lower and upper end; ``None`` for what was not measured.
      chance: of the same items, where the claim is relative to it.

    >>> ending(Claim.VALUE_AT_LEAST, 0.5, (0.7, 0.6, 0.8)).value
    'held'
    >>> ending(Claim.VALUE_AT_MOST, 0.7, (0.7, 0.6, 0.8)).value
    'undecided'
    """
    value, lo, hi = interval
    if claim in _ON_VALUES and (lo is None or hi is None):
        lo = hi = value  # measured without an interval, as criteria are
    least: float | None = bound or 0.0
    if claim is Claim.UPPER_AT_MOST_CHANCE_PLUS:
        least = None if chance is None else chance + (bound or 0.0)
    if value is None or lo is None or hi is None or least is None:
        return Ending.NOT_MEASURED
    return _RULES[claim].test(least, lo, hi)


def in_words(claim: Claim, bound: float | None, chance: float | None = None) -> str:
    """Returns a claim with its numbers.

    Args:
      claim: what was said of the value or its interval.
      bound: the number in it; ``None`` for ``reported``.
      chance: of the same items; ``None`` if it is not known.

    >>> in_words(Claim.UPPER_AT_MOST_CHANCE_PLUS, 0.1, 0.25)
    'upper bound at most chance 0.25 + 0.1'
    """
    shown = "unknown" if chance is None else f"{chance:.2f}"
    return _RULES[claim].text.format(bound=bound, chance=shown)
