"""From results of the word-problem study to readings: which regime, which arm, asked what.

A *place* is a regime on one kind of base, as a row's condition names it. Readings are
pooled over seeds.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import pandas as pd

from jaxlora.evaluate.schema import STEP_ERRORS, Arm, Method, Metric, Split
from jaxlora.report import readings
from jaxlora.report.readings import Reading
from jaxlora.report.word_problems_lines import ALONE, Shown

Key: TypeAlias = tuple["Place", str, str, str, str, int]
"""Place, library, method, split, metric, level."""
Verdict: TypeAlias = Mapping[str, Any]
METRICS = (Metric.ACCURACY, Metric.CHANCE, Metric.STEPS_RIGHT, *STEP_ERRORS)
HEADLINE, AXES, COVERAGE, LEADERBOARD = "headline", "axes", "coverage", "leaderboard"
"""Kinds of bases."""
OVERLAP = "overlap"
"""The regime of the dial."""
LEVEL = 2
"""Operations of a problem that needs two skills and nothing else."""
_CONDITION = (
    *("base", "known unary", "regime", "overlap"),
    *("first rows", "second rows", "asked in"),
)


class Place(NamedTuple):
    """A regime on one kind of base."""

    base: str
    known: int
    """Unary operations that the base knows."""
    regime: str
    overlap: float
    first: str
    """Rows of the first expert, in words."""
    second: str
    asked: str
    """Template in which problems are asked."""


class LawKey(NamedTuple):
    """What a law is of."""

    place: Place
    library: str
    method: str
    split: str
    level: int
    kept: str
    """Where kept skills are measured: alone, in chains, or in answers."""


class Law(NamedTuple):
    """A composite beside the product of kept skills."""

    product: Reading
    composite: Reading
    ratio: Reading
    difference: Reading


@dataclasses.dataclass(frozen=True)
class Book:
    """Pooled readings, laws and verdicts of all places."""

    values: Mapping[Key, Reading]
    laws: Mapping[LawKey, Law]
    verdicts: Mapping[tuple[Place, str, int, str], Verdict]
    """By place, split, level and method."""
    places: tuple[Place, ...]
    leaderboard: tuple[Mapping[str, Any], ...] = ()
    refused: tuple[Mapping[str, Any], ...] = ()

    @property
    def main(self) -> str:
        """The kind of base whose dial is the study's answer."""
        bases = [x.base for x in self.places if x.regime == OVERLAP]
        return next((x for x in (HEADLINE, *bases) if x in bases), HEADLINE)


def book(rows: pd.DataFrame, results: Mapping[str, Any]) -> Book:
    """Returns all that reports look up.

    Args:
      rows: as ``schema.COLUMNS``.
      results: as in results.json.
    """
    values = dict(_values(readings.tidy(rows)))
    return Book(
        values,
        {_law_key(x): _law(x) for x in results.get("laws", [])},
        {
            (_place(x), x["asked"], x["level"], x["method"]): x
            for x in results.get("verdicts", [])
        },
        tuple(dict.fromkeys(key[0] for key in values)),
        tuple(results.get("leaderboard", [])),
        tuple(results.get("refused", [])),
    )


def _values(rows: pd.DataFrame) -> Iterator[tuple[Key, Reading]]:
    pooled = rows[(rows["seed"] == "all") & rows["metric"].isin(METRICS)]
    parsed = {text: json.loads(text or "{}") for text in pooled["condition"].unique()}
    for row in pooled.itertuples():
        condition = parsed[row.condition]
        # Criteria belong to no regime; laws are read from results.json.
        if "regime" in condition and "level" in condition:
            line = (str(row.library), str(row.method), str(row.split), str(row.metric))
            yield (_place(condition), *line, condition["level"]), readings.to_reading(
                row
            )


def _place(condition: Mapping[str, Any]) -> Place:
    """The place that a row's condition, a law or a verdict names."""
    return Place(*(condition[name] for name in _CONDITION))


def _law_key(x: Mapping[str, Any]) -> LawKey:
    words = (x["library"], x["method"], x["split"])
    return LawKey(_place(x), *words, x["level"], x["kept"])


def _law(x: Mapping[str, Any]) -> Law:
    return Law(*(of_record(x[name]) for name in Law._fields))


def of_record(x: Mapping[str, Any] | None) -> Reading:
    """Returns a reading of an interval as results.json holds it.

    Args:
      x: value, lo, hi and n; None where nothing was measured.

    >>> of_record({"value": 0.5, "lo": 0.4, "hi": 0.6, "n": 9}).text()
    '0.50 [0.40, 0.60]'
    """
    if x is None or x["value"] is None:
        return Reading()
    return Reading(x["value"], x["lo"], x["hi"], x["n"], readings.MEASURED)


def read(
    book: Book,
    place: Place,
    use: tuple[Arm, Method],
    split: Split = Split.BOTH,
    level: int = LEVEL,
    metric: Metric = Metric.ACCURACY,
) -> Reading:
    """Returns one reading; absent where no row exists.

    Args:
      book: of a run.
      place: base and regime.
      use: the arm, and how its experts are combined.
      split: what is asked.
      level: operations of a problem.
      metric: what is measured.
    """
    arm, method = map(str, use)
    key = (place, arm, method, str(split), str(metric), level)
    return book.values.get(key, Reading())


def single(
    book: Book, place: Place, split: Split = Split.BOTH, level: int = LEVEL
) -> Reading:
    """Returns the accuracy of the better of the two experts alone.

    Args:
      book: of a run.
      place: base and regime.
      split: what is asked.
      level: operations of a problem.
    """
    known = [read(book, place, use, split, level) for use in ALONE]
    known = [x for x in known if x.measured]
    return max(known, key=lambda x: x.value or 0.0, default=Reading())


def chance(
    book: Book, place: Place, split: Split = Split.BOTH, level: int = LEVEL
) -> Reading:
    """Returns the accuracy of shuffled answers: of the first combination that has any.

    Args:
      book: of a run.
      place: base and regime.
      split: what is asked.
      level: operations of a problem.
    """
    uses = [(Arm.PAIR, x) for x in methods(book, place)]
    known = (
        read(book, place, use, split, level, Metric.CHANCE)
        for use in (*uses, (Arm.BASE, Method.NONE))
    )
    return next((x for x in known if x.measured), Reading())


def methods(book: Book, place: Place) -> list[Method]:
    """Returns the methods by which a place combined two experts, in a fixed order.

    Args:
      book: of a run.
      place: base and regime.
    """
    names = {key[2] for key in book.values if key[:2] == (place, str(Arm.PAIR))}
    return [x for x in Method if str(x) in names]


def law(
    book: Book, place: Place, shown: Shown, level: int = LEVEL, kept: str = "alone"
) -> Law:
    """Returns the law of a combination; of absent readings where there is none.

    Args:
      book: of a run.
      place: base and regime.
      shown: the arm, with its method.
      level: operations of a problem.
      kept: where kept skills are measured.
    """
    split = Split.ANSWER_BOTH if kept == "answer only" else Split.BOTH
    words = (str(shown.arm), str(shown.method), str(split))
    absent = Law(*(Reading() for _ in Law._fields))
    return book.laws.get(LawKey(place, *words, level, kept), absent)


def label(book: Book, place: Place, method: Method, level: int = LEVEL) -> str:
    """Returns the verdict on a combination that writes steps; empty where none is.

    Args:
      book: of a run.
      place: base and regime.
      method: that combines the experts.
      level: operations of a problem.
    """
    key = (place, str(Split.BOTH), level, str(method))
    return book.verdicts[key]["label"] if key in book.verdicts else ""


def dial(book: Book, base: str = "") -> list[Place]:
    """Returns the places of the dial, from no overlap to full overlap.

    Args:
      book: of a run.
      base: kind of base; by default the main one.
    """
    kind = base or book.main
    some = [x for x in book.places if (x.base, x.regime) == (kind, OVERLAP)]
    return sorted(some, key=lambda x: x.overlap)


def levels(book: Book, place: Place, split: Split = Split.BOTH) -> Sequence[int]:
    """Returns the numbers of operations at which something was asked.

    Args:
      book: of a run.
      place: base and regime.
      split: what is asked.
    """
    key = (place, str(split))
    return sorted({x[5] for x in book.values if (x[0], x[3]) == key})
