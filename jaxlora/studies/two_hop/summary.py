"""From the log of a study to its results: pooled rows, verdicts, predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxlora.evaluate import predictions
from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Cell, Library, Method, Metric, Split
from jaxlora.io.files import write_text
from jaxlora.studies.two_hop import certainty, judge, league, rows, store
from jaxlora.studies.two_hop.config import TwoHopConfig
from jaxlora.studies.two_hop.record import Log, refused
from jaxlora.studies.two_hop.rows import STUDY

# The controls that rest on an extra format, and the row that each would fill.
FORMAT_CONTROLS = {
    "written bridge": (Library.PAIR, Method.MEAN, Split.WRITTEN),
    "one document": (Library.DOCUMENT, Method.NONE, Split.TWO_HOP),
    "facts in context": (Library.BASE, Method.NONE, Split.CONTEXT),
}


# A written bridge counts only where the base writes it, and reads what is written.
SAME_CONTROL = {"bridge is read": "written bridge"}


class Results(NamedTuple):
    """What a study found: tidy rows, and everything that is not a row."""

    rows: pd.DataFrame
    summary: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Whether some base never passed its gates."""
        return bool(self.summary["failed_seeds"])


def write_rows(out: Path, log: Log, more: list[dict[str, Any]] | None = None):
    """Writes results.csv from what is logged, and returns the table."""
    table = rows.frame(log.gate_rows + log.rows + (more or []))
    write_text(out / "results.csv", table.to_csv(index=False))
    return table


def finish(
    config: TwoHopConfig,
    log: Log,
    claims: tuple[Prediction, ...],
    out: Path,
) -> Results:
    """Pools, judges and checks; writes results.csv and returns everything else.

    Args:
      config: of the study.
      log: what the study learned.
      claims: the predictions.
      out: folder of the study.
    """
    level, draws = config.thresholds.level, config.resamples
    raw = rows.samples(log.items)
    made = _usable(raw, log) | rows.route_samples(log.routes)
    pooled = rows.pooled(
        made, sorted({block.seed for block in log.items}), level, draws
    )
    pooled += differences(made, log.passed, level, draws)
    for at, seeds in log.passed.items():
        pooled += certainty.certainty(_at(made, at), seeds, level)
    pooled += _unavailable(config, raw, log) + guesses(log.gate_rows)
    table = write_rows(out, log, pooled)
    summary = {
        "study": STUDY,
        "config": store.plain(config),
        "failed_seeds": log.failed,
        "gates": log.gates,
        "own_facts": [
            {"coverage": c, "cell": str(cell), "library": str(name), "value": value}
            for (c, cell, name), value in log.own.items()
        ],
        "oracle": log.notes,
        "predictions": checked(claims, pooled, log.origin.pop("predictions_revision")),
        "verdicts": _verdicts(config, made, log),
        "league": _league(config, made, log),
    } | log.origin
    return Results(table, summary)


def checked(
    claims: Sequence[Prediction], pooled: list[dict[str, Any]], revision: str | None
) -> dict[str, Any]:
    """What became of the predictions, as results.json holds it."""
    outcomes = predictions.check(claims, pooled)
    return {
        "digest": predictions.digest(claims),
        "revision": revision,
        "outcomes": [
            {
                "statement": o.prediction.statement,
                "held": o.held,
                "got": _got(o),
                "detail": o.sentence,
            }
            for o in outcomes
        ],
    }


def _got(outcome: predictions.Outcome) -> str:
    """The value and interval alone, for a table."""
    numbers = (outcome.value, outcome.lo, outcome.hi)
    value, lo, hi = ("–" if x is None else f"{x:.2f}" for x in numbers)
    return f"{value} [{lo}, {hi}]"


def _verdicts(config: TwoHopConfig, made: rows.Samples, log: Log):
    out = []
    for level in config.levels:
        if not log.passed.get(level):
            out += [_invalid(level, cell) for cell in Cell]
            continue
        out += judge.verdicts(_at(made, level), _judging(config, log, level))
    return out


def _league(config: TwoHopConfig, made: rows.Samples, log: Log):
    out = []
    for level in config.levels:
        if log.passed.get(level):
            refused = {b: why for b, why in log.refused.items() if b.coverage == level}
            judging = _judging(config, log, level)
            mine = _at(made, level)
            out += league.table(mine, judging, config.methods, refused, level)
    return out


def _at(made: rows.Samples, level: float) -> rows.Samples:
    return {place: x for place, x in made.items() if place.coverage == level}


def _judging(config: TwoHopConfig, log: Log, level: float) -> judge.Record:
    return judge.Record(
        tuple(log.passed[level]),
        log.own,
        config.experts.min_own,
        config.thresholds,
        config.resamples,
    )


def _invalid(level: float, cell: Cell) -> dict[str, Any]:
    return {
        "coverage": level,
        "cell": str(cell),
        "library": str(Library.PAIR),
        "method": str(Method.MEAN),
        "label": "invalid",
        "cause": "base",
        "reason": "No base passed its gates, so nothing was combined.",
    }


def differences(
    made: rows.Samples,
    seeds: Mapping[float, Sequence[int]],
    level: float,
    draws: int,
) -> list[dict[str, Any]]:
    """Paired differences: to every control, and of 3- to 2-combinations.

    Args:
      made: the samples.
      seeds: of each coverage level, those whose base passed its gates.
      level: coverage of the intervals.
      draws: bootstrap resamples.
    """
    out = []
    for x in list(made):
        if x.library not in judge.COMPARED or x.metric is not Metric.ACCURACY:
            continue
        if x.split is not Split.TWO_HOP or x.covered is not None:
            continue
        against = judge.controls(x)
        if x.library is not Library.PAIR:
            against.append(x._replace(library=Library.PAIR))
        if x.library is Library.TRIPLE_OTHERS:
            alone = {"library": Library.TARGET_OTHERS, "method": Method.NONE}
            against.append(x._replace(**alone))
        for y in against:
            passed = seeds.get(x.coverage, ())
            found = rows.difference(made, x, y, passed, level, draws)
            if found is not None:
                out.append(rows.difference_row(x, y, found.difference))
    return out


def guesses(gate_rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What guessing gives in each cell, over all seeds."""
    metrics = (Metric.ONE_OF_N.value, Metric.MAJORITY.value)
    same: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for found in gate_rows:
        if found["metric"] in metrics:
            keys = ("familiarity", "knows", "metric", "condition")
            same.setdefault(tuple(found[key] for key in keys), []).append(found)
    return [
        some[0]
        | {
            "seed": "all",
            "value": round(float(np.mean([found["value"] for found in some])), 6),
            "n": sum(found["n"] for found in some),
        }
        for some in same.values()
    ]


def _format(place: rows.Place) -> str | None:
    """The extra format that a measurement rests on."""
    if place.split in (Split.WRITTEN, Split.WRITTEN_BRIDGE):
        return "written bridge"
    if place.split is Split.CONTEXT:
        return "facts in context"
    return "one document" if place.library is Library.DOCUMENT else None


def _without(log: Log) -> set[tuple[str, float, int]]:
    """The (format, coverage, seed) whose gate failed."""
    return {
        (SAME_CONTROL.get(g["gate"], g["gate"]), g["coverage"], g["seed"])
        for g in log.gates
        if not g["required"] and not g["passed"]
    }


def _usable(made: rows.Samples, log: Log) -> rows.Samples:
    """Leaves out what rests on a format that the base of a seed did not learn."""
    without = _without(log)
    return {
        place: {
            seed: values
            for seed, values in by_seed.items()
            if (_format(place), place.coverage, seed) not in without
        }
        for place, by_seed in made.items()
    }


def _unavailable(
    config: TwoHopConfig, raw: rows.Samples, log: Log
) -> list[dict[str, Any]]:
    """A row for everything that was asked but rests on a format no base learned."""
    made = _usable(raw, log)
    out = []
    for place, by_seed in raw.items():
        if place.metric is not Metric.ACCURACY:
            continue
        without: list[int | str] = sorted(by_seed.keys() - made[place].keys())
        if by_seed and not made[place]:
            without.append("all")
        reason = f"the gate of '{_format(place)}' failed"
        out += [rows.unavailable(seed, place, reason) for seed in without]
    out += refused(log.refused, list(Cell))
    for level in config.levels:
        if log.passed.get(level):
            continue
        for library, method, split in FORMAT_CONTROLS.values():
            for cell in Cell:
                place = rows.Place(level, cell, library, method, split, Metric.ACCURACY)
                out.append(rows.unavailable("all", place, "no base passed its gates"))
    return out
