"""Evidence and verdicts, from the samples of a study."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlora.evaluate import verdict
from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Metric, Split
from jaxlora.evaluate.statistics import Interval, Paired
from jaxlora.evaluate.verdict import Evidence, Thresholds
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
            label, cause, reason = verdict.decide(e, rules.thresholds)
            out.append(
                at_coverage(coverage)
                | {
                    "cell": str(e.cell),
                    "library": str(e.arm),
                    "method": str(e.method),
                    "label": str(label),
                    "cause": str(cause),
                    "reason": reason,
                    "p_adjusted": e.p_adjusted,
                }
            )
    return out


def at_coverage(coverage: float | None) -> dict[str, Any]:
    """The coverage as an entry of a record; none where nobody measured it."""
    return {} if coverage is None else {"coverage": coverage}


def invalid(coverage: float | None, cell: Cell, reason: str) -> dict[str, Any]:
    """The verdict on a cell of which no base met its criteria."""
    return at_coverage(coverage) | {
        "cell": str(cell),
        "library": str(Arm.PAIR),
        "method": str(Method.MEAN),
        "label": "invalid",
        "cause": "base",
        "reason": reason,
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
    hops = {
        name: _pool(measured, x.at(split=split), rules)
        for name, split in (("hop 1", Split.HOP1), ("hop 2", Split.HOP2))
    }
    others: dict[str, Paired | None] = {
        f"{y.arm} [{y.method}]": samples.difference(
            measured, x, y, rules.seeds, rules.intervals
        )
        for y in controls(x)
    }
    assert x.cell is not None
    lowest = rules.lowest.get((x.coverage, x.cell, x.arm), 0)
    return Evidence(
        cell=x.cell,
        arm=x.arm,
        method=x.method,
        base_ok=bool(rules.seeds),
        expert_ok=lowest >= rules.min_own,
        two_hop=_need(measured, x, rules),
        base_two_hop=_need(measured, base, rules),
        hops={name: value for name, value in hops.items() if value is not None},
        chance=_chance(measured, x, rules),
        controls=others,
        target_saw_people=x.arm is Arm.TRIPLE,
        counterfactual=_moved(measured, x, rules),
        joint=_pool(measured, joint, rules),
        coverage=x.coverage if x.cell.knows[1] == "I" else None,
    )


def _moved(measured: Samples, x: Address, rules: Rules) -> dict[str, Interval]:
    """Accuracy of the counterfactual answer where one hop was trained on it."""
    if x.arm is not Arm.PAIR:
        return {}
    values = {
        str(arm): _pool(measured, x.at(arm=arm, metric=Metric.COUNTERFACTUAL), rules)
        for arm in COUNTERFACTUALS
    }
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


def _chance(measured: Samples, x: Address, rules: Rules) -> float:
    values = _seeds(measured, x.at(metric=Metric.CHANCE), rules)
    return float(np.mean(np.concatenate(values)))
