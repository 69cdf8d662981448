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
from jaxlora.evaluate.schema import ERROR_METRICS, Address, Metric
from jaxlora.evaluate.statistics import Interval
from jaxlora.studies.harness.criteria import bare

Samples = Mapping[Address, Mapping[int, np.ndarray]]
"""Per-item values [N] of every measurement, by address and seed.

Items keep one order, so that two addresses of one cell are paired.
"""
SHARES = (Metric.ACCURACY, Metric.COUNTERFACTUAL, *ERROR_METRICS)


class Intervals(NamedTuple):
    """How surely something is said."""

    confidence: float
    """Nominal coverage of every interval."""
    resamples: int
    """Of the bootstrap over seeds and items."""


def interval(address: Address, values: Sequence[np.ndarray], how: Intervals):
    """The mean of a measurement with its interval, over one seed or several.

    Shares of one seed get Wilson's interval, everything else the bootstrap over seeds
    and items.

    Args:
      address: what is measured.
      values: per-item values of every seed.
      how: confidence and resamples.
    """
    share = address.metric in SHARES
    rng = generator(address)
    return statistics.bootstrap(values, rng, *how, share=share)


def generator(*addresses: Address) -> np.random.Generator:
    """A generator whose draws are a function of what is measured."""
    text = ", ".join(x.draws for x in addresses)
    text = f"({text},)" if len(addresses) == 1 else f"({text})"
    return np.random.default_rng(zlib.crc32(text.encode()))


def add(samples: dict, address: Address, seed: int, values: Any) -> None:
    """Adds the values of one seed to samples that are being made."""
    samples.setdefault(address, {})[seed] = np.asarray(values, float)


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
            values = by_seed[seed]
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
        values = of_seeds(samples, address, seeds)
        if not values:
            continue
        # A diverged expert has no loss; its seed says so, and is not pooled.
        finite = [x for x in values if np.isfinite(x).all()]
        value = bare(np.nan, sum(map(len, values)))
        if finite:
            value = interval(address, finite, how)
        yield schema.row("all", address, value)


def of_seeds(
    samples: Samples, address: Address, seeds: Sequence[int]
) -> list[np.ndarray]:
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
    both = [s for s in seeds if s in samples.get(x, {}) and s in samples.get(y, {})]
    if not both:
        return None
    xs, ys = ([samples[address][seed] for seed in both] for address in (x, y))
    return statistics.paired(xs, ys, generator(x, y), *how)


def difference_row(x: Address, y: Address, value: Interval) -> dict[str, Any]:
    """The row of a paired difference; its condition names the other side."""
    row = schema.row("all", x.at(metric=Metric.DIFFERENCE), value)
    condition = json.loads(row["condition"]) | {"against": f"{y.arm} [{y.method}]"}
    return row | {"condition": json.dumps(condition, sort_keys=True)}


def unavailable(seed: int | str, address: Address, reason: str) -> dict[str, Any]:
    """The row of a control that could not run; it never disappears quietly."""
    where = (*address.where, ("reason", reason))
    return schema.row(
        seed, address.at(metric=Metric.AVAILABLE, where=where), bare(0.0, 0)
    )
