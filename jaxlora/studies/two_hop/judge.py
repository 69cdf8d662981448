"""Evidence and verdicts, from the samples of a study."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxlora.evaluate import verdict
from jaxlora.evaluate.evidence import Controls
from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Metric, Split
from jaxlora.evaluate.statistics import Interval
from jaxlora.evaluate.verdict import (
    Cause,
    Evidence,
    Ingredient,
    Label,
    Thresholds,
    Verdict,
)
from jaxlora.studies.harness import samples
from jaxlora.studies.harness.samples import Intervals, Sample, Samples
from jaxlora.studies.two_hop.arms import COUNTERFACTUALS

# What gets a verdict, and what is only compared: there are no counterfactual experts
# for the identity rows and the A->C expert of others, so they could never compose.
JUDGED = (Arm.PAIR, Arm.TRIPLE)
COMPARED = (*JUDGED, Arm.TRIPLE_OTHERS, Arm.IDENTITY)
EXPERTS = (Arm.HOP1, Arm.HOP2)
ALONE = (Arm.BASE, *EXPERTS)
SAME_METHOD = (Arm.RANDOM, Arm.PERMUTED, Arm.SHUFFLED)
# Where the base knows one hop: the expert of the other, alone and counterfactual.
NEW_HOP = {
    "OI": (Arm.HOP1, Arm.COUNTERFACTUAL1),
    "IO": (Arm.HOP2, Arm.COUNTERFACTUAL2),
}


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


def two_hop_accuracy(x: Address, asked: Split = Split.TWO_HOP) -> bool:
    """Is this the two-hop accuracy over all people, which verdicts are about?

    Args:
      x: any measurement.
      asked: directly, or with the bridge written.
    """
    everybody = x.covered is None and not x.where
    return everybody and x.split is asked and x.metric is Metric.ACCURACY


def name(x: Address) -> str:
    """What a control is called."""
    return f"{x.arm} [{x.method}]"


def verdicts(
    measured: Samples, rules: Rules, asked: Split = Split.TWO_HOP
) -> list[dict[str, Any]]:
    """Judges every judged arm, method, cell and coverage.

    P-values are adjusted over the methods tried on the same cell and arm.

    Args:
      measured: samples of the study.
      rules: seeds, criteria and thresholds.
      asked: directly, or with the bridge written.
    """
    out = []
    chosen = [x for x in measured if x.arm in JUDGED and two_hop_accuracy(x, asked)]
    for coverage in sorted({x.coverage for x in chosen}, key=lambda c: c or 0.0):
        evidences = verdict.adjust(
            [evidence(measured, x, rules) for x in chosen if x.coverage == coverage]
        )
        for e in evidences:
            decided = verdict.decide(e, rules.thresholds)
            record = _record(coverage, e, decided)
            adjusted = e.adjusted and e.adjusted.accuracy
            out.append(record | {"p_adjusted": adjusted})
    return out


def headroom(
    measured: Samples, rules: Rules, asked: Split = Split.TWO_HOP
) -> list[dict[str, Any]]:
    """Where one LoRA on both fact sets reaches what methods need to be ranked.

    Args:
      measured: samples of the study.
      rules: seeds and thresholds.
      asked: directly, or with the bridge written.
    """
    out = []
    for x in measured:
        if x.arm is not Arm.JOINT or not two_hop_accuracy(x, asked):
            continue
        joint = _pool(measured, x, rules)
        if joint is not None:
            reached = verdict.has_headroom(joint, rules.thresholds)
            numbers = joint._asdict() | {"needs": rules.thresholds.headroom}
            where = at_coverage(x.coverage) | {"cell": str(x.cell)}
            out.append(where | numbers | {"headroom": reached})
    return out


def at_coverage(coverage: float | None) -> dict[str, Any]:
    """The coverage as an entry of a record; none where nobody measured it."""
    return {} if coverage is None else {"coverage": coverage}


class _Judged(NamedTuple):
    """What a verdict is about; evidence has the same fields."""

    cell: Cell
    arm: Arm
    method: Method


def invalid(coverage: float | None, cell: Cell, reason: str) -> dict[str, Any]:
    """The verdict on a cell of which no base met its criteria."""
    decided = Verdict(Label.INVALID, Cause.BASE, reason)
    return _record(coverage, _Judged(cell, Arm.PAIR, Method.MEAN), decided)


def _record(
    coverage: float | None, of: Evidence | _Judged, decided: Verdict
) -> dict[str, Any]:
    return at_coverage(coverage) | {
        "cell": str(of.cell),
        "library": str(of.arm),
        "method": str(of.method),
        "label": str(decided.label),
        "cause": str(decided.cause),
        "reason": decided.reason,
        "remarks": list(decided.remarks),
    }


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
        chance=float(np.mean(np.concatenate([seed.values for seed in chance]))),
        controls=differences(measured, x, rules),
        likelihood=_likelihood(measured, x, rules),
        ingredient=_ingredient(x),
        alone=tuple(name(x.at(arm=y, method=Method.NONE)) for y in EXPERTS),
        target_saw_people=x.arm is Arm.TRIPLE,
        counterfactual=_pools(
            measured,
            {str(y): x.at(arm=y, metric=Metric.COUNTERFACTUAL) for y in moved},
            rules,
        ),
        joint=_pool(measured, joint, rules),
        coverage=x.coverage if x.cell.knows[1] == "I" else None,
    )


def differences(measured: Samples, x: Address, rules: Rules) -> Controls:
    """Paired differences to the negative controls; None of those that did not run."""
    given = (rules.seeds, rules.intervals.of_differences)
    return {name(y): samples.difference(measured, x, y, *given) for y in controls(x)}


def _likelihood(measured: Samples, x: Address, rules: Rules) -> Controls:
    """By how much the combination's loss minus shuffled loss is below a control's."""
    x = x.at(metric=Metric.LOSS_GAP)
    if x not in measured:
        return {}
    given = (rules.seeds, rules.intervals.of_differences)
    return {name(y): samples.difference(measured, y, x, *given) for y in controls(x)}


def _ingredient(x: Address) -> Ingredient | None:
    """The expert of the only hop that is new to the base."""
    if x.cell is None or x.cell.knows not in NEW_HOP:
        return None
    alone, counterfactual = NEW_HOP[x.cell.knows]
    control = x.at(arm=alone, method=Method.NONE)
    return Ingredient(name(control), str(counterfactual))


def _pools(measured: Samples, named: Mapping[str, Address], rules: Rules):
    """What was measured of some addresses, by name."""
    values = {key: _pool(measured, x, rules) for key, x in named.items()}
    return {key: value for key, value in values.items() if value is not None}


def _seeds(measured: Samples, x: Address, rules: Rules) -> list[Sample]:
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
