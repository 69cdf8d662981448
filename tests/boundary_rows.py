"""Rows and results of a boundary study that never ran, for tests of its report.

Points, regimes and arms are those of the real design; the numbers are a smooth function
of what is asked, with intervals of Wilson.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Metric, Split, row
from jaxlora.evaluate.statistics import Interval, wilson
from jaxlora.studies.boundary import design
from jaxlora.studies.boundary.config import BoundaryConfig
from jaxlora.studies.boundary.design import NEW, Point
from jaxlora.studies.boundary.regimes import Regime
from jaxlora.studies.harness import results
from jaxlora.studies.harness.config import plain

ITEMS = 126
ASKS = {Split.TWO_HOP: "direct", Split.WRITTEN: "written"}
PAIRS = (Arm.PAIR, Arm.IDENTITY)
METHODS = list(Method)


def truth(point: Point, regime: Regime, split: Split, use: tuple[Arm, Method]) -> float:
    """The accuracy that is made up for an arm."""
    arm, method = use
    written, rho = split is Split.WRITTEN, regime.second.rho
    covered = 0.4 + 0.6 * point.world.coverage
    share = (0.08 + 0.8 * rho**0.5) * covered if written else 0.06 + 0.05 * rho
    if regime.placed and not written and regime.placement.endswith("2-3"):
        share = 0.1
        if arm is Arm.PAIR and method is Method.SUM:
            share = 0.3 if regime.first_layers == (0,) else 0.15
    if arm is Arm.JOINT:
        return min(0.98, max(0.0, share * 1.1 + 0.03 - 0.15 * (rho == 0.1)))
    if arm is Arm.TARGET:
        return 0.95
    if arm in PAIRS:
        return max(0.0, share - 0.01 * (METHODS.index(method) % 7))
    return 0.09 if arm is Arm.HOP2 else 0.02


def rows(config: BoundaryConfig) -> pd.DataFrame:
    """Pooled rows of all points: new facts together, and every cell."""
    return results.table("boundary", _rows(config))


def _rows(config: BoundaryConfig) -> Iterator[dict[str, Any]]:
    for point in design.points(config):
        for regime in point.regimes:
            for use in ((Arm.BASE, Method.NONE), *point.plan(regime)):
                yield from _arm(point, regime, use)


def _arm(point: Point, regime: Regime, use: tuple[Arm, Method]) -> Iterator[dict]:
    for split in ASKS:
        share = truth(point, regime, split, use)
        for cell in (None, *point.cells):
            n = ITEMS if cell is None else ITEMS // 3
            value = wilson(round(share * n), n, 0.95)
            for metric in (Metric.ACCURACY, Metric.CHANCE):
                chance = Interval(0.03, 0.01, 0.05, n)
                where = (("cells", ", ".join(NEW)),) if cell is None else ()
                address = Address(
                    cell=cell,
                    arm=use[0],
                    method=use[1],
                    split=split,
                    metric=metric,
                    coverage=point.world.coverage,
                    regime=point.condition + regime.condition,
                    where=where,
                )
                yield row(
                    "all", address, value if metric is Metric.ACCURACY else chance
                )


def summary(config: BoundaryConfig) -> dict[str, Any]:
    """What results.json holds, with a verdict on each combination."""
    return {
        "study": "boundary",
        "config": plain(config),
        "failed_seeds": [],
        "criteria": list(_criteria(config)),
        "predictions": {
            "digest": "0" * 12,
            "revision": "fedcba98",
            "outcomes": [
                {"statement": f"claim {x}", "outcome": x, "held": None, "got": "–"}
                for x in ("held", "held", "failed", "undecided", "not measured")
            ],
        },
        "verdicts": list(_verdicts(config)),
        "versions": {"jaxlora": "0"},
        "device": "CPU, 2 cores",
        "git_revision": "0123abcd",
        "timings": {"total_s": 9.0, "pretrain_s": 6.0},
    }


def _criteria(config: BoundaryConfig) -> Iterator[dict[str, Any]]:
    for point in design.points(config):
        for seed in point.seeds:
            for name, value in (("one-hop recall", 0.995), ("written bridge", 0.89)):
                yield {
                    "base": point.name,
                    "coverage": point.world.coverage,
                    "seed": seed,
                    "steps": 2000,
                    "criterion": name,
                    "value": value,
                    "n": 100,
                    "threshold": 0.9,
                    "passed": value >= 0.9,
                    "required": name != "written bridge",
                }


def _verdicts(config: BoundaryConfig) -> Iterator[dict[str, Any]]:
    for point in design.points(config):
        for regime in point.regimes:
            for split, asked in ASKS.items():
                for method in point.methods:
                    yield from _judged(point, regime, (split, asked), method)


def _judged(point, regime, ask, method) -> Iterator[dict[str, Any]]:
    split, asked = ask
    share = truth(point, regime, split, (Arm.PAIR, method))
    label = "composes" if share > 0.28 else "undecided"
    for cell in (*point.cells, None):
        yield dict(point.condition + regime.condition) | {
            "asked": asked,
            "coverage": point.world.coverage,
            "cell": ", ".join(NEW) if cell is None else str(Cell(cell)),
            "library": str(Arm.PAIR),
            "method": str(method),
            "label": label,
            "cause": "none",
            "reason": f"two-hop {share:.2f} <because> of a made-up number",
            "remarks": [] if share > 0.28 else ["no headroom: joint has 0.10"],
        }
