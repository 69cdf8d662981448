"""What a study learns as it runs, beside the items themselves."""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from jaxlora.evaluate.schema import Cell, Library, Method, Metric, Split, row
from jaxlora.studies import provenance
from jaxlora.studies.two_hop import bases, rows
from jaxlora.studies.two_hop.bases import Base
from jaxlora.studies.two_hop.blocks import Outcome
from jaxlora.studies.two_hop.config import TwoHopConfig
from jaxlora.studies.two_hop.rows import STUDY, Block
from jaxlora.tasks.two_hop.experts import Group, groups

GATE_SPLITS = {
    "one-hop recall": Split.FAMILIAR_ONE_HOP,
    "held-out two-hop": Split.FAMILIAR_TWO_HOP,
    "copy": Split.COPY,
    "written bridge": Split.FAMILIAR_WRITTEN,
    "bridge is read": Split.FAMILIAR_MISLED,
    "one document": Split.FAMILIAR_DOCUMENT,
    "facts in context": Split.RANDOM_CONTEXT,
}


@dataclasses.dataclass
class Clock:
    """Seconds spent in each stage, compilation apart."""

    compiled: provenance.Seconds
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Adds the time of a block of code to a stage."""
        start, compiled = time.monotonic(), self.compiled.seconds
        try:
            yield
        finally:
            spent = time.monotonic() - start - (self.compiled.seconds - compiled)
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent


@dataclasses.dataclass
class Log:
    """Gates, notes and per-seed rows, in the order in which they came."""

    origin: dict[str, Any]
    """Versions, device and revisions."""
    items: dict[Block, pd.DataFrame] = dataclasses.field(default_factory=dict)
    gates: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    gate_rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    own: dict[tuple[float, Cell, Library], float] = dataclasses.field(
        default_factory=dict
    )
    """Lowest accuracy of any expert of a library on its own facts."""
    own_of_seed: dict[tuple[float, int], float] = dataclasses.field(
        default_factory=dict
    )
    """The same over all libraries of one base."""
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)
    routes: dict[Block, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    passed: dict[float, list[int]] = dataclasses.field(default_factory=dict)
    failed: list[str] = dataclasses.field(default_factory=list)
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    refused: dict[Block, str] = dataclasses.field(default_factory=dict)
    """Why a method could not combine a library."""
    resumed: int = 0


def note_gates(config: TwoHopConfig, level: float, base: Base, log: Log) -> None:
    """Logs what the gates of a base said, with its steps, phi and guessing rates."""
    rules = bases.GATES | bases.FORMAT_GATES
    told = {}
    for name, (value, n) in base.gates.items():
        least = getattr(config.pretrain, rules[name][2])
        told[name] = (GATE_SPLITS[name], value, n, value >= least)
        log.gates.append(
            {
                "coverage": level,
                "seed": base.seed,
                "gate": name,
                "value": value,
                "n": n,
                "threshold": least,
                "passed": value >= least,
                "steps": base.steps,
                "required": name in bases.GATES,
            }
        )
    log.gate_rows += rows.gate_rows(level, base.seed, told)
    log.gate_rows += _world_rows(level, base)


def _world_rows(level: float, base: Base) -> list[dict[str, Any]]:
    """Steps and phi of a base, and what guessing would give in each cell."""
    split = Split.FAMILIAR_TWO_HOP
    steps = _base_row(level, base.seed, None, split, Metric.STEPS, base.steps, 1)
    phi = _base_row(level, base.seed, None, split, Metric.PHI, base.world.phi, 1)
    return [steps, phi, *guess_rows(level, base.seed, groups(base.world))]


def guess_rows(
    level: float, seed: int, people: Sequence[Group]
) -> list[dict[str, Any]]:
    """Rows of what guessing would give in each cell: 1/N, and the commonest answer."""
    out = []
    by_cell: dict[Cell, list[Group]] = {}
    for group in people:
        by_cell.setdefault(group.cell, []).append(group)
    for cell, some in by_cell.items():
        n = sum(group.size for group in some)
        answers = [[r.answer for r in group.two_hop] for group in some]
        one_of = np.mean([1 / len(set(a)) for a in answers])
        most = np.mean([max(a.count(x) for x in a) / len(a) for a in answers])
        for metric, value in ((Metric.ONE_OF_N, one_of), (Metric.MAJORITY, most)):
            out.append(_base_row(level, seed, cell, Split.TWO_HOP, metric, value, n))
    return out


def _base_row(level, seed, cell, split, metric, value, n) -> dict[str, Any]:
    return row(
        study=STUDY,
        seed=seed,
        cell=cell,
        library=Library.BASE,
        method=Method.NONE,
        split=split,
        metric=metric,
        value=round(float(value), 6),
        n=n,
        condition={"coverage": level},
    )


def note_experts(config: TwoHopConfig, level: float, base: Base, log: Log) -> None:
    """Logs the gate of the experts of a base: the lowest accuracy on own facts."""
    value = log.own_of_seed[level, base.seed]
    n = sum(group.size for group in groups(base.world))
    least = config.experts.min_own
    told = {"own facts": (Split.OWN, value, n, value >= least)}
    log.gate_rows += rows.gate_rows(level, base.seed, told)
    log.gates.append(
        {
            "coverage": level,
            "seed": base.seed,
            "gate": "experts' own facts",
            "value": value,
            "n": n,
            "threshold": least,
            "passed": value >= least,
            "steps": config.experts.steps,
            "required": True,
        }
    )


def note_block(log: Log, block: Block, outcome: Outcome) -> None:
    """Logs what a block found beside its items."""
    own = outcome.notes.get("own", {})
    assert isinstance(own, dict)
    for cell, value in own.items():
        place = (block.coverage, Cell(cell), block.library)
        log.own[place] = min(log.own.get(place, 1.0), value)
        seed = (block.coverage, block.seed)
        log.own_of_seed[seed] = min(log.own_of_seed.get(seed, 1.0), value)
    if "oracle" in outcome.notes:
        name = f"coverage {block.coverage:g}, seed {block.seed}, {block.library}"
        log.notes[name] = outcome.notes["oracle"]
    if "unavailable" in outcome.notes:
        log.refused[block] = str(outcome.notes["unavailable"])
    if "routes" in outcome.notes:
        routes = outcome.notes["routes"]
        assert isinstance(routes, list)
        log.routes[block] = routes


def add_rows(config: TwoHopConfig, block: Block, outcome: Outcome, log: Log) -> None:
    """Logs the rows of a block."""
    found = rows.samples({block: outcome.items})
    found |= rows.route_samples({block: log.routes.get(block, [])})
    log.rows += rows.per_seed(found, [block.seed], config.thresholds.level)


def refused(
    reasons: Mapping[Block, str], cells: Sequence[Cell]
) -> list[dict[str, Any]]:
    """Rows of the libraries that a method could not combine: by seed, and pooled."""
    told: dict[tuple[rows.Place, int | str], str] = {}
    for block, reason in reasons.items():
        for cell in cells:
            place = rows.Place(
                block.coverage,
                cell,
                block.library,
                block.method,
                Split.TWO_HOP,
                Metric.ACCURACY,
            )
            for seed in (block.seed, "all"):
                told[place, seed] = reason
    return [rows.unavailable(seed, place, why) for (place, seed), why in told.items()]
