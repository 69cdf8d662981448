"""From the log of a run to rows, verdicts and predictions: one regime after the other.

Within a regime the cells whose facts are all new (R-OO, H-OO, F-OO) are also pooled:
the row has no cell and the entry ``cells``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import (
    ERROR_METRICS,
    Address,
    Arm,
    Cell,
    Method,
    Metric,
    Split,
)
from jaxlora.studies import two_hop
from jaxlora.studies.boundary import design
from jaxlora.studies.boundary.config import BoundaryConfig
from jaxlora.studies.boundary.design import NEW, PLAIN
from jaxlora.studies.boundary.log import Asked, Log
from jaxlora.studies.harness import Results, Run, results, samples
from jaxlora.studies.harness.config import plain
from jaxlora.studies.harness.samples import Intervals, Sample, Samples

ASKS = {Split.TWO_HOP: "direct", Split.WRITTEN: "written"}
WRITTEN_CRITERIA = ("written bridge", "bridge is read")
POOLED = (("cells", ", ".join(NEW)),)
"""What a row over all cells of new facts has in the place of a cell."""
SIMPLE = (
    Split.HOP1,
    Split.HOP2,
    Split.WRITTEN_BRIDGE,
    Split.FAMILIAR_TWO_HOP,
)
"""Asked for their accuracy alone."""
DETAILS = (Metric.CHANCE, Metric.LOSS_GAP, *ERROR_METRICS)


def finish(
    this: Run[BoundaryConfig], log: Log, claims: Sequence[Prediction]
) -> Results:
    """Pools, judges and checks.

    Args:
      this: the run.
      log: what it learned.
      claims: the predictions.
    """
    config = this.config
    pooled: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    headroom: list[dict[str, Any]] = []
    every = [Asked(p, regime) for p in design.points(config) for regime in p.regimes]
    for number, asked in enumerate(every):
        this.progress("statistics", number, len(every), asked.regime.name)
        measured = kept(log, asked)
        pooled += _rows(config, log, asked, measured)
        verdicts += _judged(config, log, asked, measured)
        headroom += _headroom(config, log, asked, measured)
    table = results.table(this.study.name, [*log.rows, *pooled])
    summary = {
        "study": this.study.name,
        "config": plain(config),
        "failed_seeds": log.failed,
        "criteria": log.criteria,
        "own_facts": [
            dict(asked.condition)
            | {"coverage": asked.point.world.coverage}
            | {"cell": str(cell), "library": str(arm), "value": value}
            for (asked, cell, arm), value in log.lowest.items()
        ],
        "predictions": results.checked(claims, pooled, this.study.revision),
        "verdicts": verdicts,
        "headroom": headroom,
    }
    return Results(table, summary | this.origin, log.failed)


def kept(log: Log, asked: Asked) -> Samples:
    """The measurements of a regime that rows and verdicts rest on.

    Args:
      log: of the run.
      asked: the regime.
    """
    blocks = log.blocks.get(asked, {})  # none where no base met its criteria
    every = two_hop.rows.samples({b: x for b, x in blocks.items() if len(x)})
    return {x: by_seed for x, by_seed in every.items() if _matters(x)}


def _matters(x: Address) -> bool:
    if x.covered is not None:
        return False
    if x.split in SIMPLE or x.metric is Metric.ACCURACY:
        return x.split in (*SIMPLE, *ASKS)
    if x.metric is Metric.COUNTERFACTUAL:
        return x.arm in two_hop.judge.COUNTERFACTUALS
    return x.split in ASKS and x.metric in DETAILS


def new_facts(measured: Samples) -> Samples:
    """Cells of new facts as one: people of all three, no two cells share a library.

    Args:
      measured: of one regime; what comes out stands under the first of the cells.
    """
    chosen: dict[Address, list[Mapping[int, Sample]]] = {}
    for x, by_seed in measured.items():
        if x.cell in NEW:
            chosen.setdefault(x.at(cell=NEW[0]), []).append(by_seed)
    return {
        x: {
            seed: samples.joined([part[seed] for part in parts])
            for seed in parts[0]
            if all(seed in part for part in parts)
        }
        for x, parts in chosen.items()
    }


def asks(
    config: BoundaryConfig, log: Log, asked: Asked
) -> dict[Split, tuple[int, ...]]:
    """The seeds whose answers count, by how they are asked.

    Written answers count where the base itself writes and reads bridges.

    Args:
      config: has the criterion.
      log: of the run.
      asked: the regime.
    """
    seeds = tuple(log.passed.get(asked.point, ()))
    able = tuple(s for s in seeds if _writes(config, log, asked, s))
    return {Split.TWO_HOP: seeds, Split.WRITTEN: able}


def _writes(config: BoundaryConfig, log: Log, asked: Asked, seed: int) -> bool:
    point = asked.point
    mine = {"base": point.name, "coverage": point.world.coverage, "seed": seed}
    values = [
        record["value"]
        for record in log.criteria
        if record["criterion"] in WRITTEN_CRITERIA and mine.items() <= record.items()
    ]
    return len(values) == len(WRITTEN_CRITERIA) and min(values) >= config.min_written


def _rules(config: BoundaryConfig, log: Log, asked: Asked, seeds: Sequence[int]):
    coverage = asked.point.world.coverage
    lowest: dict[tuple[float | None, Cell, Arm], float] = {
        (coverage, cell, arm): value
        for (of, cell, arm), value in log.lowest.items()
        if of == asked
    }
    least = config.experts.min_own
    return two_hop.judge.Rules(
        tuple(seeds), lowest, least, config.thresholds, config.resamples
    )


def _rows(
    config: BoundaryConfig, log: Log, asked: Asked, measured: Samples
) -> Iterator[dict[str, Any]]:
    how = Intervals(config.thresholds.confidence, config.resamples)
    able = asks(config, log, asked)
    together = new_facts(measured)
    for split in dict.fromkeys(x.split for x in measured):
        written = split in (Split.WRITTEN, Split.WRITTEN_BRIDGE)
        seeds = able[Split.WRITTEN if written else Split.TWO_HOP]
        mine = _of(measured, split)
        # Methods that are only ranked are told apart by all new facts together.
        single = () if asked.point.ranked or asked.regime.glance else seeds
        yield from samples.pooled(_shown(mine), single, how)
        pair = {x: v for x, v in mine.items() if x.arm in (Arm.PAIR, Arm.JOINT)}
        yield from samples.per_seed(pair, seeds, how.confidence)
        pooled = _of(together, split)
        for row in samples.pooled(_shown(pooled), seeds, how):
            yield _without_cell(row)
        if split in ASKS:
            for row in _differences(pooled, seeds, how):
                yield _without_cell(row)


def _shown(measured: Samples) -> Samples:
    """What gets rows: of arms but the combination, accuracies and counterfactuals."""
    plain = (Metric.ACCURACY, Metric.COUNTERFACTUAL, Metric.CHANCE)
    return {
        x: by_seed
        for x, by_seed in measured.items()
        if x.metric in plain or x.arm is Arm.PAIR
    }


def _of(measured: Samples, split: Split) -> Samples:
    return {x: by_seed for x, by_seed in measured.items() if x.split is split}


def _without_cell(row: Mapping[str, Any]) -> dict[str, Any]:
    condition = results.with_condition(row, dict(POOLED))
    return condition | {"familiarity": "", "knows": ""}


def _differences(
    measured: Samples, seeds: Sequence[int], how: Intervals
) -> Iterator[dict[str, Any]]:
    """Of the combination to its controls, and to one LoRA on both fact sets."""
    for x in list(measured):
        judged = x.arm is Arm.PAIR and x.method in PLAIN
        if not judged or x.metric is not Metric.ACCURACY:
            continue
        joint = x.at(arm=Arm.JOINT, method=Method.NONE)
        for y in (*two_hop.judge.controls(x), joint):
            pair = samples.difference(measured, x, y, seeds, how)
            if pair is not None:
                yield samples.difference_row(x, y, pair.difference)


def _judged(
    config: BoundaryConfig, log: Log, asked: Asked, measured: Samples
) -> Iterator[dict[str, Any]]:
    if asked.point.ranked or asked.regime.glance:
        return
    judged = {x: v for x, v in measured.items() if x.method in (Method.NONE, *PLAIN)}
    for split, seeds in asks(config, log, asked).items():
        if not seeds:
            yield from _invalid(asked, split)
            continue
        rules = _rules(config, log, asked, seeds)
        for record in two_hop.judge.verdicts(judged, rules, split):
            yield _named(asked, split) | record
        for record in two_hop.judge.verdicts(new_facts(judged), rules, split):
            yield _named(asked, split) | record | {"cell": dict(POOLED)["cells"]}


def _headroom(
    config: BoundaryConfig, log: Log, asked: Asked, measured: Samples
) -> Iterator[dict[str, Any]]:
    for split, seeds in asks(config, log, asked).items():
        rules = _rules(config, log, asked, seeds)
        if seeds:
            for record in two_hop.judge.headroom(measured, rules, split):
                yield _named(asked, split) | record
            for record in two_hop.judge.headroom(new_facts(measured), rules, split):
                yield _named(asked, split) | record | {"cell": dict(POOLED)["cells"]}


def _invalid(asked: Asked, split: Split) -> Iterator[dict[str, Any]]:
    reason = "no base met its criteria"
    if split is Split.WRITTEN:
        reason = "no base writes and reads bridges"
    coverage = asked.point.world.coverage
    for cell in asked.point.cells:
        yield _named(asked, split) | two_hop.judge.invalid(coverage, cell, reason)


def _named(asked: Asked, split: Split) -> dict[str, Any]:
    """What every verdict names, in the words of its rows."""
    return dict(asked.condition) | {"asked": ASKS[split]}
