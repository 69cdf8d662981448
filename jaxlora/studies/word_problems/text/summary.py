"""From answers to rows, comparisons and criteria."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxlora.evaluate import schema
from jaxlora.evaluate.schema import (
    STEP_ERRORS,
    Address,
    Arm,
    Method,
    Metric,
    Split,
)
from jaxlora.studies.harness import Criterion, Outcome, Results, Run, results, samples
from jaxlora.studies.harness.config import plain
from jaxlora.studies.harness.criteria import bare
from jaxlora.studies.harness.samples import Intervals, Sample, Samples
from jaxlora.studies.two_hop import Block
from jaxlora.studies.word_problems.text.config import ProblemsConfig, title_of
from jaxlora.tasks import gsm

AGAINST = (
    Arm.BASE,
    Arm.FEW_SHOT,
    Arm.EXPERT_A,
    Arm.EXPERT_B,
    Arm.JOINT,
    Arm.HARD,
    Arm.RANDOM,
)
"""What a combination is compared with, on the same problems."""
CRITERIA = ((Arm.EXPERT_A, "easy"), (Arm.EXPERT_B, "medium"))
"""Experts, and the level on which they must be good."""


@dataclasses.dataclass
class Log:
    """What a run learns, in the order in which it comes."""

    outcomes: dict[Block, Outcome] = dataclasses.field(default_factory=dict)


def base_block(seed: int) -> Block:
    """Where the base's answers of a seed are stored; they belong to no regime.

    Args:
      seed: of the problems.
    """
    return Block(None, seed, Arm.BASE, Method.NONE)


def finish(
    this: Run[ProblemsConfig], log: Log, notes: Mapping[int, Sequence[str]]
) -> Results:
    """Pools, compares and judges.

    Args:
      this: the run.
      log: what it learned.
      notes: what was left out of the problems of each seed.
    """
    config, how = this.config, Intervals(this.config.confidence, this.config.resamples)
    titles = tuple(map(title_of, config.asked))
    asked = {x: outcome.items for x, outcome in log.outcomes.items()}
    of = measured(asked, titles)
    criteria = tuple(judged(of, config))
    comparisons = tuple(compared(of, config.numbers, how))
    rows = [
        *samples.per_seed(of, config.numbers, how.confidence),
        *samples.pooled(of, config.numbers, how),
        *spreads(asked, titles),
        *comparisons,
        *(row for seed, x, where in criteria for row in x.rows(seed, where)),
        *_refused(log),
    ]
    failed = [
        f"seed {seed}: {x.name}, {x.value:.2f} of at least {x.threshold:.2f}"
        for seed, x, _ in criteria
        if not x.passed
    ]
    command = f"jaxlora study word-problems --model {config.model}"
    summary = {
        "study": this.study.name,
        "config": plain(config),
        "criteria": [x.record(seed=seed) for seed, x, _ in criteria],
        "failed": failed,
        "left_out": [f"seed {n}: {x}" for n, some in notes.items() for x in some],
        "written": list(written(asked)),
        "repeat": f"{command} --config results.json",
    }
    return Results(results.table(this.study.name, rows), summary | this.origin, failed)


def measured(blocks: Mapping[Block, pd.DataFrame], titles: Sequence[str]) -> Samples:
    """The per-item values behind every row.

    Args:
      blocks: items of every system.
      titles: of the tests, by number.
    """
    out: dict[Address, dict[int, Sample]] = {}
    for block, items in blocks.items():
        for (test, level), frame in items.groupby(["test", "level"], sort=False):
            where = (("test", titles[int(test)]), ("level", str(level)))
            for metric, values, libraries in _measures(frame):
                at = block.address(None, Split.PROBLEMS, metric=metric, where=where)
                samples.add(out, at, block.seed, values, libraries)
    return out


def _measures(
    frame: pd.DataFrame,
) -> Iterator[tuple[Metric, np.ndarray, np.ndarray]]:
    """Yields (metric, per-item values, library of each item)."""
    names = ("correct", "steps", "error", "template")
    # Instances of one template are much alike; other problems share one library.
    correct, steps, error, library = (frame[name].to_numpy() for name in names)
    yield Metric.ACCURACY, correct, library
    # Steps can be read only where the right solution has some in the same format.
    readable = steps >= 0
    if not readable.any():
        return
    yield Metric.STEPS_RIGHT, steps[readable] == 1, library[readable]
    for number, metric in enumerate(STEP_ERRORS):
        yield metric, error[readable] == number, library[readable]


def spreads(
    blocks: Mapping[Block, pd.DataFrame], titles: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """How much accuracy varies over parallel test sets: a row a seed, and their mean.

    Args:
      blocks: items of every system.
      titles: of the tests, by number.
    """
    every: dict[Address, list[float]] = {}
    sizes: dict[Address, int] = {}
    for block, items in blocks.items():
        for (test, level), frame in items.groupby(["test", "level"], sort=False):
            if frame["instance"].min() < 0 or frame["instance"].nunique() < 2:
                continue
            spread = gsm.spread(
                frame["correct"].to_numpy(), frame["instance"].to_numpy()
            )
            where = (("test", titles[int(test)]), ("level", str(level)))
            metric = Metric.SPREAD
            at = block.address(None, Split.PROBLEMS, metric=metric, where=where)
            every.setdefault(at, []).append(spread.deviation)
            sizes[at] = len(spread.sets)
            yield schema.row(block.seed, at, bare(spread.deviation, sizes[at]))
    for at, values in every.items():
        yield schema.row("all", at, bare(np.mean(values), sizes[at]))


def compared(
    of: Samples, seeds: Sequence[int], how: Intervals
) -> Iterator[dict[str, Any]]:
    """Paired differences of every combination to what it is compared with.

    Args:
      of: samples of all systems.
      seeds: that are pooled.
      how: confidence and resamples.
    """
    pairs = [x for x in of if x.arm is Arm.PAIR and x.metric is Metric.ACCURACY]
    for x in pairs:
        for arm in AGAINST:
            method = x.method if arm is Arm.RANDOM else Method.NONE
            y = x.at(arm=arm, method=method)
            y = y.at(regime=()) if arm is Arm.BASE else y
            paired = samples.difference(of, x, y, seeds, how.of_differences)
            if paired is not None:
                yield samples.difference_row(x, y, paired.difference)


def judged(
    of: Samples, config: ProblemsConfig
) -> Iterator[tuple[int, Criterion, Address]]:
    """Is every expert good at its own level, in every format and test that has it?

    Args:
      of: samples of all systems.
      config: has the threshold.
    """
    for address, by_seed in of.items():
        where, regime = dict(address.where), dict(address.regime)
        if (
            address.metric is not Metric.ACCURACY
            or regime.get("experts differ in") != "levels"
            or (address.arm, where["level"]) not in CRITERIA
        ):
            continue
        what = f"{where['level']} expert, {regime['format']}, on {where['test']}"
        at = address.at(where=(*address.where, ("criterion", "own level")))
        for seed, sample in by_seed.items():
            value, n = float(np.mean(sample.values)), len(sample.values)
            yield seed, Criterion(what, value, n, config.min_own), at


def written(blocks: Mapping[Block, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    """Which formats every system wrote, and how often it came to an end.

    Args:
      blocks: items of every system.
    """
    for block, items in blocks.items():
        if len(items):
            yield dict(block.regime) | {
                "seed": block.seed,
                "system": str(block.arm),
                "method": str(block.method),
                "formats": dict(Counter(items["form"])),
                "ended": float(items["ended"].mean()),
            }


def _refused(log: Log) -> Iterator[dict[str, Any]]:
    for block, outcome in log.outcomes.items():
        if reason := outcome.notes.get("unavailable"):
            at = functools.partial(block.address, None, Split.PROBLEMS)
            yield samples.unavailable(block.seed, at(), reason)
