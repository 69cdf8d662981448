"""The summary of a study on text: other ways of scoring, and what was left out."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Split
from jaxlora.studies.harness import Results, Run
from jaxlora.studies.harness.samples import (
    Sample,
    add,
    joined,
    per_seed,
    unavailable,
)
from jaxlora.studies.two_hop import rows, summary
from jaxlora.studies.two_hop.protocol import Log, refused_rows
from jaxlora.studies.two_hop.rows import Block, pooled_guesses
from jaxlora.studies.two_hop.summary import Measured
from jaxlora.studies.two_hop.text.config import TextConfig

GENERATED = {"exact": "generation, exact", "contains": "generation, first name"}
RANK1 = "ranking among answers only"
Samples = dict[Address, dict[int, Sample]]


def finish(
    this: Run[TextConfig],
    log: Log,
    claims: Sequence[Prediction],
    cells: Sequence[Cell],
    left_out: Sequence[Mapping[str, str]],
) -> Results:
    """Pools, judges and checks everything that was asked.

    Args:
      this: the run.
      log: what it learned.
      claims: the predictions.
      cells: who was asked.
      left_out: what was not run, and why: ``{"what", "why"}``.
    """
    config, asked = this.config, log.all_items()
    measured = rows.samples(asked) | ranked_first(asked)
    measured |= generated(log.notes("generated"))
    confidence = config.thresholds.confidence
    log.rows += per_seed(measured, config.numbers, confidence)
    more = _unavailable(left_out, cells)
    more += [*pooled_guesses(log.base_rows), *refused_rows(log, cells)]
    least = config.criteria.min_own
    what = Measured(measured, more, {None: cells}, least)
    ended = summary.finish(this, log, claims, what)
    repeat = f"jaxlora study two-hop --model {config.model} --config results.json"
    ended.summary.update(left_out=list(left_out), repeat=repeat)
    return ended


def ranked_first(blocks: Mapping[Block, pd.DataFrame]) -> Samples:
    """Is the answer the best of the answers, whatever other names score?

    Args:
      blocks: the items of every block.
    """
    out: Samples = {}
    for block, items in blocks.items():
        two_hop = items[items["split"] == str(Split.TWO_HOP)]
        for cell, frame in two_hop.groupby("cell", sort=False):
            address = _scored(block, cell, Split.TWO_HOP, RANK1)
            add(out, address, block.seed, frame["rank"] == 1, frame["pair"])
    return out


def generated(notes: Mapping[Block, Sequence[Sequence[Mapping[str, Any]]]]) -> Samples:
    """Is the generated text the answer, and is its first name the answer?

    Args:
      notes: by block and part, a record for every split.
    """
    out: Samples = {}
    for block, by_part in notes.items():
        parts: dict[Address, list[Sample]] = {}
        for record in (x for records in by_part for x in records):
            for field, name in GENERATED.items():
                address = _scored(block, record["cell"], Split(record["split"]), name)
                right = np.asarray(record[field], float)
                part = Sample(right, np.zeros(len(right), int))
                parts.setdefault(address, []).append(part)
        for address, of_groups in parts.items():
            out.setdefault(address, {})[block.seed] = joined(of_groups)
    return out


def _scored(block: Block, cell: Any, split: Split, way: str) -> Address:
    return block.address(cell, split, where=(("scored", way),))


def _unavailable(
    left_out: Sequence[Mapping[str, str]], cells: Sequence[Cell]
) -> list[dict[str, Any]]:
    """A row for every arm that was left out, in every cell."""
    out = []
    for left in left_out:
        for arm in (x for x in Arm if str(x) == left["what"]):
            for cell, method in itertools.product(cells, (Method.NONE, Method.MEAN)):
                x = Block(None, 0, arm, method).address(cell, Split.TWO_HOP)
                out.append(unavailable("all", x, left["why"]))
    return out
