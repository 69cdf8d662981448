"""What the study on text learns beside its items: gates, texts, knowledge and roles."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxlora.evaluate.schema import Cell, Library, Method, Metric, Split
from jaxlora.studies.two_hop import record, rows
from jaxlora.studies.two_hop.blocks import Outcome
from jaxlora.studies.two_hop.record import Log
from jaxlora.studies.two_hop.rows import Block, Place, Samples
from jaxlora.studies.two_hop_text.config import GatesConfig, TextConfig
from jaxlora.tasks.two_hop.experts import Group

LEVEL = 1.0
"""Stands for the coverage of a pretraining that nobody measured; rows do not say it."""
CONTEXT, KNOWN, OWN = "facts in context", "two-hop over known facts", "own facts"
GENERATED = {"exact": "generation, exact", "contains": "generation, first name"}
RANK1 = "ranking among answers only"


@dataclasses.dataclass
class TextLog(Log):
    """The log of a study, with what was generated."""

    generated: dict[Block, list[dict[str, Any]]] = dataclasses.field(
        default_factory=dict
    )
    left_out: list[dict[str, str]] = dataclasses.field(default_factory=list)
    cells: list[Cell] = dataclasses.field(default_factory=list)


def note_base(
    config: TextConfig,
    seed: int,
    people: Sequence[Group],
    items: pd.DataFrame,
    log: Log,
) -> bool:
    """Logs the gates of the base on one seed's people; returns whether it passed."""
    told: dict[str, tuple[Split, float, int, bool]] = {}
    for name, (split, found, least) in _base_gates(config.gates, items).items():
        if found.size:
            value = float(found.mean())
            told[name] = (split, value, found.size, value >= least)
            log.gates.append(_gate(seed, name, told[name], least))
    log.gate_rows += rows.gate_rows(LEVEL, seed, told)
    log.gate_rows += record.guess_rows(LEVEL, seed, people)
    passed = all(ok for *_, ok in told.values())
    if passed:
        log.passed.setdefault(LEVEL, []).append(seed)
    else:
        log.failed.append(str(seed))
    return passed


def _base_gates(gates: GatesConfig, items: pd.DataFrame):
    """The correct items of each gate: of reading, and of composing what is known."""
    context = items["split"] == str(Split.CONTEXT)
    known = (items["split"] == str(Split.TWO_HOP)) & (items["cell"] == str(Cell.R_II))
    right = items["correct"].to_numpy(float)
    return {
        CONTEXT: (Split.CONTEXT, right[context], gates.min_context),
        KNOWN: (Split.FAMILIAR_TWO_HOP, right[known], gates.min_two_hop),
    }


def note_block(log: TextLog, block: Block, outcomes: Sequence[Outcome]) -> None:
    """Logs what one library under one method did in all groups."""
    log.items[block] = pd.concat([x.items for x in outcomes], ignore_index=True)
    for outcome in outcomes:
        record.note_block(log, block, outcome)
        texts: Any = outcome.notes.get("generated", [])
        log.generated.setdefault(block, []).extend(texts)


def note_experts(config: TextConfig, seed: int, n: int, log: TextLog) -> None:
    """Logs the gate of the experts: the lowest accuracy on own facts."""
    value = log.own_of_seed.get((LEVEL, seed))
    if value is None:
        return
    least = config.gates.min_own
    told = (Split.OWN, value, n, value >= least)
    log.gate_rows += rows.gate_rows(LEVEL, seed, {OWN: told})
    log.gates.append(_gate(seed, "experts' own facts", told, least))


def samples(log: TextLog) -> Samples:
    """Per-item values of all measurements, each way of scoring under its own name."""
    found = rows.samples(log.items)
    return found | ranked_first(log.items) | generated(log.generated)


def ranked_first(blocks: Mapping[Block, pd.DataFrame]) -> Samples:
    """Is the answer the best of the answers, whatever other names score?"""
    out: Samples = {}
    for block, items in blocks.items():
        asked = items[items["split"] == str(Split.TWO_HOP)]
        for cell, frame in asked.groupby("cell", sort=False):
            values = (frame["rank"] == 1).to_numpy(float)
            place = _place(block, cell, Split.TWO_HOP, RANK1)
            out.setdefault(place, {})[block.seed] = values
    return out


def generated(notes: Mapping[Block, Sequence[Mapping[str, Any]]]) -> Samples:
    """Is the generated text the answer, and is its first name the answer?"""
    parts: dict[tuple[Place, int], list[Any]] = {}
    for block, found in notes.items():
        for told in found:
            for field, name in GENERATED.items():
                place = _place(block, told["cell"], Split(told["split"]), name)
                parts.setdefault((place, block.seed), []).extend(told[field])
    out: Samples = {}
    for (place, seed), values in parts.items():
        out.setdefault(place, {})[seed] = np.array(values, float)
    return out


def _place(block: Block, cell: Any, split: Split, scored: str) -> Place:
    return Place(
        LEVEL,
        Cell(cell),
        block.library,
        block.method,
        split,
        Metric.ACCURACY,
        where=(("scored", scored),),
    )


def _gate(seed: int, name: str, told: tuple, least: float) -> dict[str, Any]:
    _, value, n, passed = told
    return {
        "seed": seed,
        "gate": name,
        "value": value,
        "n": n,
        "threshold": least,
        "passed": passed,
        "required": True,
    }


def unavailable(log: TextLog) -> list[dict[str, Any]]:
    """A row for every library that was left out, in every cell."""
    libraries = {str(library): library for library in Library}
    return [
        rows.unavailable(
            "all",
            Place(
                LEVEL,
                cell,
                libraries[left["what"]],
                method,
                Split.TWO_HOP,
                Metric.ACCURACY,
            ),
            left["why"],
        )
        for left in log.left_out
        if left["what"] in libraries
        for cell in log.cells
        for method in (Method.NONE, Method.MEAN)
    ]
