"""What a number of questions can decide, before a single one is asked.

With n questions even a perfect outcome has an interval: 0 of 21 may still be 0.15.
A verdict that no outcome can reach is a design fault, and is found here.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from jaxlora.evaluate import ends, statistics
from jaxlora.evaluate.evidence import Thresholds
from jaxlora.evaluate.statistics import Interval

MOST = 10**6
"""Questions beyond which a verdict counts as unattainable."""
CHANCE_TO_SEE = 0.8
"""How likely a difference of the size that is asked about must be to show."""


class Attainable(NamedTuple):
    """One verdict and the outcome that is best for it."""

    label: str
    interval: Interval
    """Of the outcome: nothing right, everything right, or right where no control is."""
    bound: float
    """What an end of the interval must reach."""
    decided: bool
    """Does it?"""


def attainable(
    n: int, chance: float, thresholds: Thresholds, tries: int = 1
) -> tuple[Attainable, ...]:
    """The verdicts that only an interval can give, at their best outcomes.

    *No transfer* needs an upper bound of at most chance + margin, and is tried with no
    answer right; *no gain* a difference to an expert alone of at most the margin, where
    both answer alike; *preserved* a lower bound of at least the base - margin, with all
    answers of base and combination right; *composes* and *retrieves* a paired
    difference to every control above 0, with all answers right that no control has.
    Statistics are those of the verdicts: where all items agree, they do not depend on
    seeds or libraries.

    Args:
      n: questions, at least 1.
      chance: accuracy of guessing, in [0, 1].
      thresholds: the margins, and the confidence of every interval.
      tries: methods over which p-values are adjusted.

    >>> [x.decided for x in attainable(21, 0.05, Thresholds())]
    [False, False, False, True]
    >>> [x.decided for x in attainable(63, 0.05, Thresholds())]
    [True, True, True, True]
    """
    none = statistics.wilson(0, n, thresholds.confidence)
    every = statistics.wilson(n, n, thresholds.confidence)
    most, least = chance + thresholds.chance_margin, 1 - thresholds.preserved_margin
    # The generator has no effect: all differences agree.
    how, zeros = (np.random.default_rng(0), thresholds.confidence), [np.zeros(n)]
    above, p = statistics.paired([np.ones(n)], zeros, *how)
    even, _ = statistics.paired(zeros, zeros, *how)
    beats = above.lo > 0 and p * tries < thresholds.alpha
    return (
        Attainable("no transfer", none, most, none.hi <= most),
        Attainable(
            "no gain",
            even,
            thresholds.chance_margin,
            even.hi <= thresholds.chance_margin,
        ),
        Attainable("preserved", every, least, every.lo >= least),
        Attainable("composes or retrieves", above, 0.0, beats),
    )


def smallest(chance: float, thresholds: Thresholds, tries: int = 1) -> int:
    """The fewest questions at which every verdict can be reached.

    Args:
      chance: accuracy of guessing, in [0, 1].
      thresholds: the margins, and the confidence of every interval.
      tries: methods over which p-values are adjusted.

    Raises:
      ValueError: if a margin is 0, so that no number of questions is enough.

    >>> smallest(0.05, Thresholds()), smallest(0.0, Thresholds())
    (35, 35)
    """
    few, many = 0, 1
    while not _decides(many, chance, thresholds, tries):
        few, many = many, 2 * many
        if many > MOST:
            raise ValueError(
                f"No number of questions up to {MOST} decides every verdict at chance "
                f"{chance} and margins {thresholds.chance_margin} and "
                f"{thresholds.preserved_margin}; expected margins above 0."
            )
    while many - few > 1:
        middle = (few + many) // 2
        decides = _decides(middle, chance, thresholds, tries)
        few, many = (few, middle) if decides else (middle, many)
    return many


def most_right(n: int, chance: float, thresholds: Thresholds) -> int:
    """The most right answers of n that are still *no transfer*; -1 if none are.

    Args:
      n: questions.
      chance: accuracy of guessing.
      thresholds: the margin, and the confidence.

    >>> most_right(468, 1 / 13, Thresholds()) / 468 > 0.13
    True
    """
    bound = chance + thresholds.chance_margin
    fits = (
        k
        for k in range(math.ceil(n * min(bound, 1.0)), -1, -1)
        if ends.wilson(k / n, n, thresholds.confidence)[1] <= bound
    )
    return next(fits, -1)


def to_beat(seen: Interval, by: float, confidence: float) -> int:
    """The questions that decide whether a paired difference is as large as ``by``.

    As many as make an interval of the spread that was seen exclude 0 with the
    probability ``CHANCE_TO_SEE`` if the difference is ``by``.

    Args:
      seen: interval of a paired difference, wider than a point.
      by: the difference that matters, above 0.
      confidence: of the interval.

    References:
      Connor, Sample size for testing differences in proportions for the paired-sample
        design (Biometrics 1987); the spread is that of the interval, libraries
        included.

    >>> to_beat(Interval(0.02, -0.1, 0.14, 63), 0.1, 0.95)
    186
    """
    z, power = special.ndtri([0.5 + confidence / 2, CHANCE_TO_SEE])
    error = (seen.hi - seen.lo) / 2 / z
    return math.ceil(seen.n * ((z + power) * error / by) ** 2)


def to_beat_before(unlike: float, by: float, confidence: float) -> int:
    """The same before anything is asked, of people who are independent.

    Args:
      unlike: share of questions that exactly one of the two sides answers right.
      by: the difference that matters, above 0.
      confidence: of the interval.

    References:
      Connor (Biometrics 1987).

    >>> to_beat_before(0.3, 0.1, 0.95)
    234
    """
    z, power = special.ndtri([0.5 + confidence / 2, CHANCE_TO_SEE])
    reach = z * math.sqrt(unlike) + power * math.sqrt(unlike - by**2)
    return math.ceil((reach / by) ** 2)


def warning(
    n: int, chance: float, thresholds: Thresholds, what: str, tries: int = 1
) -> str:
    """One sentence on a design that cannot decide; empty if it can.

    Args:
      n: questions of one verdict, over all seeds.
      chance: accuracy of guessing.
      thresholds: the margins, and the confidence.
      what: what the verdict is about.
      tries: methods over which p-values are adjusted.

    >>> warning(63, 0.05, Thresholds(), "a cell")
    ''
    >>> warning(21, 0.05, Thresholds(), "a cell")[:50]
    'a cell has 21 questions, of which no outcome can b'
    """
    missing = [x for x in attainable(n, chance, thresholds, tries) if not x.decided]
    if not missing:
        return ""
    names = " or ".join(f"*{x.label}*" for x in missing)
    best = missing[0].interval
    return (
        f"{what} has {n} questions, of which no outcome can be {names} (its best is "
        f"{best.value:.2f} [{best.lo:.2f}, {best.hi:.2f}]); at least "
        f"{smallest(chance, thresholds, tries)} are needed."
    )


def _decides(n: int, chance: float, thresholds: Thresholds, tries: int) -> bool:
    return all(x.decided for x in attainable(n, chance, thresholds, tries))
