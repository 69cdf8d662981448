"""What the items of a regime say: samples, the law, and verdicts."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxlora.evaluate import law, verdict
from jaxlora.evaluate.law import Counts, Law
from jaxlora.evaluate.schema import (
    STEP_ERRORS,
    Address,
    Arm,
    Method,
    Metric,
    Split,
)
from jaxlora.evaluate.statistics import Interval
from jaxlora.evaluate.verdict import Evidence, Thresholds
from jaxlora.studies.harness import samples
from jaxlora.studies.harness.samples import Intervals, Sample, Samples
from jaxlora.studies.two_hop import Block

ALONE = (Arm.BASE, Arm.EXPERT_A, Arm.EXPERT_B)
SAME_METHOD = (Arm.RANDOM, Arm.PERMUTED, Arm.SHUFFLED, Arm.SAME_DATA)
MOVED = {Arm.COUNTERFACTUAL_A: 1, Arm.COUNTERFACTUAL_B: 2}
"""The bit that items have where they give the answer of a moved operation."""
COMPOSITES = {Split.BOTH: 2, Split.THREE_SKILLS: 3, Split.FOUR_SKILLS: 4}
"""How many skills a problem needs."""
KEPT = {
    "alone": (Split.SKILL_A, Split.SKILL_B),
    "in chains": (Split.CHAIN_A, Split.CHAIN_B),
    "answer only": (Split.ANSWER_A, Split.ANSWER_B),
}
"""Where kept skills are measured: in problems of one operation, or of the level of the
composite, the others being known."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """What judging needs beside the samples."""

    thresholds: Thresholds
    resamples: int
    min_own: float
    """What experts must reach on their own rows, or a combination is invalid."""

    @property
    def how(self) -> Intervals:
        """Confidence and resamples."""
        return Intervals(self.thresholds.confidence, self.resamples)


def measured(blocks: Mapping[Block, pd.DataFrame]) -> Samples:
    """The per-item values behind every row.

    Args:
      blocks: items of every arm of one regime.
    """
    out: dict[Address, dict[int, Sample]] = {}
    for block, items in blocks.items():
        for (split, level), frame in items.groupby(["split", "level"], sort=False):
            where = (("level", int(level)),)
            for metric, values in _measures(block, Split(split), frame):
                address = block.address(None, Split(split), metric=metric, where=where)
                samples.add(out, address, block.seed, values, frame["pair"])
    return out


def _measures(
    block: Block, split: Split, frame: pd.DataFrame
) -> Iterator[tuple[Metric, Any]]:
    yield Metric.ACCURACY, frame["correct"]
    if split not in (*COMPOSITES, Split.ANSWER_BOTH):
        return
    yield Metric.CHANCE, frame["chance"]
    if block.arm in MOVED:
        yield Metric.COUNTERFACTUAL, frame["counterfactual"] & MOVED[block.arm] > 0
    if split in COMPOSITES and block.arm is Arm.PAIR:
        yield Metric.STEPS_RIGHT, frame["steps"]
        for number, metric in enumerate(STEP_ERRORS):
            yield metric, frame["error"] == number


def laws(
    blocks: Mapping[Block, pd.DataFrame],
    seeds: Sequence[int],
    direct: Sequence[int],
    how: Intervals,
) -> Iterator[tuple[Address, Law]]:
    """Every combination's composite beside the product of the skills that it keeps.

    Args:
      blocks: items of every arm of one regime.
      seeds: whose base met its criteria.
      direct: those of them whose base answers without steps as well.
      how: confidence and resamples.
    """
    arms = dict.fromkeys((x.arm, x.method) for x in blocks if x.method != Method.NONE)
    joint = [(x.arm, x.method) for x in blocks if x.arm is Arm.JOINT]
    for arm, method in (*dict.fromkeys(joint), *arms):
        if arm not in (Arm.JOINT, Arm.PAIR, Arm.RANDOM):
            continue
        mine = [x for x in blocks if (x.arm, x.method) == (arm, method)]
        mine = [x for x in mine if x.seed in seeds and len(blocks[x])]
        if not mine:
            continue
        for split, level, kept in _comparisons(blocks[mine[0]]):
            asked = direct if split is Split.ANSWER_BOTH else seeds
            some = [blocks[x] for x in mine if x.seed in asked]
            if not some:
                continue
            counts = [_counts(items, split, level, kept) for items in some]
            where = (("kept", kept), ("level", level))
            address = mine[0].address(None, split, where=where)
            rng = samples.generator(address)
            yield address, law.law(counts, rng, *how)


def _comparisons(items: pd.DataFrame) -> Iterator[tuple[Split, int, str]]:
    both = items.loc[items["split"] == str(Split.BOTH), "level"].unique()
    for level in sorted(both.tolist()):
        yield Split.BOTH, level, "alone"
        yield Split.BOTH, level, "in chains"
    yield Split.ANSWER_BOTH, 2, "answer only"


def _counts(items: pd.DataFrame, split: Split, level: int, kept: str) -> Counts:
    at = level if kept == "in chains" else 1
    tables = [_table(items, skill, at) for skill in KEPT[kept]]
    both = _table(items, split, level)
    skills, asked = (
        np.stack([t[name] for t in tables], -1) for name in ("sum", "count")
    )
    return Counts(skills, asked, both["sum"].to_numpy(), both["count"].to_numpy())


def _table(items: pd.DataFrame, split: Split, level: int) -> pd.DataFrame:
    some = items[(items["split"] == str(split)) & (items["level"] == level)]
    return some.groupby("pair")["correct"].agg(["sum", "count"])


def verdicts(
    of: Samples, seeds: Sequence[int], lowest: Mapping[Arm, float], rules: Rules
) -> Iterator[dict[str, Any]]:
    """Judges every combination, at every level at which problems need both skills.

    P-values are adjusted over the methods tried at a level.

    Args:
      of: samples of one regime.
      seeds: whose base met its criteria.
      lowest: accuracy of an arm's experts on their own rows.
      rules: thresholds and intervals.
    """
    chosen = [
        x
        for x in of
        if x.arm is Arm.PAIR
        and x.split in (Split.BOTH, Split.ANSWER_BOTH)
        and x.metric is Metric.ACCURACY
        and x.at(arm=Arm.SHUFFLED) in of
    ]
    for key in dict.fromkeys((x.split, x.where) for x in chosen):
        some = [x for x in chosen if (x.split, x.where) == key]
        evidences = verdict.adjust(
            [_evidence(of, x, seeds, lowest, rules) for x in some]
        )
        for x, e in zip(some, evidences, strict=True):
            decided = verdict.decide(e, rules.thresholds)
            yield dict(x.where) | {
                "asked": str(x.split),
                "method": str(x.method),
                "label": str(decided.label),
                "cause": str(decided.cause),
                "reason": decided.reason,
                "remarks": list(decided.remarks),
                "p_adjusted": e.adjusted and e.adjusted.accuracy,
            }


def controls(x: Address) -> list[Address]:
    """The negative controls of a combination.

    Args:
      x: what it answers.
    """
    alone = [x.at(arm=arm, method=Method.NONE) for arm in ALONE]
    return alone + [x.at(arm=arm) for arm in SAME_METHOD]


def _evidence(of: Samples, x: Address, seeds, lowest, rules: Rules) -> Evidence:
    level = dict(x.where)["level"]
    direct = x.split is Split.ANSWER_BOTH
    skills = KEPT["answer only" if direct else "alone"]
    single = x.at(where=(("level", 1),))
    hops = {str(y): _pool(of, single.at(split=y), seeds, rules) for y in skills}
    known = Split.ANSWER_KNOWN if direct else Split.KNOWN
    hops[str(known)] = _pool(of, x.at(split=known), seeds, rules)
    chance = samples.of_seeds(of, x.at(metric=Metric.CHANCE), seeds)
    moved = {
        str(arm): _pool(of, x.at(arm=arm, metric=Metric.COUNTERFACTUAL), seeds, rules)
        for arm in MOVED
    }
    base = _pool(of, x.at(arm=Arm.BASE, method=Method.NONE), seeds, rules)
    value = _pool(of, x, seeds, rules)
    assert base is not None, x
    assert value is not None, x
    return Evidence(
        cell=None,
        arm=x.arm,
        method=x.method,
        base_ok=bool(seeds),
        expert_ok=lowest.get(Arm.PAIR, 0.0) >= rules.min_own,
        two_hop=value,
        base_two_hop=base,
        hops={name: y for name, y in hops.items() if y is not None},
        chance=float(np.mean(np.concatenate([y.values for y in chance]))),
        controls=differences(of, x, seeds, rules.how),
        target_saw_people=False,
        counterfactual={name: y for name, y in moved.items() if y is not None},
        joint=_pool(of, x.at(arm=Arm.JOINT, method=Method.NONE), seeds, rules),
        asked=f"{x.split}, level {level}",
        unseen="no expert saw a problem that needs both",
    )


def differences(of: Samples, x: Address, seeds: Sequence[int], how: Intervals):
    """Paired differences to the negative controls; None of those that did not run.

    Args:
      of: samples of one regime.
      x: what the combination answers.
      seeds: that are pooled.
      how: confidence and resamples.
    """
    given = (seeds, how.of_differences)
    return {
        f"{y.arm} [{y.method}]": samples.difference(of, x, y, *given)
        for y in controls(x)
    }


def _pool(of: Samples, x: Address, seeds, rules: Rules) -> Interval | None:
    values = samples.of_seeds(of, x, seeds)
    return samples.interval(x, values, rules.how) if values else None
