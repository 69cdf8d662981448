"""The league: one line for each method, over all people of whom the base knows no hop.

Cells R-OO, H-OO and F-OO are pooled, item by item, and judged as if they were one, by
the same rules: each method against negative controls that are combined the same way,
with p-values after Holm over all methods of the study. With fifty methods one of them
would otherwise look like composition by luck.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlora import merge, route
from jaxlora.evaluate.schema import Cell, Library, Method, Split
from jaxlora.evaluate.statistics import Interval
from jaxlora.studies.two_hop import judge, rows
from jaxlora.studies.two_hop.judge import Record
from jaxlora.studies.two_hop.rows import Block, Place, Samples

POOLED = (Cell.R_OO, Cell.H_OO, Cell.F_OO)
"""Cells that are pooled, under the name of the first."""
REFERENCES = (
    ("base", Library.BASE),
    ("A->B alone", Library.HOP1),
    ("B->C alone", Library.HOP2),
    ("A->C alone", Library.TARGET),
    ("one LoRA on both", Library.JOINT),
    ("one document", Library.DOCUMENT),
)


class _Seen(NamedTuple):
    """Samples of one coverage level, as they are and pooled, and how to judge them."""

    found: Samples
    together: Samples
    record: Record
    coverage: float

    def value(self, place: Place) -> dict[str, Any] | None:
        """The pooled cells' value, or that of a cell which is not one of them."""
        samples = self.together if place.cell == POOLED[0] else self.found
        return _value(samples, place, self.record)

    def place(self, library: Library, method: Method) -> Place:
        """Where the pooled two-hop accuracy of a combination is."""
        return judge.two_hop(self.coverage, POOLED[0], library, method)

    def kept(self, place: Place) -> dict[str, Any]:
        """What a model keeps of each hop, and of familiar two-hop questions."""
        splits = {
            "hop1": Split.HOP1,
            "hop2": Split.HOP2,
            "familiar": Split.FAMILIAR_TWO_HOP,
        }
        return {name: self.value(place._replace(split=s)) for name, s in splits.items()}


def table(
    found: Samples,
    record: Record,
    methods: Sequence[str],
    refused: Mapping[Block, str],
    coverage: float,
) -> list[dict[str, Any]]:
    """Returns a line for each method, best first, then the references.

    Args:
      found: samples of one coverage level.
      record: what judging needs.
      methods: of the study.
      refused: why a method could not combine a library.
      coverage: the level.
    """
    judging = dataclasses.replace(record, own=_own(record.own))
    seen = _Seen(found, pooled(found), judging, coverage)
    verdicts = {
        (v["library"], v["method"]): v for v in judge.verdicts(seen.together, judging)
    }
    lines = []
    for name in methods:
        method = Method(name)
        reasons = {
            str(block.library): reason
            for block, reason in refused.items()
            if block.method is method
        }
        lines.append(_line(seen, method, verdicts) | {"unavailable": reasons})
    return sorted(lines, key=_order) + _references(seen)


def _own(own: Mapping[tuple[float, Cell, Library], float]):
    """The lowest accuracy on own facts in any pooled cell, under the first one."""
    out = dict(own)
    for (level, cell, library), value in own.items():
        if cell in POOLED:
            key = (level, POOLED[0], library)
            out[key] = min(out.get(key, 1.0), value)
    return out


def pooled(found: Samples) -> Samples:
    """The samples of the pooled cells as one cell, item after item.

    Places that lack a cell, in any seed, are left out: what is pooled is comparable.
    """
    out: Samples = {}
    for place, by_seed in found.items():
        if place.cell != POOLED[0] or place.covered is not None or place.where:
            continue
        parts = [found.get(place._replace(cell=cell), {}) for cell in POOLED]
        seeds = [seed for seed in by_seed if all(seed in part for part in parts)]
        if seeds:
            out[place] = {
                seed: np.concatenate([part[seed] for part in parts]) for seed in seeds
            }
    return out


def _line(
    seen: _Seen, method: Method, verdicts: Mapping[tuple[str, str], Mapping[str, Any]]
) -> dict[str, Any]:
    missing = {"label": "unavailable", "p_adjusted": None}
    pair, three = (
        verdicts.get((str(library), str(method)), missing)
        for library in (Library.PAIR, Library.TRIPLE)
    )
    place = seen.place(Library.PAIR, method)
    known = place._replace(cell=Cell.R_OI)
    cells = {str(c): place._replace(cell=c) for c in POOLED}
    return {
        "method": str(method),
        "coverage": seen.coverage,
        **_kind(method),
        "two_hop": seen.value(place),
        **_against(seen, place),
        "known_second_hop": seen.value(known),
        **{c: _value(seen.found, x, seen.record) for c, x in cells.items()},
        **seen.kept(place),
        "three": seen.value(seen.place(Library.TRIPLE, method)),
        "three_verdict": three["label"],
        "verdict": pair["label"],
        "p_adjusted": pair["p_adjusted"],
    }


def _kind(method: Method) -> dict[str, str]:
    """What a method sees, and where it works."""
    if str(method) in route.names():
        entry = route.describe(str(method))
        if entry.source == "control":
            return {"kind": "control", "data": "free", "space": "routed"}
        sees = "target" if entry.data == "labels" else entry.data
        return {"kind": "route", "data": sees, "space": "routed"}
    how = merge.preset(str(method))
    kind = "control" if merge.describe(str(method)).control else "merge"
    return {"kind": kind, "data": how.data, "space": how.space}


def _against(seen: _Seen, x: Place) -> dict[str, Any]:
    """The smallest paired difference to a negative control, and which one it is."""
    level, draws = seen.record.thresholds.level, seen.record.resamples
    told = {
        f"{y.library} [{y.method}]": rows.difference(
            seen.together, x, y, seen.record.seeds, level, draws
        )
        for y in judge.controls(x)
    }
    there = {name: pair.difference for name, pair in told.items() if pair is not None}
    if not there:
        return {"difference": None, "against": ""}
    name = min(there, key=lambda name: there[name].value)
    return {"difference": _plain(there[name]), "against": name}


def _value(found: Samples, place: Place, record: Record) -> dict[str, Any] | None:
    by_seed = found.get(place, {})
    values = [by_seed[seed] for seed in record.seeds if seed in by_seed]
    if not values:
        return None
    level, draws = record.thresholds.level, record.resamples
    return _plain(rows.interval(place, values, level, draws))


def _plain(x: Interval) -> dict[str, Any]:
    ends = {"value": x.value, "lo": x.lo, "hi": x.hi}
    return {name: round(float(v), 6) for name, v in ends.items()} | {"n": x.n}


def _order(line: Mapping[str, Any]) -> tuple[float, ...]:
    """Best two-hop accuracy first, then best retrieval; what could not run is last."""
    return tuple(
        -line[name]["value"] if line[name] else 1.0 for name in ("two_hop", "three")
    )


def _references(seen: _Seen) -> list[dict[str, Any]]:
    """The base, experts and ceilings, and the negative controls under mean."""
    named = [(name, seen.place(library, Method.NONE)) for name, library in REFERENCES]
    named += [
        (f"{library} (mean)", seen.place(library, Method.MEAN))
        for library in judge.SAME_METHOD
    ]
    return [
        {"method": name, "kind": "reference", "coverage": seen.coverage}
        | {"two_hop": seen.value(place)}
        | seen.kept(place)
        for name, place in named
        if seen.value(place) is not None
    ]
