"""Lower and upper ends of intervals, by method: what an interval is the widest of.

References: those of ``statistics``, whose functions choose among these.
"""

import math
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from scipy import special

from jaxlora.evaluate import resampling
from jaxlora.evaluate.resampling import Nested

Ends: TypeAlias = tuple[float, float]
"""Of an interval: the lower and the upper one."""


def wilson(share: float, n: float, confidence: float) -> Ends:
    """Wilson's score interval of a share of ``n`` items."""
    z = _normal(confidence)
    centre = share + z**2 / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Exactly 0 and 1 in theory, off by a rounding error in floats.
    lo = 0.0 if share == 0 else (centre - spread) / (1 + z**2 / n)
    hi = 1.0 if share == 1 else (centre + spread) / (1 + z**2 / n)
    return lo, hi


def percentile(means: np.ndarray, confidence: float) -> Ends:
    """The percentile interval of resampled means."""
    lo, hi = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(lo), float(hi)


def shares(seeds: Nested, value: float, n: int, confidence: float) -> Iterator[Ends]:
    """Wilson's ends on all items, and on as many as clusters leave effective."""
    yield wilson(value, n, confidence)
    spread = resampling.spread(seeds)
    if spread is not None and spread.variance > 0:
        z, t = _normal(confidence), _t(spread.freedom, confidence)
        effective = value * (1 - value) / spread.variance * (z / t) ** 2
        yield wilson(value, min(n, effective), confidence)


def student(seeds: Nested, value: float, confidence: float) -> Iterator[Ends]:
    """Student's t interval between clusters; nothing with too few of them."""
    spread = resampling.spread(seeds)
    if spread is not None:
        reach = _t(spread.freedom, confidence) * math.sqrt(spread.variance)
        yield value - reach, value + reach


def matched(values: np.ndarray, confidence: float) -> Ends:
    """Ends of a difference of matched shares, as if people were independent."""
    # Agresti and Min: half a person is added to each of the four kinds of pairs.
    n, mean = len(values) + 2, values.sum() / (len(values) + 2)
    unlike = (np.abs(values).sum() + 1) / n
    reach = _normal(confidence) * math.sqrt((unlike - mean**2) / n)
    return float(mean - reach), float(mean + reach)


def sign_test(values: np.ndarray) -> float:
    """Exact one-sided p-value: as many wins by fair coins, ties left out."""
    wins, losses = int((values > 0).sum()), int((values < 0).sum())
    return float(special.bdtrc(wins - 1, wins + losses, 0.5)) if wins else 1.0


def agreeing(value: float, n: int, confidence: float) -> Ends:
    """Ends of the difference when n pairs agree, and a share of others may not."""
    _, hidden = wilson(0.0, n, confidence)
    known = {
        0.0: (-hidden, hidden),
        1.0: (1 - 2 * hidden, 1.0),
        -1.0: (-1.0, 2 * hidden - 1),
    }
    return known.get(value, (value, value))


def _normal(confidence: float) -> float:
    return float(special.ndtri(0.5 + confidence / 2))


def _t(freedom: int, confidence: float) -> float:
    return float(special.stdtrit(freedom, 0.5 + confidence / 2))
