"""From items to rows: one tidy measurement each, per seed and pooled over seeds."""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxlora.evaluate import statistics
from jaxlora.evaluate.schema import (
    COLUMNS,
    ERROR_METRICS,
    Cell,
    Library,
    Method,
    Metric,
    Split,
    row,
)
from jaxlora.evaluate.statistics import Interval

STUDY = "two-hop"
SHARES = (Metric.ACCURACY, Metric.COUNTERFACTUAL, *ERROR_METRICS)


class Block(NamedTuple):
    """One combination on one base: the unit that is stored, resumed and skipped."""

    coverage: float
    seed: int
    library: Library
    method: Method


class Place(NamedTuple):
    """Where a pooled sample belongs."""

    coverage: float
    cell: Cell
    library: Library
    method: Method
    split: Split
    metric: Metric
    covered: bool | None = None
    where: tuple[tuple[str, Any], ...] = ()
    """What else varies, for example (("layer", 0), ("token", "last"))."""

    @property
    def condition(self) -> dict[str, Any]:
        """The row's condition."""
        extra = {} if self.covered is None else {"covered": self.covered}
        return {"coverage": self.coverage, **extra, **dict(self.where)}


Samples = dict[Place, dict[int, np.ndarray]]
"""Per-item values of every measurement, by place and seed."""


def samples(blocks: Mapping[Block, pd.DataFrame]) -> Samples:
    """Returns the per-item values behind every row.

    Items keep the order (pair, person), so that two places of one cell are paired.
    """
    out: Samples = {}
    for block, items in blocks.items():
        for (cell, split), frame in items.groupby(["cell", "split"], sort=False):
            for metric, covered, values in _measures(Split(split), frame):
                place = Place(
                    block.coverage,
                    Cell(cell),
                    block.library,
                    block.method,
                    Split(split),
                    metric,
                    covered,
                )
                out.setdefault(place, {})[block.seed] = values
    return out


def route_samples(notes: Mapping[Block, Sequence[Mapping[str, Any]]]) -> Samples:
    """Per-item values of what a gate chose, as ``routing.diagnose`` found them."""
    out: Samples = {}
    for block, found in notes.items():
        for record in found:
            where = (("layer", record["layer"]), ("token", record["token"]))
            place = Place(
                block.coverage,
                Cell(record["cell"]),
                block.library,
                block.method,
                Split.TWO_HOP,
                Metric(record["metric"]),
                where=where,
            )
            out.setdefault(place, {})[block.seed] = np.array(record["values"], float)
    return out


def _measures(split: Split, frame: pd.DataFrame):
    """Yields (metric, covered subset or None, per-item values)."""
    yield Metric.ACCURACY, None, frame["correct"].to_numpy(float)
    if split not in (Split.TWO_HOP, Split.WRITTEN, Split.CONTEXT):
        return
    yield Metric.CHANCE, None, frame["chance"].to_numpy(float)
    if split is not Split.TWO_HOP:
        return
    for metric, column in (
        (Metric.RANK, "rank"),
        (Metric.LOSS, "loss"),
        (Metric.LOSS_GAP, "gap"),
        (Metric.COUNTERFACTUAL, "counterfactual"),
    ):
        yield metric, None, frame[column].to_numpy(float)
    for code, metric in enumerate(ERROR_METRICS, start=1):
        yield metric, None, (frame["error"] == code).to_numpy(float)
    both = frame["covered"].nunique() == 2
    for covered, part in frame.groupby("covered") if both else ():
        yield Metric.ACCURACY, bool(covered), part["correct"].to_numpy(float)


def interval(
    place: Place, values: Sequence[np.ndarray], level: float, resamples: int
) -> Interval:
    """The mean of a measurement with its interval, over one seed or several.

    Shares of one seed get Wilson's interval, everything else the bootstrap over seeds
    and items. The draws depend on the place alone, so that rows do not depend on the
    order in which they are computed.
    """
    share = place.metric in SHARES
    return statistics.bootstrap(values, generator(place), level, resamples, share=share)


def generator(*what: Any) -> np.random.Generator:
    """A generator whose draws are a function of what is measured."""
    return np.random.default_rng(zlib.crc32(repr(what).encode()))


def per_seed(found: Samples, seeds: Sequence[int], level: float) -> list[dict]:
    """Rows of single seeds; shares carry Wilson intervals, other values none."""
    rows = []
    for place, by_seed in found.items():
        for seed in seeds:
            if seed not in by_seed:
                continue
            values = by_seed[seed]
            value = Interval(float(np.mean(values)), np.nan, np.nan, len(values))
            if place.metric in SHARES:
                value = statistics.wilson(int(values.sum()), len(values), level)
            rows.append(to_row(seed, place, value))
    return rows


def pooled(
    found: Samples, seeds: Sequence[int], level: float, resamples: int
) -> list[dict]:
    """Rows over all seeds that passed their gates, with 1/N beside each chance."""
    rows = []
    for place, by_seed in found.items():
        values = [by_seed[seed] for seed in seeds if seed in by_seed]
        if not values:
            continue
        # A diverged expert has no loss; its seed says so, and is not pooled.
        finite = [x for x in values if np.isfinite(x).all()]
        value = Interval(np.nan, np.nan, np.nan, sum(map(len, values)))
        if finite:
            value = interval(place, finite, level, resamples)
        rows.append(to_row("all", place, value))
    return rows


def to_row(seed: int | str, place: Place, value: Interval) -> dict[str, Any]:
    """Returns the row of a measurement; ends that are not numbers become empty."""

    def number(x: float) -> float | None:
        return round(float(x), 6) if np.isfinite(x) else None

    return row(
        study=STUDY,
        seed=seed,
        cell=place.cell,
        library=place.library,
        method=place.method,
        split=place.split,
        metric=place.metric,
        value=number(value.value),
        n=value.n,
        lo=number(value.lo),
        hi=number(value.hi),
        condition=place.condition,
    )


def gate_rows(
    coverage: float, seed: int, gates: Mapping[str, tuple[Split, float, int, bool]]
) -> list[dict[str, Any]]:
    """Rows of a base's gates: the accuracy, and whether it passed."""
    rows = []
    for split, value, n, passed in gates.values():
        for metric, number in ((Metric.ACCURACY, value), (Metric.PASSED, passed)):
            rows.append(
                row(
                    study=STUDY,
                    seed=seed,
                    cell=None,
                    library=Library.BASE,
                    method=Method.NONE,
                    split=split,
                    metric=metric,
                    value=round(float(number), 6),
                    n=n,
                    condition={"coverage": coverage},
                )
            )
    return rows


def unavailable(seed: int | str, place: Place, reason: str) -> dict[str, Any]:
    """The row of a control that could not run; it never disappears quietly."""
    return row(
        study=STUDY,
        seed=seed,
        cell=place.cell,
        library=place.library,
        method=place.method,
        split=place.split,
        metric=Metric.AVAILABLE,
        value=0.0,
        n=0,
        condition=place.condition | {"reason": reason},
    )


def difference(
    found: Samples, x: Place, y: Place, seeds: Sequence[int], level: float, draws: int
) -> statistics.Paired | None:
    """Paired difference x - y over the items of all seeds; None if one is missing."""
    both = [s for s in seeds if s in found.get(x, {}) and s in found.get(y, {})]
    if not both:
        return None
    return statistics.paired(
        [found[x][seed] for seed in both],
        [found[y][seed] for seed in both],
        generator(x, y),
        level,
        draws,
    )


def difference_row(x: Place, y: Place, value: Interval) -> dict[str, Any]:
    """The row of a paired difference; its condition names the other side."""
    against = f"{y.library} [{y.method}]"
    made = to_row("all", x._replace(metric=Metric.DIFFERENCE), value)
    condition = json.loads(made["condition"]) | {"against": against}
    return made | {"condition": json.dumps(condition, sort_keys=True)}


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table with the columns of the schema, in their order."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS))
