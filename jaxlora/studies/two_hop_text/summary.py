"""From the log to results: pooled rows, verdicts, predictions, what was left out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Cell, Library, Method
from jaxlora.io.files import write_text
from jaxlora.studies.two_hop import judge, rows, store, summary
from jaxlora.studies.two_hop.record import refused
from jaxlora.studies.two_hop.summary import Results
from jaxlora.studies.two_hop_text import record
from jaxlora.studies.two_hop_text.config import STUDY, TextConfig
from jaxlora.studies.two_hop_text.record import LEVEL, TextLog


def finish(
    config: TextConfig,
    log: TextLog,
    claims: tuple[Prediction, ...],
    out: Path,
    more: dict[str, Any],
) -> Results:
    """Pools, judges and checks; writes results.csv and returns everything else.

    Args:
      config: of the study.
      log: what it learned.
      claims: the predictions.
      out: folder of the study.
      more: entries of the summary that are known already.
    """
    level, draws = config.thresholds.level, config.resamples
    made = record.samples(log)
    seeds = log.passed.get(LEVEL, [])
    single = rows.per_seed(made, config.numbers, level)
    pooled = rows.pooled(made, seeds, level, draws)
    pooled += summary.differences(_plain(made), log.passed, level, draws)
    pooled += record.unavailable(log) + summary.guesses(log.gate_rows)
    pooled += refused(log.refused, log.cells)
    table = write_rows(out, [*log.gate_rows, *single, *pooled])
    revision = log.origin.pop("predictions_revision", None)
    told = {
        "study": STUDY,
        "config": store.plain(config),
        "failed_seeds": log.failed,
        "gates": log.gates,
        "own_facts": [
            {"cell": str(cell), "library": str(name), "value": value}
            for (_, cell, name), value in log.own.items()
        ],
        "predictions": summary.checked(claims, _main(pooled), revision),
        "verdicts": _verdicts(config, made, log),
        "left_out": log.left_out,
        "repeat": f"jaxlora study two-hop --model {config.model} --config results.json",
    }
    return Results(table, told | log.origin | more)


def write_rows(out: Path, found: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Writes results.csv and returns its table."""
    table = rows.frame(_unlevelled(found))
    write_text(out / "results.csv", table.to_csv(index=False))
    return table


def _unlevelled(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Names this study, and drops the coverage, which nobody measured here."""
    out = []
    for row in found:
        condition = json.loads(row["condition"])
        condition.pop("coverage", None)
        text = json.dumps(condition, sort_keys=True)
        out.append(row | {"study": STUDY, "condition": text})
    return out


def _main(pooled: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the main way of scoring: predictions speak of these."""
    return [x for x in _unlevelled(pooled) if "scored" not in x["condition"]]


def _plain(made: rows.Samples) -> rows.Samples:
    """Samples of the main way of scoring, which verdicts and differences rest on."""
    return {place: values for place, values in made.items() if not place.where}


def _verdicts(config: TextConfig, made: rows.Samples, log: TextLog):
    passed = tuple(log.passed.get(LEVEL, ()))
    if not passed:
        return [_invalid(cell) for cell in log.cells]
    judging = judge.Record(
        passed, log.own, config.gates.min_own, config.thresholds, config.resamples
    )
    found = judge.verdicts(_plain(made), judging)
    return [{k: v for k, v in told.items() if k != "coverage"} for told in found]


def _invalid(cell: Cell) -> dict[str, Any]:
    return {
        "cell": str(cell),
        "library": str(Library.PAIR),
        "method": str(Method.MEAN),
        "label": "invalid",
        "cause": "base",
        "reason": "The base failed its gates, so nothing was combined.",
    }
