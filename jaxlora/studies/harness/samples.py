"""From per-item values to rows: of one seed, pooled over seeds, and paired differences.

The resamples of an interval are a function of what is measured alone, so rows do not
depend on the order in which they are computed.
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlora.evaluate import schema, statistics
from jaxlora.evaluate.schema import ERROR_METRICS, STEP_ERRORS, Address, Metric
from jaxlora.evaluate.statistics import Interval
from jaxlora.studies.harness.criteria import bare


class Sample(NamedTuple):
    """A measurement of the items of one seed."""

    values: np.ndarray
    """[N] float, one an item."""
    libraries: np.ndarray
    """[N] int, the library of each item: people of one share a merge."""


Samples = Mapping[Address, Mapping[int, Sample]]
"""Per-item values of every measurement, by address and seed.

Items keep one order, so that two addresses of one cell are paired.
"""
SHARES = (
    Metric.ACCURACY,
    Metric.STEPS_RIGHT,
    Metric.COUNTERFACTUAL,
    *ERROR_METRICS,
    *STEP_ERRORS,
)


class Intervals(NamedTuple):
    """How surely something is said."""

    confidence: float
    """Nominal coverage of every interval."""
    resamples: int
    """Of the bootstrap over seeds, libraries and items."""

    @property
    def of_differences(self) -> "Intervals":
        """More resamples: a p-value must outlast Holm over all methods."""
        return self._replace(resamples=10 * self.resamples)


def interval(address: Address, seeds: Sequence[Sample], how: Intervals) -> Interval:
    """The mean of a measurement with its interval, over one seed or several.

    Args:
      address: what is measured.
      seeds: per-item values of every seed.
      how: confidence and resamples.
    """
    values, libraries = zip(*seeds, strict=True)
    more = {"libraries": libraries, "share": address.metric in SHARES}
    return statistics.bootstrap(values, generator(address), *how, **more)


def generator(*addresses: Address) -> np.random.Generator:
    """A generator whose draws are a function of what is measured."""
    text = ", ".join(x.draws for x in addresses)
    text = f"({text},)" if len(addresses) == 1 else f"({text})"
    return np.random.default_rng(zlib.crc32(text.encode()))


def add(
    samples: dict, address: Address, seed: int, values: Any, libraries: Any = 0
) -> None:
    """Adds the values of one seed to samples that are being made.

    Args:
      samples: grow.
      address: what is measured.
      seed: of the base.
      values: [N], one an item.
      libraries: [N], the number of each item's library; by default all share one.
    """
    measured = np.asarray(values, float)
    of = np.broadcast_to(np.asarray(libraries, int), measured.shape)
    samples.setdefault(address, {})[seed] = Sample(measured, of)


def joined(parts: Sequence[Sample]) -> Sample:
    """Items of several samples one after the other; no two parts share a library.

    >>> joined([Sample(np.ones(2), np.array([0, 0]))] * 2).libraries
    array([0, 0, 1, 1])
    """
    of = [(p, name) for p, part in enumerate(parts) for name in part.libraries.tolist()]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(of))}
    values = np.concatenate([part.values for part in parts])
    return Sample(values, np.array([numbers[key] for key in of]))


def per_seed(
    samples: Samples, seeds: Sequence[int], confidence: float
) -> Iterator[dict[str, Any]]:
    """Rows of single seeds; shares carry Wilson intervals, other values none.

    Args:
      samples: of all measurements.
      seeds: whose rows.
      confidence: nominal coverage of the intervals.
    """
    for address, by_seed in samples.items():
        for seed in (x for x in seeds if x in by_seed):
            values = by_seed[seed].values
            value = bare(np.mean(values), len(values))
            if address.metric in SHARES:
                value = statistics.wilson(int(values.sum()), len(values), confidence)
            yield schema.row(seed, address, value)


def pooled(
    samples: Samples, seeds: Sequence[int], how: Intervals
) -> Iterator[dict[str, Any]]:
    """Rows over all seeds.

    Args:
      samples: of all measurements.
      seeds: whose base met its criteria.
      how: confidence and resamples.
    """
    for address in samples:
        every = of_seeds(samples, address, seeds)
        if not every:
            continue
        # A diverged expert has no loss; its seed says so, and is not pooled.
        finite = [x for x in every if np.isfinite(x.values).all()]
        value = bare(np.nan, sum(len(x.values) for x in every))
        if finite:
            value = interval(address, finite, how)
        yield schema.row("all", address, value)


def of_seeds(samples: Samples, address: Address, seeds: Sequence[int]) -> list[Sample]:
    """The values of a measurement in those seeds that have it."""
    by_seed = samples.get(address, {})
    return [by_seed[seed] for seed in seeds if seed in by_seed]


def difference(
    samples: Samples, x: Address, y: Address, seeds: Sequence[int], how: Intervals
) -> statistics.Paired | None:
    """Paired difference x - y over the items of all seeds; None if one is missing.

    Args:
      samples: of all measurements.
      x: what should be larger.
      y: what it is compared with.
      seeds: that are pooled.
      how: confidence and resamples.
    """
    # A seed in which one side diverged has no difference.
    both = [
        (samples[x][s], samples[y][s])
        for s in seeds
        if s in samples.get(x, {}) and s in samples.get(y, {})
    ]
    both = [pair for pair in both if all(np.isfinite(z.values).all() for z in pair)]
    if not both:
        return None
    xs, ys = ([z.values for z in side] for side in zip(*both, strict=True))
    more = {"libraries": [z.libraries for z, _ in both], "share": x.metric in SHARES}
    return statistics.paired(xs, ys, generator(x, y), *how, **more)


DIFFERENCES = {
    Metric.ACCURACY: Metric.DIFFERENCE,
    Metric.LOSS_GAP: Metric.LOSS_GAP_DIFFERENCE,
    Metric.RANK: Metric.RANK_DIFFERENCE,
}
"""What the paired difference of two measurements is called."""


def difference_row(x: Address, y: Address, value: Interval) -> dict[str, Any]:
    """The row of a paired difference; its condition names the other side."""
    row = schema.row("all", x.at(metric=DIFFERENCES[x.metric]), value)
    condition = json.loads(row["condition"]) | {"against": f"{y.arm} [{y.method}]"}
    return row | {"condition": json.dumps(condition, sort_keys=True)}


def unavailable(seed: int | str, address: Address, reason: str) -> dict[str, Any]:
    """The row of a control that could not run; it never disappears quietly."""
    where = (*address.where, ("reason", reason))
    return schema.row(
        seed, address.at(metric=Metric.AVAILABLE, where=where), bare(0.0, 0)
    )
