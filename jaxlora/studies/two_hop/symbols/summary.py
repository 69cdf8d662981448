"""The summary of a study on symbols: what rests on formats, routes, the leaderboard."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Metric, Split
from jaxlora.studies.harness import Results, Run
from jaxlora.studies.harness.samples import Samples, add, unavailable
from jaxlora.studies.two_hop import leaderboard, summary
from jaxlora.studies.two_hop.certainty import certainty
from jaxlora.studies.two_hop.protocol import Log, refused_rows
from jaxlora.studies.two_hop.rows import Block, pooled_guesses, samples
from jaxlora.studies.two_hop.summary import Measured
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig

# The controls that rest on an extra format, and the row that each would fill.
FORMAT_CONTROLS = (
    (Arm.PAIR, Method.MEAN, Split.WRITTEN),
    (Arm.DOCUMENT, Method.NONE, Split.TWO_HOP),
    (Arm.BASE, Method.NONE, Split.CONTEXT),
)
# A written bridge counts only where the base writes it, and reads what is written.
SAME_CONTROL = {"bridge is read": "written bridge"}


def finish(this: Run[TwoHopConfig], log: Log, claims: Sequence[Prediction]) -> Results:
    """Pools, judges and checks everything that was asked.

    Args:
      this: the run.
      log: what it learned.
      claims: the predictions.
    """
    config, raw = this.config, samples(log.all_items())
    routes = {block: x[0] for block, x in log.notes("routes").items()}
    usable = _usable(raw, log)
    measured = {**usable, **route_samples(routes)}
    more: list[dict[str, Any]] = []
    for coverage, seeds in log.passed.items():
        confidence = config.thresholds.confidence
        more += certainty(summary.at(measured, coverage), seeds, confidence)
    more += [*_unavailable(config, raw, usable, log), *pooled_guesses(log.base_rows)]
    cells = dict.fromkeys(config.all_coverages, tuple(Cell))
    least = config.experts.min_own
    ended = summary.finish(this, log, claims, Measured(measured, more, cells, least))
    ended.summary["oracle"] = {
        f"coverage {block.coverage:g}, seed {block.seed}, {block.arm}": notes[0]
        for block, notes in log.notes("oracle").items()
    }
    ended.summary["leaderboard"] = _leaderboard(config, measured, log)
    return ended


def route_samples(notes: Mapping[Block, Sequence[Mapping[str, Any]]]) -> dict:
    """Per-item values of what a gate chose.

    Args:
      notes: records of ``choices.records``, by block.
    """
    out: dict[Address, dict[int, Any]] = {}
    for block, records in notes.items():
        for record in records:
            where = (("layer", record["layer"]), ("token", record["token"]))
            more = {"metric": Metric(record["metric"]), "where": where}
            address = block.address(record["cell"], Split.TWO_HOP, **more)
            libraries = record["libraries"]
            add(out, address, block.seed, record["values"], libraries)
    return out


def _leaderboard(config: TwoHopConfig, measured: Samples, log: Log) -> list[dict]:
    out = []
    for coverage in filter(log.passed.get, config.all_coverages):
        refused = {b: why for b, why in log.refused().items() if b.coverage == coverage}
        rules = summary.rules(config, log, config.experts.min_own, coverage)
        mine = summary.at(measured, coverage)
        lines = leaderboard.table(mine, rules, config.methods, refused, coverage)
        rows = learned_rows(log, coverage)
        out += [line | {"learned_rows": rows.get(line["method"])} for line in lines]
    return out


def learned_rows(log: Log, coverage: float) -> dict[str, list[int]]:
    """The fewest and the most target rows that a method learned from, by its name.

    Of the pair, in the cells that a leaderboard pools; methods that see none are left
    out.

    Args:
      log: of the run.
      coverage: of the bases.
    """
    out: dict[str, list[int]] = {}
    for block, notes in log.notes("rows").items():
        if (block.coverage, block.arm) != (coverage, Arm.PAIR):
            continue
        numbers = [n for cell in leaderboard.POOLED for n in notes[0].get(cell, ())]
        numbers += out.get(str(block.method), [])
        if numbers:
            out[str(block.method)] = [min(numbers), max(numbers)]
    return out


def _format(x: Address) -> str | None:
    """The extra format that a measurement rests on."""
    if x.split in (Split.WRITTEN, Split.WRITTEN_BRIDGE):
        return "written bridge"
    if x.split is Split.CONTEXT:
        return "facts in context"
    return "one document" if x.arm is Arm.DOCUMENT else None


def _usable(measured: Samples, log: Log) -> dict[Address, Mapping[int, Any]]:
    """Leaves out what rests on a format that the base of a seed did not learn."""
    without = {
        (SAME_CONTROL.get(c["criterion"], c["criterion"]), c["coverage"], c["seed"])
        for c in log.criteria
        if not c["required"] and not c["passed"]
    }
    out: dict[Address, Mapping[int, Any]] = {}
    for x, by_seed in measured.items():
        kept = [s for s in by_seed if (_format(x), x.coverage, s) not in without]
        out[x] = {seed: by_seed[seed] for seed in kept}
    return out


def _unavailable(
    config: TwoHopConfig, raw: Samples, usable: Samples, log: Log
) -> list[dict[str, Any]]:
    """A row for everything that was asked but rests on a format no base learned."""
    out = []
    for x, by_seed in raw.items():
        if x.metric is not Metric.ACCURACY:
            continue
        without: list[int | str] = sorted(by_seed.keys() - usable[x].keys())
        if by_seed and not usable[x]:
            without.append("all")
        reason = f"the criterion of '{_format(x)}' was not met"
        out += [unavailable(seed, x, reason) for seed in without]
    out += refused_rows(log, tuple(Cell))
    for coverage in config.all_coverages:
        if log.passed.get(coverage):
            continue
        for arm, method, split in FORMAT_CONTROLS:
            for cell in Cell:
                x = Block(coverage, 0, arm, method).address(cell, split)
                out.append(unavailable("all", x, "no base met its criteria"))
    return out
