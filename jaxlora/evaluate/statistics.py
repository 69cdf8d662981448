"""Intervals and tests for accuracies measured on several seeds and libraries.

An interval over several seeds is the widest of three, at each end: a bootstrap over
seeds, libraries and people; Wilson's on all items; and one whose spread is measured
between seeds (or libraries, where there are few seeds), since a percentile interval of
four seeds is too narrow. ``experiments/boundary/coverage.md`` has their coverage.

References:
  Wilson, Probable inference, the law of succession, and statistical inference
    (JASA 1927).
  Korn and Graubard, Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data (Survey Methodology 1998): the effective
    number of items. Dean and Pagano (JSSAM 2015): in Wilson's interval.
  Davison and Hinkley, Bootstrap Methods and their Application (1997), sections 3.8
    and 4.2: hierarchical resampling, and the +1 in a p-value.
  Agresti and Min, Simple improved confidence intervals for comparing matched
    proportions (Statistics in Medicine 2005).
  McNemar, Note on the sampling error of the difference between correlated proportions
    (Psychometrika 1947); exact: the sign test.
  Holm, A simple sequentially rejective multiple test procedure (1979).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxlora.evaluate import ends, resampling

PAIRED_RESAMPLES = 20_000
"""Enough for a p-value that stays below 0.05 when Holm multiplies it by 73."""


class Interval(NamedTuple):
    """A measurement with its interval."""

    value: float
    """The estimate itself, inside ``[lo, hi]``."""
    lo: float
    hi: float
    n: int
    """Number of items behind it, over all seeds."""


class Paired(NamedTuple):
    """The difference of two measurements of the same items."""

    difference: Interval
    """Mean of x - y, with its interval."""
    p: float
    """One-sided p-value against "the mean difference is not above 0"."""


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
    share = successes / n
    return Interval(share, *ends.wilson(share, n, confidence), n)


def bootstrap(
    samples: Sequence[ArrayLike],
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
    *,
    libraries: Sequence[ArrayLike] | None = None,
    share: bool = True,
) -> Interval:
    """Returns the mean over all items, with an interval over seeds, libraries, people.

    A share of 0/1 items gets Wilson's interval alone where there is one library, or
    where all items agree; other items that all agree get a point.

    Args:
      samples: for each of S seeds, one value per item; the lengths may differ.
      rng: source of the resamples; the result is a function of its state.
      confidence: share, the nominal coverage of the interval, in (0, 1).
      resamples: number of resamples.
      libraries: for each seed, the library of each item; by default a seed is one.
      share: false for ranks and losses, which may all be 1 without being 1 of 1.

    Raises:
      ValueError: if there is no seed, a seed without items, a value is not finite, or
        libraries have another shape than the samples.

    >>> seeds = [np.ones(20), np.ones(20)]
    >>> bootstrap(seeds, np.random.default_rng(0)) == wilson(40, 40)
    True
    """
    checked = _check_samples(samples, confidence, resamples)
    seeds, values = resampling.nested(checked, libraries), np.concatenate(checked)
    value, n = float(values.mean()), len(values)
    share = share and bool(np.isin(values, (0, 1)).all())
    agree = bool(values.min() == values.max())
    if share and (agree or sum(map(len, seeds)) == 1):
        return wilson(int(values.sum()), n, confidence)
    if agree:
        return Interval(float(values[0]), float(values[0]), float(values[0]), n)
    means = resampling.means(seeds, rng, resamples)
    candidates = [ends.percentile(means, confidence)]
    if share:
        candidates += ends.shares(seeds, value, n, confidence)
    else:
        candidates += ends.student(seeds, value, confidence)
    return _widest(value, n, candidates)


def paired(
    samples_x: Sequence[ArrayLike],
    samples_y: Sequence[ArrayLike],
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = PAIRED_RESAMPLES,
    *,
    libraries: Sequence[ArrayLike] | None = None,
    share: bool = True,
) -> Paired:
    """Returns the mean of x - y over the same items, and how surely it is above 0.

    ``p = (1 + #{resampled mean <= 0}) / (1 + resamples)``; of shares, not below the
    exact sign test over people. Where all n differences of shares agree, the bootstrap
    knows no spread and the interval follows from the Wilson bound u on the share of
    items that would have disagreed: all 0 gives ``[-u, u]``, all 1 gives ``[1 - 2u,
    1]`` (each such item at its worst), all -1 its mirror image.

    Args:
      samples_x: for each seed, one value per item.
      samples_y: the same items in the same order.
      rng: source of the resamples; the result is a function of its state.
      confidence: share, the nominal coverage of the interval, in (0, 1).
      resamples: number of resamples.
      libraries: for each seed, the library of each item; by default a seed is one.
      share: false for ranks and losses, whose intervals may be points.

    Raises:
      ValueError: if the two sides do not have the same numbers of seeds and items, or
        as in ``bootstrap``.

    >>> paired([[1, 1, 1]], [[0, 0, 0]], np.random.default_rng(0)).p
    0.125
    """
    checked = _differences(samples_x, samples_y, confidence, resamples)
    seeds, values = resampling.nested(checked, libraries), np.concatenate(checked)
    value, n = float(values.mean()), len(values)
    share = share and bool(np.isin(values, (-1, 0, 1)).all())
    if values.min() == values.max():
        p = 1.0 if value <= 0 else max(1 / (1 + resamples), 0.5**n)
        point = ends.agreeing(value, n, confidence) if share else (value, value)
        return Paired(Interval(value, *point, n), p)
    means = resampling.means(seeds, rng, resamples)
    p = (1 + int((means <= 0).sum())) / (1 + resamples)
    candidates = [ends.percentile(means, confidence)]
    candidates += ends.student(seeds, value, confidence)
    if not share:
        return Paired(_widest(value, n, candidates), p)
    wide = _widest(value, n, [*candidates, ends.matched(values, confidence)])
    inside = wide._replace(lo=max(wide.lo, -1.0), hi=min(wide.hi, 1.0))
    return Paired(inside, max(p, ends.sign_test(values)))


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


def _widest(value: float, n: int, every: Sequence[ends.Ends]) -> Interval:
    # The value is among them: outside its own interval it would be unreadable.
    lows, highs = zip(*every, strict=True)
    return Interval(value, min(value, *lows), max(value, *highs), n)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(
            f"Got confidence {confidence}, expected a share such as 0.95, not percent."
        )


def _differences(
    samples_x: Sequence[ArrayLike],
    samples_y: Sequence[ArrayLike],
    confidence: float,
    resamples: int,
) -> list[np.ndarray]:
    seeds_x = _check_samples(samples_x, confidence, resamples)
    seeds_y = _check_samples(samples_y, confidence, resamples)
    sizes_x, sizes_y = [len(x) for x in seeds_x], [len(y) for y in seeds_y]
    if sizes_x != sizes_y:
        raise ValueError(
            f"Got {sizes_x} and {sizes_y} items per seed; a paired difference needs "
            f"the same items in the same order on both sides."
        )
    return [x - y for x, y in zip(seeds_x, seeds_y, strict=True)]


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
