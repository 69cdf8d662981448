"""The finding of a run in numbers: all new facts and all combinations as one.

Cells of which the base knows no hop are pooled, item by item, and every combination is
judged on them by the same rules as on a single cell. ``report.finding`` has the words.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlora.evaluate import ends
from jaxlora.evaluate.schema import Address, Arm, Method, Metric
from jaxlora.evaluate.statistics import Interval
from jaxlora.studies.harness import samples
from jaxlora.studies.harness.samples import Intervals, Sample, Samples
from jaxlora.studies.two_hop import judge, leaderboard
from jaxlora.studies.two_hop.judge import Rules


def finding(measured: Samples, rules: Rules) -> dict[str, Any] | None:
    """What all combinations make of new facts, and what they give back.

    Args:
      measured: samples of one coverage.
      rules: what judging needs.

    Returns:
      None where nothing of the kind was asked.
    """
    pairs = [x for x in measured if _asked(x, Arm.PAIR)]
    cells = [c for c in leaderboard.POOLED if any(x.cell is c for x in pairs)]
    if not cells or not rules.seeds:
        return None
    together = leaderboard.pooled(measured, cells)
    rules = dataclasses.replace(rules, lowest=leaderboard.lowest(rules.lowest, cells))
    every = [x for x in together if _asked(x, Arm.PAIR)]
    labels = {
        (v["library"], v["method"]): v["label"] for v in judge.verdicts(together, rules)
    }
    return {
        "cells": [str(c) for c in cells],
        **_plain(average([together[x] for x in every], every[0], rules)),
        "chance": _chance(together, every, rules.seeds),
        "combinations": {
            str(x.method): _plain(_value(together, x, rules))
            | {"label": labels[str(Arm.PAIR), str(x.method)]}
            for x in every
        },
        "given_back": _given_back(together, labels, rules),
    }


def average(
    each: Sequence[Mapping[int, Sample]], address: Address, rules: Rules
) -> Interval:
    """The mean over combinations, with an interval over people.

    A person counts once, however many combinations they are asked of: the interval is
    at least Wilson's on as many items as there are people.

    Args:
      each: samples of every combination, of the same people.
      address: of one of them.
      rules: seeds and resamples.
    """
    seeds = [s for s in rules.seeds if all(s in by_seed for by_seed in each)]
    means = [
        Sample(np.mean([x[s].values for x in each], axis=0), each[0][s].libraries)
        for s in seeds
    ]
    how: Intervals = rules.intervals
    numbers = samples.interval(address, means, how)
    lo, hi = ends.wilson(numbers.value, numbers.n, how.confidence)
    return numbers._replace(
        lo=max(min(lo, numbers.lo), 0.0), hi=min(max(hi, numbers.hi), 1)
    )


def _asked(x: Address, arm: Arm) -> bool:
    return x.arm is arm and judge.two_hop_accuracy(x)


def _chance(together: Samples, every: Sequence[Address], seeds: Sequence[int]) -> float:
    chances = [
        sample.values
        for x in every
        for sample in samples.of_seeds(together, x.at(metric=Metric.CHANCE), seeds)
    ]
    return round(float(np.mean(np.concatenate(chances))), 6)


def _given_back(
    together: Samples, labels: Mapping[tuple[str, str], str], rules: Rules
) -> dict[str, Any] | None:
    """Under the mean, or the first method: what an A->C expert among three gives."""
    three = {x.method: x for x in together if _asked(x, Arm.TRIPLE)}
    x = three.get(Method.MEAN) or next(iter(three.values()), None)
    if x is None:
        return None
    label = labels[str(Arm.TRIPLE), str(x.method)]
    named = {"method": str(x.method), "label": label}
    return named | _plain(_value(together, x, rules))


def _value(together: Samples, x: Address, rules: Rules) -> Interval:
    return samples.interval(
        x, samples.of_seeds(together, x, rules.seeds), rules.intervals
    )


def _plain(x: Interval) -> dict[str, Any]:
    return {k: round(float(v), 6) for k, v in x._asdict().items()} | {"n": x.n}
