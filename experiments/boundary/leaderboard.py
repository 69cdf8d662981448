"""Ranks all merges and routes where there is headroom, with what each of them costs.

Of a finished ``jaxlora study boundary``: its rows, paired differences to the mean from
its blocks, and seconds and bytes of every method, measured here on the experts of its
first base that was asked (rank 8, 4 layers of width 128, unless configured otherwise).
Writes leaderboard.csv, leaderboard.md and figure-leaderboard.png. Run:

    python experiments/boundary/leaderboard.py --results results/boundary --out DIR
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import costs
import pandas as pd

from jaxlora.evaluate.schema import Address, Arm, Method, Metric, Split
from jaxlora.evaluate.statistics import Paired
from jaxlora.report import ranking
from jaxlora.report.ranking_lines import Beside, Place
from jaxlora.report.ranking_lines import ranking as ranked
from jaxlora.studies.boundary import design, summary
from jaxlora.studies.boundary.config import BoundaryConfig
from jaxlora.studies.boundary.design import NEW, Point
from jaxlora.studies.boundary.log import Asked, Log
from jaxlora.studies.boundary.regimes import Regime
from jaxlora.studies.harness import samples, store
from jaxlora.studies.harness.config import from_plain
from jaxlora.studies.harness.samples import Intervals
from jaxlora.studies.two_hop import items
from jaxlora.studies.two_hop.symbols.answer import ROWS


def main() -> None:
    """Writes the table, its numbers and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/jaxlora"))
    parser.add_argument("--out", type=Path, default=Path("experiments/boundary"))
    given = parser.parse_args()
    about = json.loads((given.results / "results.json").read_text())
    config = from_plain(BoundaryConfig, about["config"])
    point = next(x for x in design.points(config) if x.ranked)
    places = tuple(map(place_of, point.regimes))
    log = logged(given.results, point, about["criteria"])
    rows = pd.read_csv(given.results / "results.csv")
    # Refused before anything is timed, if the study did not come so far.
    for place in places:
        ranked(rows, place, thresholds=config.thresholds)
    asked = costs.bench(config, point, log.passed[point][0], given.cache_dir)
    beside = Beside(
        costs=costs.costs(asked, point.methods),
        learned=learned(given.results, log),
        paired={k: x for place in places for k, x in paired(config, log, place)},
    )
    every = [ranked(rows, place, beside, config.thresholds) for place in places]
    ranking.save(every, given.out, costs.about(asked, about.get("revision")))


def place_of(regime: Regime) -> Place:
    """How a regime is asked: placed experts directly, others with the bridge written.

    Args:
      regime: of the point at which methods are ranked.
    """
    if regime.placed:
        return Place(regime.name, Split.TWO_HOP, "Placed in layers, asked directly")
    return Place(regime.name, Split.WRITTEN, "Bridge rows, the bridge written")


def logged(out: Path, point: Point, criteria: list[dict[str, Any]]) -> Log:
    """The log of a finished point, as far as differences need it.

    Args:
      out: folder of the study.
      point: at which methods are ranked.
      criteria: of all bases, as in results.json.

    Raises:
      ValueError: if no base met its criteria.
    """
    log = Log(criteria=criteria)
    mine = {"base": point.name, "coverage": point.world.coverage}
    for seed in point.seeds:
        of = [x for x in criteria if (mine | {"seed": seed}).items() <= x.items()]
        if of and all(x["passed"] for x in of if x["required"]):
            log.passed.setdefault(point, []).append(seed)
    if point not in log.passed:
        raise ValueError(
            f"None of the bases {point.seeds} of {point.name!r} met its criteria in "
            f"{out}: is the study finished?"
        )
    for regime in point.regimes:
        asked = Asked(point, regime)
        for seed, method in ((s, m) for s in log.passed[point] for m in point.methods):
            block = asked.block(seed, Arm.PAIR, method)
            outcome = store.load(block.path(out), items.COLUMNS)
            if outcome is not None:
                log.add(asked, block, outcome)
    return log


def learned(out: Path, log: Log) -> dict[str, tuple[int, int]]:
    """Fewest and most target rows that each method learned from, where it notes them.

    Args:
      out: folder of the study.
      log: its blocks.
    """
    rows: dict[str, list[int]] = {}
    for block in (x for blocks in log.blocks.values() for x in blocks):
        outcome = store.load(block.path(out), items.COLUMNS)
        notes: Mapping[str, list[int]] = outcome.notes.get(ROWS, {}) if outcome else {}
        for cell, ends in notes.items():
            if cell in NEW:
                rows.setdefault(str(block.method), []).extend(ends)
    return {method: (min(x), max(x)) for method, x in rows.items()}


def paired(
    config: BoundaryConfig, log: Log, place: Place
) -> Iterator[tuple[tuple[str, str], Paired]]:
    """The differences of all methods to the mean, over the same people.

    Args:
      config: of the study.
      log: its blocks.
      place: the regime and its way of asking.
    """
    asked = next(x for x in log.blocks if x.regime.name == place.regime)
    seeds = summary.asks(config, log, asked)[place.split]
    measured = summary.new_facts(summary.kept(log, asked))
    how = Intervals(config.thresholds.confidence, config.resamples).of_differences
    for x in measured:
        if x.split is not place.split or x.metric is not Metric.ACCURACY:
            continue
        pair = two_sided(measured, x, x.at(method=Method.MEAN), seeds, how)
        if pair is not None:
            yield (place.regime, str(x.method)), pair


def two_sided(
    measured: samples.Samples, x: Address, y: Address, seeds: Any, how: Intervals
) -> Paired | None:
    """The difference x - y with a two-sided p-value: twice the smaller of both sides.

    Args:
      measured: per-item values.
      x: a measurement.
      y: what it is compared with.
      seeds: that are pooled.
      how: confidence and resamples.
    """
    above = samples.difference(measured, x, y, seeds, how)
    below = samples.difference(measured, y, x, seeds, how)
    if above is None or below is None:
        return None
    return above._replace(p=min(1.0, 2 * min(above.p, below.p)))


if __name__ == "__main__":
    main()
