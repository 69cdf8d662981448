"""From the items of the two-hop study to per-item samples, by what is measured."""

import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxlora.evaluate import schema
from jaxlora.evaluate.schema import (
    ERROR_METRICS,
    Address,
    Arm,
    Cell,
    Method,
    Metric,
    Split,
)
from jaxlora.studies.harness.criteria import bare
from jaxlora.studies.harness.samples import Sample, add
from jaxlora.tasks.two_hop.experts import Group


class Block(NamedTuple):
    """One arm on one base: the unit that is stored, resumed and skipped."""

    coverage: float | None
    """Share of familiar facts seen in a composition; None if nobody measured it."""
    seed: int
    arm: Arm
    method: Method
    regime: tuple[tuple[str, Any], ...] = ()
    """What base and experts were trained on, where a study varies it."""

    def address(self, cell: Cell | str | None, split: Split, **more: Any) -> Address:
        """Where a measurement of this block belongs; by default an accuracy.

        Args:
          cell: whose people.
          split: what they were asked.
          more: other fields of the address.
        """
        fields: dict[str, Any] = {"metric": Metric.ACCURACY} | more
        return Address(
            cell=None if cell is None else Cell(cell),
            arm=self.arm,
            method=self.method,
            split=split,
            coverage=self.coverage,
            regime=self.regime,
            **fields,
        )

    def path(self, folder: Path) -> Path:
        """The file of the block below a folder."""
        name = f"{self.arm}-{self.method}".replace(" ", "-").replace(">", "")
        name = f"seed{self.seed}-{name.replace(',', '').replace('+', 'and')}.json"
        if self.regime:
            return folder / "blocks" / self._folder / name
        if self.coverage is None:
            return folder / "blocks" / name
        text = f"{self.coverage:.2f}"
        # Coverages that agree in two decimals must not share a file.
        text = text if float(text) == self.coverage else repr(self.coverage)
        return folder / "blocks" / f"c{text}-{name}"

    @property
    def _folder(self) -> str:
        """Of a regime: a name that sorts, and differs where anything does."""
        values = (self.coverage, *(value for _, value in self.regime))
        return re.sub(r"[^\w.]+", "-", "_".join(map(str, values)))


def base_block(coverage: float | None, seed: int) -> Block:
    """The base of a seed, asked alone."""
    return Block(coverage, seed, Arm.BASE, Method.NONE)


def samples(
    blocks: Mapping[Block, pd.DataFrame],
) -> dict[Address, dict[int, Sample]]:
    """Returns the per-item values behind every row.

    Args:
      blocks: the items of every block, in the order (pair, person).
    """
    out: dict[Address, dict[int, Sample]] = {}
    for block, items in blocks.items():
        for (cell, split), frame in items.groupby(["cell", "split"], sort=False):
            for metric, covered, values in _measures(Split(split), frame):
                more = {"metric": metric, "covered": covered}
                address = block.address(cell, Split(split), **more)
                # A relation pair has experts, and so a library, of its own.
                libraries = frame["pair"]
                if len(values) < len(frame):  # of a subset of the items
                    libraries = libraries.loc[values.index]
                add(out, address, block.seed, values, libraries)
    return out


def _measures(
    split: Split, frame: pd.DataFrame
) -> Iterator[tuple[Metric, bool | None, pd.Series]]:
    """Yields (metric, covered subset or None, per-item values)."""
    yield Metric.ACCURACY, None, frame["correct"]
    if split not in (Split.TWO_HOP, Split.WRITTEN, Split.CONTEXT):
        return
    yield Metric.CHANCE, None, frame["chance"]
    for metric, column in (
        (Metric.RANK, "rank"),
        (Metric.LOSS, "loss"),
        (Metric.LOSS_GAP, "gap"),
        (Metric.COUNTERFACTUAL, "counterfactual"),
    ):
        if split is Split.TWO_HOP or frame[column].notna().all():
            yield metric, None, frame[column]
    if split is not Split.TWO_HOP:
        return
    for code, metric in enumerate(ERROR_METRICS, start=1):
        yield metric, None, frame["error"] == code
    both = frame["covered"].nunique() == 2
    for covered, part in frame.groupby("covered") if both else ():
        yield Metric.ACCURACY, bool(covered), part["correct"]


def guess_rows(block: Block, people: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """Rows of what guessing would give in each cell: 1/N, and the commonest answer.

    Args:
      block: of the base.
      people: all groups of study people.
    """
    for cell in dict.fromkeys(group.cell for group in people):
        groups = [group for group in people if group.cell == cell]
        n = sum(group.size for group in groups)
        answers = [[r.answer for r in group.two_hop] for group in groups]
        one_of = np.mean([1 / len(set(a)) for a in answers])
        most = np.mean([max(a.count(x) for x in a) / len(a) for a in answers])
        for metric, value in ((Metric.ONE_OF_N, one_of), (Metric.MAJORITY, most)):
            address = block.address(cell, Split.TWO_HOP, metric=metric)
            yield schema.row(block.seed, address, bare(value, n))


def pooled_guesses(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What guessing gives in each cell, over all seeds.

    Args:
      rows: of single seeds, those of guesses among them.
    """
    guesses = [x for x in rows if x["metric"] in (Metric.ONE_OF_N, Metric.MAJORITY)]
    keys = operator.itemgetter("familiarity", "knows", "metric", "condition")
    for key in dict.fromkeys(map(keys, guesses)):
        seeds = [row for row in guesses if keys(row) == key]
        value = round(float(np.mean([row["value"] for row in seeds])), 6)
        n = sum(row["n"] for row in seeds)
        yield seeds[0] | {"seed": "all", "value": value, "n": n}
