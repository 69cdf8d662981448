"""The protocol of the two-hop study, whoever answers: criteria, then block by block.

A base that meets its criteria is asked through every arm. Symbols are answered for all
people at once; text for one group after the other: these are the *parts* of a base.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from jaxlora.evaluate.schema import Arm, Cell, Method, Metric, Split
from jaxlora.studies import harness
from jaxlora.studies.harness import Criterion, Outcome, Run
from jaxlora.studies.harness.samples import unavailable
from jaxlora.studies.two_hop import items
from jaxlora.studies.two_hop.items import OldAnswers
from jaxlora.studies.two_hop.judge import at_coverage
from jaxlora.studies.two_hop.rows import Block, base_block

OWN_FACTS = "experts' own facts"
Count = Callable[[int, int], None]
"""``count(done, all)``, called by an arm that takes long."""


class Part(NamedTuple):
    """People of one base who are asked together, each block in one file."""

    name: str
    """For the progress."""
    folder: Path
    answer: Callable[[Arm, Method, OldAnswers | None, Count], Outcome]
    """Asks one arm; what the base answers is None when the base itself is asked."""


@dataclasses.dataclass
class Log:
    """What a run learns, in the order in which it comes."""

    outcomes: dict[Block, list[Outcome]] = dataclasses.field(default_factory=dict)
    """Of every block, by part."""
    criteria: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Records for results.json."""
    base_rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Criteria of bases and experts, and what is known before anything is asked."""
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Of single seeds."""
    passed: dict[float | None, list[int]] = dataclasses.field(default_factory=dict)
    """Seeds whose base met its criteria, by coverage."""
    failed: list[str] = dataclasses.field(default_factory=list)
    """The others, in words."""

    def items(self, block: Block) -> pd.DataFrame:
        """The items of a block, part after part."""
        return pd.concat([x.items for x in self.outcomes[block]], ignore_index=True)

    def all_items(self) -> dict[Block, pd.DataFrame]:
        """The items of every block."""
        return {block: self.items(block) for block in self.outcomes}

    def notes(self, name: str) -> dict[Block, list[Any]]:
        """What the blocks that have it noted under a name, by part."""
        return {
            block: values
            for block, outcomes in self.outcomes.items()
            if (values := [x.notes[name] for x in outcomes if name in x.notes])
        }

    def refused(self) -> dict[Block, str]:
        """Why a method could not combine an arm's experts."""
        return {block: str(x[0]) for block, x in self.notes("unavailable").items()}


def ask(this: Run, log: Log, parts: Iterable[Part], blocks: Sequence[Block]) -> None:
    """Asks blocks of one base, those that are not stored, and logs their outcomes.

    Args:
      this: the run.
      log: grows by an outcome for every block and part.
      parts: of the people.
      blocks: in order; that of the base is first, or was asked before.
    """
    for p, part in enumerate(parts):
        for i, block in enumerate(blocks):
            text = f"{part.name}: {block.arm}, {block.method}"
            this.progress("questions", i, len(blocks), text)
            count = functools.partial(_count, this.progress, i, len(blocks), text)
            make = functools.partial(_answer, log, part, p, block, count)
            path = block.path(part.folder)
            outcome = harness.ask(this, path, items.COLUMNS, make)
            log.outcomes.setdefault(block, []).append(outcome)


def _count(progress: harness.Progress, i: int, n: int, text: str, done: int, of: int):
    progress("questions", i, n, f"{text}: {done:,} of {of:,} routes")


def _answer(log: Log, part: Part, p: int, block: Block, count: Count) -> Outcome:
    old = None
    if block.arm is not Arm.BASE:
        base = log.outcomes[base_block(block.coverage, block.seed)][p]
        old = items.old_answers(base.items)
    return part.answer(block.arm, block.method, old, count)


def note_criteria(
    log: Log, block: Block, criteria: Mapping[Split, Criterion], **more: Any
) -> None:
    """Logs criteria of one base or its experts: as records, and as rows.

    Args:
      log: grows.
      block: of the base.
      criteria: by what was asked for them.
      more: entries of each record.
    """
    where = at_coverage(block.coverage) | {"seed": block.seed}
    for split, criterion in criteria.items():
        log.criteria.append(criterion.record(**where) | more)
        log.base_rows += criterion.rows(block.seed, block.address(None, split))


def note_experts(log: Log, block: Block, least: float, n: int, **more: Any) -> None:
    """Logs the criterion of the experts: the lowest accuracy on own facts.

    Args:
      log: with all blocks of the base; grows.
      block: of the base.
      least: the threshold.
      n: number of people.
      more: entries of the record.
    """
    where = (block.coverage, block.seed)
    values = [
        value
        for x, by_part in log.notes("own").items()
        for by_cell in by_part
        for value in by_cell.values()
        if (x.coverage, x.seed) == where
    ]
    if values:
        criterion = Criterion(OWN_FACTS, min(values), n, least)
        note_criteria(log, block, {Split.OWN: criterion}, **more)


def lowest_own(log: Log) -> dict[tuple[float | None, Cell, Arm], float]:
    """The lowest accuracy of any expert of an arm on its own facts, by cell."""
    out: dict[tuple[float | None, Cell, Arm], float] = {}
    for block, by_part in log.notes("own").items():
        for cell, value in (x for by_cell in by_part for x in by_cell.items()):
            where = (block.coverage, Cell(cell), block.arm)
            out[where] = min(out.get(where, 1.0), value)
    return out


def refused_rows(log: Log, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Rows of what a method could not combine: by seed, and pooled.

    Args:
      log: of the run.
      cells: each has a row.
    """
    reasons = {
        (block.address(cell, Split.TWO_HOP, metric=Metric.ACCURACY), seed): reason
        for block, reason in log.refused().items()
        for cell in cells
        for seed in (block.seed, "all")
    }
    return [unavailable(seed, x, reason) for (x, seed), reason in reasons.items()]
