"""Evidence and verdicts, from the samples of a study."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlora.evaluate import verdict
from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Metric, Split
from jaxlora.evaluate.statistics import Interval, Paired
from jaxlora.evaluate.verdict import Cause, Evidence, Label, Thresholds
from jaxlora.studies.harness import samples
from jaxlora.studies.harness.samples import Intervals, Samples
from jaxlora.studies.two_hop.arms import COUNTERFACTUALS

# What gets a verdict, and what is only compared: there are no counterfactual experts
# for the identity rows and the A->C expert of others, so they could never compose.
JUDGED = (Arm.PAIR, Arm.TRIPLE)
COMPARED = (*JUDGED, Arm.TRIPLE_OTHERS, Arm.IDENTITY)
ALONE = (Arm.BASE, Arm.HOP1, Arm.HOP2)
SAME_METHOD = (Arm.RANDOM, Arm.PERMUTED, Arm.SHUFFLED)


@dataclasses.dataclass(frozen=True)
class Rules:
    """What judging needs beside the samples."""

    seeds: tuple[int, ...]
    """Seeds whose base met its criteria."""
    lowest: Mapping[tuple[float | None, Cell, Arm], float]
    """Lowest accuracy of an arm's experts on their own facts, by coverage and cell."""
    min_own: float
    """What that accuracy must be, or the arm is invalid."""
    thresholds: Thresholds
    resamples: int

    @property
    def intervals(self) -> Intervals:
        """Confidence and resamples."""
        return Intervals(self.thresholds.confidence, self.resamples)


def controls(x: Address) -> list[Address]:
    """The negative controls of a combination: alone, and combined the same way."""
    alone = [x.at(arm=arm, method=Method.NONE) for arm in ALONE]
    return alone + [x.at(arm=arm) for arm in SAME_METHOD]


def two_hop_accuracy(x: Address) -> bool:
    """Is this the two-hop accuracy over all people, which verdicts are about?"""
    everybody = x.covered is None and not x.where
    return everybody and x.split is Split.TWO_HOP and x.metric is Metric.ACCURACY


def verdicts(measured: Samples, rules: Rules) -> list[dict[str, Any]]:
    """Judges every judged arm, method, cell and coverage.

    P-values are adjusted over the methods tried on the same cell and arm.

    Args:
      measured: samples of the study.
      rules: seeds, criteria and thresholds.
    """
    out = []
    chosen = [x for x in measured if x.arm in JUDGED and two_hop_accuracy(x)]
    for coverage in sorted({x.coverage for x in chosen}, key=lambda c: c or 0.0):
        evidences = verdict.adjust(
            [evidence(measured, x, rules) for x in chosen if x.coverage == coverage]
        )
        for e in evidences:
            decided = verdict.decide(e, rules.thresholds)
            record = _record(coverage, e.cell, e.arm, e.method, *decided)
            out.append(record | {"p_adjusted": e.p_adjusted})
    return out


def at_coverage(coverage: float | None) -> dict[str, Any]:
    """The coverage as an entry of a record; none where nobody measured it."""
    return {} if coverage is None else {"coverage": coverage}


def invalid(coverage: float | None, cell: Cell, reason: str) -> dict[str, Any]:
    """The verdict on a cell of which no base met its criteria."""
    why = (Label.INVALID, Cause.BASE, reason)
    return _record(coverage, cell, Arm.PAIR, Method.MEAN, *why)


def _record(coverage: float | None, *values: str) -> dict[str, Any]:
    names = ("cell", "library", "method", "label", "cause", "reason")
    texts = map(str, values)
    return at_coverage(coverage) | dict(zip(names, texts, strict=True))


def evidence(measured: Samples, x: Address, rules: Rules) -> Evidence:
    """Gathers what the verdict on one combination rests on.

    Args:
      measured: samples of the study.
      x: two-hop accuracy of the combination.
      rules: seeds, criteria and thresholds.
    """
    base = x.at(arm=Arm.BASE, method=Method.NONE)
    joint = x.at(arm=Arm.JOINT, method=Method.NONE)
    # Where one hop was trained on the counterfactual answer, is it given?
    moved = COUNTERFACTUALS if x.arm is Arm.PAIR else ()
    assert x.cell is not None
    lowest = rules.lowest.get((x.coverage, x.cell, x.arm), 0)
    chance = _seeds(measured, x.at(metric=Metric.CHANCE), rules)
    return Evidence(
        cell=x.cell,
        arm=x.arm,
        method=x.method,
        base_ok=bool(rules.seeds),
        expert_ok=lowest >= rules.min_own,
        two_hop=_need(measured, x, rules),
        base_two_hop=_need(measured, base, rules),
        hops=_pools(
            measured, {str(y): x.at(split=y) for y in (Split.HOP1, Split.HOP2)}, rules
        ),
        chance=float(np.mean(np.concatenate(chance))),
        controls=differences(measured, x, rules),
        target_saw_people=x.arm is Arm.TRIPLE,
        counterfactual=_pools(
            measured,
            {str(y): x.at(arm=y, metric=Metric.COUNTERFACTUAL) for y in moved},
            rules,
        ),
        joint=_pool(measured, joint, rules),
        coverage=x.coverage if x.cell.knows[1] == "I" else None,
    )


def differences(
    measured: Samples, x: Address, rules: Rules
) -> dict[str, Paired | None]:
    """Paired differences to the negative controls; None of those that did not run."""
    given = (rules.seeds, rules.intervals)
    return {
        f"{y.arm} [{y.method}]": samples.difference(measured, x, y, *given)
        for y in controls(x)
    }


def _pools(measured: Samples, named: Mapping[str, Address], rules: Rules):
    """What was measured of some addresses, by name."""
    values = {name: _pool(measured, x, rules) for name, x in named.items()}
    return {name: value for name, value in values.items() if value is not None}


def _seeds(measured: Samples, x: Address, rules: Rules) -> list[np.ndarray]:
    # A study without a single good base still shows what it measured, as invalid.
    seeds = rules.seeds or tuple(measured.get(x, {}))
    return samples.of_seeds(measured, x, seeds)


def _pool(measured: Samples, x: Address, rules: Rules) -> Interval | None:
    values = _seeds(measured, x, rules)
    return samples.interval(x, values, rules.intervals) if values else None


def _need(measured: Samples, x: Address, rules: Rules) -> Interval:
    value = _pool(measured, x, rules)
    assert value is not None, x
    return value
