"""The leaderboard: one line for each method, over people of whom the base knows no hop.

Cells R-OO, H-OO and F-OO are pooled, item by item, and judged as if they were one, by
the same rules: each method against negative controls that are combined the same way,
with p-values after Holm over all methods of the study. With fifty methods one of them
would otherwise look like composition by luck. Methods are ranked only where one LoRA on
both fact sets has headroom: below that, their order says nothing.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxlora import merge, route
from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Metric, Split
from jaxlora.evaluate.statistics import Interval
from jaxlora.studies.harness import samples
from jaxlora.studies.harness.samples import Sample, Samples
from jaxlora.studies.two_hop import arms, judge
from jaxlora.studies.two_hop.judge import Rules
from jaxlora.studies.two_hop.rows import Block

POOLED = (Cell.R_OO, Cell.H_OO, Cell.F_OO)
"""Cells that are pooled, under the name of the first."""
REFERENCES = (
    ("base", Arm.BASE),
    ("A->B alone", Arm.HOP1),
    ("B->C alone", Arm.HOP2),
    ("A->C alone", Arm.TARGET),
    ("one LoRA on both", Arm.JOINT),
    ("one document", Arm.DOCUMENT),
)


class _Asked(NamedTuple):
    """Samples of one coverage, as they are and pooled, and how to judge them."""

    single: Samples
    pooled: Samples
    rules: Rules
    coverage: float

    def value(self, x: Address) -> dict[str, Any] | None:
        """The pooled cells' value, or that of a cell which is not one of them."""
        measured = self.pooled if x.cell == POOLED[0] else self.single
        return _value(measured, x, self.rules)

    def address(self, arm: Arm, method: Method) -> Address:
        """Where the pooled two-hop accuracy of a combination is."""
        block = Block(self.coverage, 0, arm, method)
        return block.address(POOLED[0], Split.TWO_HOP, metric=Metric.ACCURACY)

    def kept(self, x: Address) -> dict[str, Any]:
        """What a model keeps of each hop, and of familiar two-hop questions."""
        return {
            "hop1": self.value(x.at(split=Split.HOP1)),
            "hop2": self.value(x.at(split=Split.HOP2)),
            "familiar": self.value(x.at(split=Split.FAMILIAR_TWO_HOP)),
        }


def table(
    measured: Samples,
    rules: Rules,
    methods: Sequence[str],
    refused: Mapping[Block, str],
    coverage: float,
) -> list[dict[str, Any]]:
    """Returns a line for each method, then the references.

    The best is first where there is headroom; else the order is that of ``methods``.

    Args:
      measured: samples of one coverage.
      rules: what judging needs.
      methods: of the study.
      refused: why a method could not combine an arm's experts.
      coverage: of the bases.
    """
    rules = dataclasses.replace(rules, lowest=lowest(rules.lowest))
    asked = _Asked(measured, pooled(measured), rules, coverage)
    verdicts = {
        (v["library"], v["method"]): v for v in judge.verdicts(asked.pooled, rules)
    }
    lines, headroom = [], _headroom(asked)
    for method in map(Method, methods):
        reasons = {str(b.arm): x for b, x in refused.items() if b.method is method}
        more = {"unavailable": reasons, "headroom": headroom}
        lines.append(_line(asked, method, verdicts) | more)
    if headroom is not False:
        lines.sort(key=_order)
    return lines + _references(asked)


def _headroom(asked: _Asked) -> bool | None:
    """Whether the joint LoRA leaves room between methods; None if there is none."""
    joint = asked.address(Arm.JOINT, Method.NONE)
    by_cell = {
        x["cell"]: x["headroom"] for x in judge.headroom(asked.pooled, asked.rules)
    }
    return by_cell.get(str(joint.cell))


def lowest(
    of: Mapping[tuple[float | None, Cell, Arm], float], cells: Sequence[Cell] = POOLED
) -> dict[tuple[float | None, Cell, Arm], float]:
    """The lowest accuracy on own facts in any pooled cell, under the first one.

    Args:
      of: that accuracy by coverage, cell and arm.
      cells: that are pooled.
    """
    out = dict(of)
    for (coverage, cell, arm), value in of.items():
        if cell in cells:
            key = (coverage, cells[0], arm)
            out[key] = min(out.get(key, 1.0), value)
    return out


def pooled(measured: Samples, cells: Sequence[Cell] = POOLED) -> Samples:
    """The samples of the pooled cells as one cell, item after item.

    What lacks a cell, in any seed, is left out: what is pooled is comparable.

    Args:
      measured: samples of one coverage.
      cells: that are pooled, under the name of the first.
    """
    out: dict[Address, Mapping[int, Sample]] = {}
    for x, by_seed in measured.items():
        if x.cell != cells[0] or x.covered is not None or x.where:
            continue
        parts = [measured.get(x.at(cell=cell), {}) for cell in cells]
        seeds = [seed for seed in by_seed if all(seed in part for part in parts)]
        if seeds:
            out[x] = {seed: samples.joined([p[seed] for p in parts]) for seed in seeds}
    return out


def _line(
    asked: _Asked, method: Method, verdicts: Mapping[tuple[str, str], Mapping[str, Any]]
) -> dict[str, Any]:
    missing = {"label": "unavailable", "p_adjusted": None, "remarks": []}
    pair, three = (
        verdicts.get((str(arm), str(method)), missing) for arm in (Arm.PAIR, Arm.TRIPLE)
    )
    pooled_cells = asked.address(Arm.PAIR, method)
    known = pooled_cells.at(cell=Cell.R_OI)
    cells = {str(c): pooled_cells.at(cell=c) for c in POOLED}
    return {
        "method": str(method),
        "coverage": asked.coverage,
        **_kind(method),
        "two_hop": asked.value(pooled_cells),
        **_against(asked, pooled_cells),
        "known_second_hop": asked.value(known),
        **{c: _value(asked.single, x, asked.rules) for c, x in cells.items()},
        **asked.kept(pooled_cells),
        "three": asked.value(asked.address(Arm.TRIPLE, method)),
        "three_verdict": three["label"],
        "verdict": pair["label"],
        "remarks": pair["remarks"],
        "p_adjusted": pair["p_adjusted"],
    }


def _kind(method: Method) -> dict[str, str]:
    """What a method sees, and where it works."""
    if arms.routes(method):
        entry = route.describe(str(method))
        if entry.source == "control":
            return {"kind": "control", "data": "free", "space": "routed"}
        sees = "target" if entry.data == "labels" else entry.data
        return {"kind": "route", "data": sees, "space": "routed"}
    how = merge.preset(str(method))
    kind = "control" if merge.describe(str(method)).control else "merge"
    return {"kind": kind, "data": how.data, "space": how.space}


def _against(asked: _Asked, x: Address) -> dict[str, Any]:
    """The smallest paired difference to a negative control, and which one it is."""
    pairs = judge.differences(asked.pooled, x, asked.rules)
    there = {name: pair.difference for name, pair in pairs.items() if pair is not None}
    if not there:
        return {"difference": None, "against": ""}
    name = min(there, key=lambda name: there[name].value)
    return {"difference": _plain(there[name]), "against": name}


def _value(measured: Samples, x: Address, rules: Rules) -> dict[str, Any] | None:
    values = samples.of_seeds(measured, x, rules.seeds)
    return _plain(samples.interval(x, values, rules.intervals)) if values else None


def _plain(x: Interval) -> dict[str, Any]:
    ends = {"value": x.value, "lo": x.lo, "hi": x.hi}
    return {name: round(float(v), 6) for name, v in ends.items()} | {"n": x.n}


def _order(line: Mapping[str, Any]) -> tuple[float, ...]:
    """Best two-hop accuracy first, then best retrieval; what could not run is last."""
    return tuple(
        -line[name]["value"] if line[name] else 1.0 for name in ("two_hop", "three")
    )


def _references(asked: _Asked) -> list[dict[str, Any]]:
    """The base, experts and ceilings, and the negative controls under mean."""
    named = [(name, asked.address(arm, Method.NONE)) for name, arm in REFERENCES]
    named += [
        (f"{arm} (mean)", asked.address(arm, Method.MEAN)) for arm in judge.SAME_METHOD
    ]
    return [
        {"method": name, "kind": "reference", "coverage": asked.coverage}
        | {"two_hop": asked.value(x)}
        | asked.kept(x)
        for name, x in named
        if asked.value(x) is not None
    ]
