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

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from jaxlora.evaluate import resampling
from jaxlora.evaluate.resampling import Nested

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
    return Interval(share, *_wilson_ends(share, n, confidence), n)


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
    ends = [_percentile(means, confidence)]
    ends += _shares(seeds, value, n, confidence) if share else []
    ends += [] if share else _student(seeds, value, confidence)
    return _widest(value, n, ends)


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
    least = _sign_test(values) if share else 1 / (1 + resamples)
    if values.min() == values.max():
        p = 1.0 if value <= 0 else max(1 / (1 + resamples), 0.5**n)
        ends = _unseen(value, n, confidence) if share else (value, value)
        return Paired(Interval(value, *ends, n), p)
    means = resampling.means(seeds, rng, resamples)
    p = (1 + int((means <= 0).sum())) / (1 + resamples)
    ends = [_percentile(means, confidence), *_student(seeds, value, confidence)]
    found = _widest(value, n, ends + ([_matched(values, confidence)] if share else []))
    if share:
        found = found._replace(lo=max(found.lo, -1.0), hi=min(found.hi, 1.0))
    return Paired(found, max(p, least))


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


def _wilson_ends(share: float, n: float, confidence: float) -> tuple[float, float]:
    z = _normal(confidence)
    centre = share + z**2 / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Exactly 0 and 1 in theory, off by a rounding error in floats.
    lo = 0.0 if share == 0 else (centre - spread) / (1 + z**2 / n)
    hi = 1.0 if share == 1 else (centre + spread) / (1 + z**2 / n)
    return lo, hi


def _percentile(means: np.ndarray, confidence: float) -> tuple[float, float]:
    lo, hi = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(lo), float(hi)


def _shares(seeds: Nested, value: float, n: int, confidence: float):
    """Wilson's ends on all items, and on as many as clusters leave effective."""
    yield _wilson_ends(value, n, confidence)
    spread = resampling.spread(seeds)
    if spread is not None and spread.variance > 0:
        z, t = _normal(confidence), _t(spread.freedom, confidence)
        effective = value * (1 - value) / spread.variance * (z / t) ** 2
        yield _wilson_ends(value, min(n, effective), confidence)


def _student(seeds: Nested, value: float, confidence: float):
    """The ends of Student's t interval between clusters; nothing with too few."""
    spread = resampling.spread(seeds)
    if spread is not None:
        reach = _t(spread.freedom, confidence) * math.sqrt(spread.variance)
        yield value - reach, value + reach


def _matched(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Ends of a difference of matched shares, as if people were independent."""
    # Agresti and Min: half a person is added to each of the four kinds of pairs.
    n, mean = len(values) + 2, values.sum() / (len(values) + 2)
    unlike = (np.abs(values).sum() + 1) / n
    reach = _normal(confidence) * math.sqrt((unlike - mean**2) / n)
    return float(mean - reach), float(mean + reach)


def _sign_test(values: np.ndarray) -> float:
    """Exact one-sided p-value: as many wins by fair coins, ties left out."""
    wins, losses = int((values > 0).sum()), int((values < 0).sum())
    return float(special.bdtrc(wins - 1, wins + losses, 0.5)) if wins else 1.0


def _normal(confidence: float) -> float:
    return float(special.ndtri(0.5 + confidence / 2))


def _t(freedom: int, confidence: float) -> float:
    return float(special.stdtrit(freedom, 0.5 + confidence / 2))


def _widest(value: float, n: int, ends: Sequence[tuple[float, float]]) -> Interval:
    # The value is among them: outside its own interval it would be unreadable.
    lows, highs = zip(*ends, strict=True)
    return Interval(value, min(value, *lows), max(value, *highs), n)


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
