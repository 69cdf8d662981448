"""Is a route right where it is sure? Correctness against the entropy of its weights.

If low entropy went with right answers, a route would know when it routes well. Two
views of the same items: accuracy in thirds of the entropy, and the chance that of two
items, one right and one wrong, the right one has the lower entropy (the AUC).

References:
  Hanley and McNeil, The meaning and use of the area under a ROC curve (Radiology 1982).
  Newcombe, Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic, part 2 (Statistics in Medicine 2006), method 5.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from jaxlora.evaluate.statistics import Interval, wilson


class Part(NamedTuple):
    """The items of one range of entropy."""

    lowest: float
    """Entropy, in nats."""
    highest: float
    accuracy: Interval


class Surety(NamedTuple):
    """How correctness goes with entropy."""

    parts: tuple[Part, ...]
    """From low entropy to high; fewer where many items have the same entropy."""
    auc: Interval | None
    """1: all right items have less entropy than all wrong ones; 0.5: no relation. None
    where every item is right, or every one wrong."""
    left_out: int
    """Items whose entropy is no number."""


def surety(
    right: ArrayLike, entropy: ArrayLike, *, parts: int = 3, confidence: float = 0.95
) -> Surety:
    """Relates right and wrong to entropy.

    Items of equal entropy stay together, so parts may differ in size. Intervals take
    items as independent: of several seeds, they are somewhat too narrow.

    Args:
      right: [N], true or 1 where the answer is right.
      entropy: [N], of the route at the item; see ``route.diagnose.entropy``.
      parts: ranges of entropy, at equal quantiles.
      confidence: share, the nominal coverage of the intervals.

    Raises:
      ValueError: if the arrays are not two vectors of one length, an answer is neither
        right nor wrong, no item has an entropy, or ``parts`` is below 1.

    >>> sure = surety([1, 1, 1, 0, 0, 0], [0.1, 0.1, 0.2, 0.3, 0.6, 0.6])
    >>> [part.accuracy.value for part in sure.parts], sure.auc.value
    ([1.0, 0.5, 0.0], 1.0)
    """
    flags, values = _items(right, entropy)
    known = np.isfinite(values)
    if parts < 1 or not known.any():
        raise ValueError(
            f"Got {parts} parts and {int(known.sum())} items with an entropy, expected "
            f"at least 1 of each."
        )
    flags, values, lost = flags[known], values[known], int((~known).sum())
    # An observed value as the cut, so that rounding splits no ties.
    cuts = np.quantile(values, np.arange(1, parts) / parts, method="inverted_cdf")
    place = np.searchsorted(cuts, values, side="left")
    ranges = [
        Part(
            float(values[place == i].min()),
            float(values[place == i].max()),
            wilson(int(flags[place == i].sum()), int((place == i).sum()), confidence),
        )
        for i in np.unique(place)
    ]
    both = flags.any() and not flags.all()
    return Surety(tuple(ranges), auc(flags, values, confidence) if both else None, lost)


def auc(right: ArrayLike, entropy: ArrayLike, confidence: float = 0.95) -> Interval:
    """Returns how well low entropy tells right items from wrong ones.

    ``A = P(H_right < H_wrong) + P(H_right = H_wrong) / 2``. The interval holds the
    values θ that the score test keeps, ``(A - θ)² <= z² V(θ)``, with Hanley and
    McNeil's variance of m right and n wrong items at their mean number ``M = (m + n) /
    2``: ``V(θ) = θ (1 - θ) (1 + (M - 1) (2 - 3 / ((2 - θ) (1 + θ)))) / (m n)``. It has
    a width where A is 0 or 1.

    Args:
      right: [N], true or 1 where the answer is right.
      entropy: [N], all finite.
      confidence: share, the nominal coverage of the interval.

    Raises:
      ValueError: if there is no right item, no wrong one, or no entropy for one.

    >>> auc([1, 0, 1, 0], [0.1, 0.3, 0.2, 0.2]).value
    0.875
    """
    flags, values = _items(right, entropy)
    good, bad = np.sort(values[flags]), np.sort(values[~flags])
    if not (
        len(good) and len(bad) and np.isfinite(values).all() and 0 < confidence < 1
    ):
        raise ValueError(
            f"Got {len(good)} right and {len(bad)} wrong items and the confidence "
            f"{confidence}, expected at least one of each, finite entropies, and a "
            f"share like 0.95."
        )
    below = np.searchsorted(good, bad, "left") + np.searchsorted(good, bad, "right")
    area = float(below.sum() / (2 * len(good) * len(bad)))
    z = float(special.ndtri(0.5 + confidence / 2))
    lo = _end(area, 0.0, len(good), len(bad), z)
    hi = _end(area, 1.0, len(good), len(bad), z)
    return Interval(area, lo, hi, len(values))


def _end(area: float, bound: float, m: int, n: int, z: float) -> float:
    """The last value towards ``bound`` that the score test keeps, by bisection."""
    kept, refused = area, bound
    if area == bound:
        return bound
    for _ in range(60):
        middle = (kept + refused) / 2
        inside = (area - middle) ** 2 <= z**2 * _variance(middle, m, n)
        kept, refused = (middle, refused) if inside else (kept, middle)
    return kept


def _variance(area: float, m: int, n: int) -> float:
    shape = 2 - 3 / ((2 - area) * (1 + area))
    return area * (1 - area) * (1 + ((m + n) / 2 - 1) * shape) / (m * n)


def _items(right: ArrayLike, entropy: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    flags, values = np.asarray(right), np.asarray(entropy, np.float64)
    if flags.ndim != 1 or flags.shape != values.shape:
        raise ValueError(
            f"Got answers of shape {list(flags.shape)} and entropies of shape "
            f"{list(values.shape)}, expected two vectors with an entry for each item."
        )
    if not np.isin(flags, (0, 1)).all():
        raise ValueError(
            f"Answers are {np.unique(flags)[:5].tolist()}, expected 1 (right) and 0 "
            f"(wrong) only."
        )
    return flags.astype(bool), values
