"""From rows of the boundary study to readings: which regime, asked how, of which arm.

A *place* is a regime on one kind of base: what a row's condition says of it. Readings
are pooled over seeds; the empty cell stands for all people whose facts are new.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import pandas as pd

from jaxlora.evaluate.schema import Arm, Cell, Method, Metric, Split
from jaxlora.evaluate.verdict import Label
from jaxlora.report import readings
from jaxlora.report.readings import Reading
from jaxlora.report.regimes_lines import Shown
from jaxlora.studies.boundary import design, regimes

Key: TypeAlias = tuple["Place", str, str, str, str, str]
"""Place, cell, library, method, split, metric."""
Verdict: TypeAlias = Mapping[str, Any]
NEW = ""
"""The cell of rows that pool all cells of new facts."""
ASKS = {Split.TWO_HOP: "asked directly", Split.WRITTEN: "bridge written"}
ASKED = {Split.TWO_HOP: "direct", Split.WRITTEN: "written"}
"""The words of verdicts."""
METRICS = (Metric.ACCURACY.value, Metric.CHANCE.value)
PRACTISING, IDENTITY = "bridge rows", "identity rows"
WORDS = {
    "direct": "direct rows",
    "placed": "A->B low, B->C high",
    "documents": "B->C in documents",
    "mixture": "B->C in a mixture",
    IDENTITY: "B->C with identity rows",
}


class Place(NamedTuple):
    """A regime on one kind of base."""

    base: str
    coverage: float
    regime: str
    rho: float
    placement: str

    @property
    def words(self) -> str:
        """The regime, in words."""
        if self.regime.startswith(PRACTISING):
            return f"B->C practises (ρ {self.rho:g})"
        if self.regime == "layers":
            first, second = self.placement.split(" + ")
            return f"A->B in layers {first}, B->C in {second}"
        return WORDS.get(self.regime, self.regime)


@dataclasses.dataclass(frozen=True)
class Book:
    """Pooled readings and verdicts of all places."""

    values: Mapping[Key, Reading]
    verdicts: Mapping[tuple[Place, str, str, str], Verdict]
    """By place, cell, way of asking and method."""
    places: tuple[Place, ...]

    @property
    def main(self) -> str:
        """The base whose regimes are the study's answer."""
        bases = [x.base for x in self.places]
        return next((x for x in ("headline", "map", *bases) if x in bases), "headline")


def book(rows: pd.DataFrame, results: Mapping[str, Any]) -> Book:
    """Returns all that reports look up.

    Args:
      rows: as ``schema.COLUMNS``, of all points that were run so far.
      results: as in results.json.
    """
    values = dict(_values(readings.tidy(rows)))
    verdicts = {}
    for x in results.get("verdicts", []):
        cell = NEW if "," in x["cell"] else x["cell"]
        if x.get("library", Arm.PAIR) == Arm.PAIR and "method" in x:
            verdicts[_place(x), cell, x["asked"], x["method"]] = x
    return Book(values, verdicts, tuple(dict.fromkeys(key[0] for key in values)))


def _values(rows: pd.DataFrame) -> Iterator[tuple[Key, Reading]]:
    pooled = rows[(rows["seed"] == "all") & rows["metric"].isin(METRICS)]
    parsed = {text: json.loads(text or "{}") for text in pooled["condition"].unique()}
    for row in pooled.itertuples():
        condition = parsed[row.condition]
        # A difference names what it is against; a criterion belongs to no regime.
        if "regime" not in condition or "against" in condition:
            continue
        if row.cell or "cells" in condition:
            line = (str(row.library), str(row.method), str(row.split))
            key = (_place(condition), str(row.cell), *line, str(row.metric))
            yield key, readings.to_reading(row)


def _place(condition: Mapping[str, Any]) -> Place:
    """The place that a row's condition or a verdict names."""
    return Place(*(condition[name] for name in Place._fields))


def read(
    book: Book,
    place: Place,
    split: Split,
    use: tuple[Arm, Method],
    metric: Metric = Metric.ACCURACY,
    cell: str = NEW,
) -> Reading:
    """Returns one reading; absent where no row exists.

    Args:
      book: of a run.
      place: base and regime.
      split: how it is asked.
      use: the arm, and how its experts are combined.
      metric: what is measured.
      cell: whose people; by default all whose facts are new.
    """
    arm, method = map(str, use)
    key = (place, str(cell), arm, method, str(split), str(metric))
    return book.values.get(key, Reading())


def best(
    book: Book, place: Place, split: Split, uses: Sequence[tuple[Arm, Method]]
) -> tuple[Reading, tuple[Arm, Method] | None]:
    """Returns the highest accuracy of several arms, and whose it is.

    Args:
      book: of a run.
      place: base and regime.
      split: how it is asked.
      uses: the arms; those that were not measured are passed over.
    """
    known = [(read(book, place, split, use), use) for use in uses]
    known = [x for x in known if x[0].measured]
    absent: tuple[Reading, None] = (Reading(), None)
    return max(known, key=lambda x: x[0].value or 0.0, default=absent)


def value(book: Book, place: Place, split: Split, shown: Shown) -> Reading:
    """Returns what tables and figures show of an arm.

    Args:
      book: of a run.
      place: base and regime.
      split: how it is asked.
      shown: the arm.
    """
    arm = shown.arm
    if place.regime == IDENTITY and arm is Arm.PAIR:
        arm = Arm.IDENTITY  # the plain pair of this regime has no such rows
    return best(book, place, split, [(arm, x) for x in shown.methods])[0]


def single(book: Book, place: Place, split: Split) -> Reading:
    """Returns the accuracy of the better of the two experts alone.

    Args:
      book: of a run.
      place: base and regime.
      split: how it is asked.
    """
    uses = [(arm, Method.NONE) for arm in (Arm.HOP1, Arm.HOP2)]
    return best(book, place, split, uses)[0]


def chance(book: Book, place: Place, split: Split) -> Reading:
    """Returns the accuracy of the mean's answers when they are shuffled.

    Args:
      book: of a run.
      place: base and regime.
      split: how it is asked.
    """
    return read(book, place, split, (Arm.PAIR, Method.MEAN), Metric.CHANCE)


def label(book: Book, place: Place, split: Split, shown: Shown) -> str:
    """Returns the verdict on a combination, over new facts; empty where none is.

    Args:
      book: of a run.
      place: base and regime.
      split: how it is asked.
      shown: the arm; of several methods the first.
    """
    asked, method = ASKED[split], str(shown.methods[0])
    if (place, NEW, asked, method) in book.verdicts:
        return book.verdicts[place, NEW, asked, method]["label"]
    # Where no base is fit to be asked, each cell is judged invalid, under the mean.
    every = [book.verdicts.get((place, x, asked, Method.MEAN)) for x in design.NEW]
    words = {x["label"] for x in every if x}
    return Label.INVALID if words == {Label.INVALID} else ""


def find(book: Book, base: str, regime: str) -> Place | None:
    """Returns the place of a regime at the highest coverage where it was asked.

    Args:
      book: of a run.
      base: kind of base.
      regime: its name; *placed* is also looked for among all pairs of layers.
    """
    mine = [x for x in book.places if x.base == base]
    named = [x for x in mine if x.regime == regime]
    if regime == "placed" and not named:
        pairs = [x for x in mine if x.regime == "layers"]
        named = [x for x in pairs if x.placement == _placed(pairs)]
    return max(named, key=lambda x: x.coverage, default=None)


def _placed(pairs: Sequence[Place]) -> str:
    """The pair of ranges that is called placed; the last layer is in some pair."""
    text = " ".join(x.placement for x in pairs)
    words = text.replace("-", " ").replace(",", " ").split()
    count = 1 + max((int(x) for x in words if x.isdigit()), default=1)
    return regimes.placed(count).placement


def cells(book: Book, place: Place) -> list[Cell]:
    """Returns the cells that a place was asked in.

    Args:
      book: of a run.
      place: base and regime.
    """
    named = {key[1] for key in book.values if key[0] == place}
    return [x for x in Cell if x.value in named]
