"""Intervals and tests for accuracies measured on several seeds.

Within one seed an accuracy has a Wilson interval. Over seeds the bootstrap draws
seeds, and items within each drawn seed, together: people of one base are not
independent of each other. Where every item agrees (0 of n, n of n) a bootstrap
interval would be a point; the Wilson interval on all items takes its place.

References:
  Wilson, Probable inference, the law of succession, and statistical inference
    (JASA 1927).
  Davison and Hinkley, Bootstrap Methods and their Application (1997), sections 3.8
    and 4.2: hierarchical resampling, and the +1 in a p-value.
  Holm, A simple sequentially rejective multiple test procedure (1979).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special


class Interval(NamedTuple):
    """A measurement with its interval.

    Attributes:
      value: the estimate itself, inside ``[lo, hi]``.
      lo: lower end.
      hi: upper end.
      n: number of items behind it, over all seeds.
    """

    value: float
    lo: float
    hi: float
    n: int


class Paired(NamedTuple):
    """The difference of two measurements of the same items.

    Attributes:
      difference: mean of x - y, with its interval.
      p: one-sided p-value against "the mean difference is not above 0".
    """

    difference: Interval
    p: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Returns the Wilson score interval of a share.

    ``(p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)`` with ``p = successes / n``.

    Args:
      successes: items that succeeded, 0 to ``n``.
      n: number of items, at least 1.
      confidence: share, the nominal coverage of the interval, in (0, 1).

    Raises:
      ValueError: if there is no item, or an argument is out of its range.

    >>> wilson(0, 60).hi.__format__(".3f")
    '0.060'
    """
    _check_confidence(confidence)
    if n < 1:
        raise ValueError(
            f"Got n = {n} items, expected at least 1: a share of nothing has no "
            f"interval; leave the row out, or report it as unavailable."
        )
    if not 0 <= successes <= n:
        raise ValueError(f"Got {successes} successes of {n} items, expected 0 to {n}.")
    z = float(special.ndtri(0.5 + confidence / 2))
    share = successes / n
    centre = share + z**2 / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Exactly 0 and 1 in theory, off by a rounding error in floats.
    lo = 0.0 if successes == 0 else (centre - spread) / (1 + z**2 / n)
    hi = 1.0 if successes == n else (centre + spread) / (1 + z**2 / n)
    return Interval(share, lo, hi, n)


def bootstrap(
    samples: Sequence[ArrayLike],
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
    *,
    share: bool = True,
) -> Interval:
    """Returns the mean over all items, with a percentile interval over seeds and items.

    Each resample draws S seeds with replacement, and for each drawn seed as many of its
    items as it has. A share of 0/1 items gets the Wilson interval instead where there
    is one seed, or where all items agree; other items that all agree get a point. With
    few seeds a percentile interval is somewhat too narrow; more seeds are the cure.

    Args:
      samples: for each of S seeds, one value per item; the lengths may differ.
      rng: source of the resamples; the result is a function of its state.
      confidence: share, the nominal coverage of the interval, in (0, 1).
      resamples: number of resamples.
      share: false for ranks and losses, which may all be 1 without being 1 of 1.

    Raises:
      ValueError: if there is no seed, a seed without items, or a value is not finite.

    >>> seeds = [np.ones(20), np.ones(20)]
    >>> bootstrap(seeds, np.random.default_rng(0)) == wilson(40, 40)
    True
    """
    seeds = _check_samples(samples, confidence, resamples)
    values = np.concatenate(seeds)
    n, total = len(values), values.sum()
    agree = bool(values.min() == values.max())
    if share and (agree or len(seeds) == 1) and np.isin(values, (0, 1)).all():
        return wilson(int(total), n, confidence)
    if agree:
        return Interval(float(values[0]), float(values[0]), float(values[0]), n)
    return _percentile(total / n, _means(seeds, rng, resamples), confidence, n)


def paired(
    samples_x: Sequence[ArrayLike],
    samples_y: Sequence[ArrayLike],
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
    *,
    share: bool = True,
) -> Paired:
    """Returns the mean of x - y over the same items, and how surely it is above 0.

    ``p = (1 + #{resampled mean <= 0}) / (1 + resamples)``. Where all n differences
    of shares agree, the bootstrap knows no spread and the interval follows from the
    Wilson bound u on the share of items that would have disagreed: all 0 gives
    ``[-u, u]``, all 1 gives ``[1 - 2u, 1]`` (each such item at its worst), all -1 its
    mirror image; and p is not below the exact sign test, ``2^-n``.

    Args:
      samples_x: for each seed, one value per item.
      samples_y: the same items in the same order.
      rng: source of the resamples; the result is a function of its state.
      confidence: share, the nominal coverage of the interval, in (0, 1).
      resamples: number of resamples.
      share: false for ranks and losses, whose intervals may be points.

    Raises:
      ValueError: if the two sides do not have the same numbers of seeds and items, or
        as in ``bootstrap``.

    >>> paired([[1, 1, 1]], [[0, 0, 0]], np.random.default_rng(0)).p
    0.125
    """
    seeds_x = _check_samples(samples_x, confidence, resamples)
    seeds_y = _check_samples(samples_y, confidence, resamples)
    sizes_x, sizes_y = [len(x) for x in seeds_x], [len(y) for y in seeds_y]
    if sizes_x != sizes_y:
        raise ValueError(
            f"Got {sizes_x} and {sizes_y} items per seed; a paired difference needs "
            f"the same items in the same order on both sides."
        )
    seeds = [x - y for x, y in zip(seeds_x, seeds_y, strict=True)]
    values = np.concatenate(seeds)
    if values.min() == values.max():
        value, n = float(values[0]), len(values)
        p = 1.0 if value <= 0 else max(1 / (1 + resamples), 0.5**n)
        ends = _unseen(value, n, confidence) if share else (value, value)
        return Paired(Interval(value, *ends, n), p)
    means = _means(seeds, rng, resamples)
    p = (1 + int((means <= 0).sum())) / (1 + resamples)
    return Paired(_percentile(float(values.mean()), means, confidence, len(values)), p)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Returns Holm's adjusted p-values, in the order given.

    The k-th smallest of m is multiplied by m - k + 1; running maximum; at most 1.

    Raises:
      ValueError: if there is no p-value, or one outside [0, 1].

    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or p.size == 0 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            f"Got p-values {p.tolist()}, expected a list of at least one number in "
            f"[0, 1]; a test that could not run has p-value 1."
        )
    order = np.argsort(p, kind="stable")
    stepped = p[order] * np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def _means(
    seeds: list[np.ndarray], rng: np.random.Generator, resamples: int
) -> np.ndarray:
    # A seed drawn t times contributes t * n draws of its items: one multinomial over
    # its distinct values (two, for 0/1 items) instead of t * n indices.
    S = len(seeds)
    times_RxS = rng.multinomial(S, np.full(S, 1 / S), size=resamples)
    sums, counts = np.zeros(resamples), np.zeros(resamples)
    for values, times in zip(seeds, times_RxS.T, strict=True):
        distinct, count = np.unique(values, return_counts=True)
        drawn = times * len(values)
        sums += rng.multinomial(drawn, count / len(values)) @ distinct
        counts += drawn
    return sums / counts


def _percentile(value: float, means: np.ndarray, confidence: float, n: int) -> Interval:
    lo, hi = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    # An estimate outside its own interval (rounding, skew) would be unreadable.
    return Interval(float(value), min(float(lo), value), max(float(hi), value), n)


def _unseen(value: float, n: int, confidence: float) -> tuple[float, float]:
    """Ends of the difference when n pairs agree, and a share of others may not."""
    hidden = wilson(0, n, confidence).hi
    ends = {
        0.0: (-hidden, hidden),
        1.0: (1 - 2 * hidden, 1.0),
        -1.0: (-1.0, 2 * hidden - 1),
    }
    return ends.get(value, (value, value))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(
            f"Got confidence {confidence}, expected a share such as 0.95, not percent."
        )


def _check_samples(
    samples: Sequence[ArrayLike], confidence: float, resamples: int
) -> list[np.ndarray]:
    _check_confidence(confidence)
    if resamples < 1:
        raise ValueError(f"Got {resamples} resamples, expected at least 1.")
    seeds = [np.asarray(values, np.float64) for values in samples]
    if not seeds:
        raise ValueError("Got no seed, expected one array of item values per seed.")
    for i, values in enumerate(seeds):
        if values.ndim != 1 or not values.size or not np.isfinite(values).all():
            raise ValueError(
                f"Seed {i} of {len(seeds)} has values of shape {values.shape}, "
                f"expected a vector of finite values, one per item and at least one; "
                f"leave out a seed without items or whose measurement diverged."
            )
    return seeds
