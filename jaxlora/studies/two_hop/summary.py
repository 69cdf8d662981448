"""From the log of a run to its results: pooled rows, verdicts, predictions."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Arm, Cell, Method, Metric
from jaxlora.studies.harness import Results, Run, results, samples
from jaxlora.studies.harness.config import plain
from jaxlora.studies.harness.samples import Intervals, Samples
from jaxlora.studies.two_hop import finding, judge
from jaxlora.studies.two_hop.config import CommonConfig
from jaxlora.studies.two_hop.judge import Rules, at_coverage
from jaxlora.studies.two_hop.protocol import Log, lowest_own

PARTS = ('"scored"', '"entropy"')
"""In the condition of rows that are about less than everybody's answers."""
INVALID = "No base met its criteria, so nothing was combined."


class Measured(NamedTuple):
    """What a summary is made of, beside the log."""

    samples: Samples
    more: Sequence[dict[str, Any]]
    """Pooled rows that only one answerer has."""
    cells: Mapping[Any, Sequence[Cell]]
    """Who was asked, by coverage."""
    min_own: float
    """The criterion of experts."""


def rules(config: CommonConfig, log: Log, min_own: float, coverage: float | None):
    """What judging needs at one coverage.

    Args:
      config: with thresholds and resamples.
      log: of the run.
      min_own: the criterion of experts.
      coverage: of the bases.
    """
    seeds = tuple(log.passed.get(coverage, ()))
    return Rules(seeds, lowest_own(log), min_own, config.thresholds, config.resamples)


def at(measured: Samples, coverage: float | None) -> Samples:
    """The samples of one coverage."""
    return {x: values for x, values in measured.items() if x.coverage == coverage}


def finish(
    this: Run[Any], log: Log, claims: Sequence[Prediction], measured: Measured
) -> Results:
    """Pools, judges and checks.

    Args:
      this: the run.
      log: what it learned.
      claims: the predictions.
      measured: samples, and what this answerer alone adds.
    """
    config: CommonConfig = this.config
    how = Intervals(config.thresholds.confidence, config.resamples)
    seeds = sorted({seed for some in log.passed.values() for seed in some})
    pooled = list(samples.pooled(measured.samples, seeds, how))
    pooled += differences(measured.samples, log.passed, how)
    pooled += measured.more
    rows = results.table(this.study.name, [*log.base_rows, *log.rows, *pooled])
    main = of_everybody(pooled)
    summary = {
        "study": this.study.name,
        "config": plain(config),
        "failed_seeds": log.failed,
        "criteria": log.criteria,
        "own_facts": [
            at_coverage(c) | {"cell": str(cell), "library": str(arm), "value": value}
            for (c, cell, arm), value in lowest_own(log).items()
        ],
        "predictions": results.checked(claims, main, this.study.revision),
        "verdicts": list(_verdicts(config, log, measured)),
        "headroom": list(_headroom(config, log, measured)),
        "finding": _finding(config, log, measured),
    }
    return Results(rows, summary | this.origin, log.failed)


def of_everybody(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that predictions speak of: all people, and the main way of scoring.

    Args:
      rows: pooled over seeds.
    """
    return [x for x in rows if not any(part in x["condition"] for part in PARTS)]


def _verdicts(config: CommonConfig, log: Log, x: Measured) -> Iterator[dict[str, Any]]:
    for coverage, cells in x.cells.items():
        if log.passed.get(coverage):
            judging = rules(config, log, x.min_own, coverage)
            yield from judge.verdicts(at(x.samples, coverage), judging)
        else:
            yield from (judge.invalid(coverage, cell, INVALID) for cell in cells)


def _headroom(config: CommonConfig, log: Log, x: Measured) -> Iterator[dict[str, Any]]:
    for coverage in filter(log.passed.get, x.cells):
        judging = rules(config, log, x.min_own, coverage)
        yield from judge.headroom(at(x.samples, coverage), judging)


def _finding(config: CommonConfig, log: Log, x: Measured) -> dict[str, Any] | None:
    """At the highest coverage of which a base met its criteria."""
    usable = [coverage for coverage in x.cells if log.passed.get(coverage)]
    if not usable:
        return None
    top = max(usable, key=lambda c: c or 0.0)
    pooled = finding.finding(at(x.samples, top), rules(config, log, x.min_own, top))
    return pooled and at_coverage(top) | pooled


def differences(
    measured: Samples, passed: Mapping[float | None, Sequence[int]], how: Intervals
) -> Iterator[dict[str, Any]]:
    """Paired differences: to every control, and of 3- to 2-combinations.

    Of accuracies, ranks and loss minus shuffled loss; of the last two, below 0 is
    better.

    Args:
      measured: the samples.
      passed: of each coverage, the seeds whose base met its criteria.
      how: confidence and resamples.
    """
    for x in list(measured):
        if x.arm not in judge.COMPARED or not judge.two_hop_accuracy(x):
            continue
        against = judge.controls(x)
        if x.arm is not Arm.PAIR:
            against.append(x.at(arm=Arm.PAIR))
        if x.arm is Arm.TRIPLE_OTHERS:
            against.append(x.at(arm=Arm.TARGET_OTHERS, method=Method.NONE))
        for y, metric in itertools.product(against, samples.DIFFERENCES):
            sides = (x.at(metric=metric), y.at(metric=metric))
            # Verdicts rest on the accuracies alone: as many resamples as theirs.
            many = how.of_differences if metric is Metric.ACCURACY else how
            seeds = passed.get(x.coverage, ())
            pair = samples.difference(measured, *sides, seeds, many)
            if pair is not None:
                yield samples.difference_row(*sides, pair.difference)
