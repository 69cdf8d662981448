"""All that reports of the word-problem study look up, in one object.

A *place* is a regime on one kind of base, as a row's condition names it. Readings are
pooled over seeds.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import pandas as pd

from jaxlora.evaluate.schema import STEP_ERRORS, Metric
from jaxlora.report import readings
from jaxlora.report.readings import Reading

Key: TypeAlias = tuple["Place", str, str, str, str, int]
"""Place, library, method, split, metric, level."""
Verdict: TypeAlias = Mapping[str, Any]
METRICS = (Metric.ACCURACY, Metric.CHANCE, Metric.STEPS_RIGHT, *STEP_ERRORS)
HEADLINE, AXES, COVERAGE, LEADERBOARD = "headline", "axes", "coverage", "leaderboard"
"""Kinds of bases."""
OVERLAP = "overlap"
"""The regime of the dial."""
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
            yield (
                (_place(condition), *line, condition["level"]),
                readings.to_reading(row),
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
