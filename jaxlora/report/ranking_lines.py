"""What a ranking says of each method: readings of rows, and what is known beside them.

Rows are those of the boundary study's point *leaderboard*, over all cells of new facts.
Rows do not say what a method costs, how many rows it learned from, or how it differs
from the mean over the same people: who measured that hands it over as :class:`Beside`.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from jaxlora import merge, route
from jaxlora.evaluate import statistics
from jaxlora.evaluate.schema import Arm, Method, Metric, Split
from jaxlora.evaluate.statistics import Interval, Paired
from jaxlora.evaluate.verdict import Thresholds, has_headroom
from jaxlora.report.leaderboard_lines import SEES
from jaxlora.report.readings import MEASURED, Reading, tidy, to_reading

BASE = "leaderboard"
"""The point of the study at which all methods are asked."""
CONTROL, BOUND, REFERENCE = "control", "bound", "reference"
ALONE = (
    ("base", Arm.BASE),
    ("A->B alone", Arm.HOP1),
    ("B->C alone", Arm.HOP2),
    ("one LoRA on both", Arm.JOINT),
)
"""What methods are compared with; none of them combines anything."""
_KEY = ("library", "method", "split", "metric")
_Book: TypeAlias = Mapping[tuple[str, ...], Reading]


class Place(NamedTuple):
    """A regime and its way of asking."""

    regime: str
    """As the rows name it."""
    split: Split
    title: str


class Cost(NamedTuple):
    """What using a method takes."""

    seconds: float
    """To make one merge or gate, what it must see or learn included."""
    forward: float
    """Seconds of a forward, in those of one adapter's."""
    bytes: int
    """Kept for inference: the merged adapter, or the library and its gate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside:
    """What is known of methods beside rows; anything may be missing."""

    costs: Mapping[str, Cost] = dataclasses.field(default_factory=dict)
    """By method."""
    learned: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """Fewest and most target rows that a method learned from."""
    paired: Mapping[tuple[str, str], Paired] = dataclasses.field(default_factory=dict)
    """By (regime, method): the difference to the mean, with a two-sided p-value."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One method, or what methods are compared with, at one place."""

    method: str
    kind: str
    """``merge``, ``route``, ``control``, ``bound`` or ``reference``."""
    sees: str = ""
    """What it needs, in words; empty for a reference."""
    composed: Reading = Reading()  # noqa: RUF009 (frozen)
    random: Reading = Reading()  # noqa: RUF009 (frozen)
    """The same of random experts under the same method."""
    hop1: Reading = Reading()  # noqa: RUF009 (frozen)
    hop2: Reading = Reading()  # noqa: RUF009 (frozen)
    familiar: Reading = Reading()  # noqa: RUF009 (frozen)
    above: Reading = Reading()  # noqa: RUF009 (frozen)
    """The paired difference to the mean."""
    p: float | None = None
    """Of that difference, two-sided, after Holm over all merges and routes."""
    learned: tuple[int, int] | None = None
    cost: Cost | None = None

    @property
    def ranks(self) -> bool:
        """Is it a merge or a route, and not a control, bound or reference?"""
        return self.kind in ("merge", "route")


class Ranking(NamedTuple):
    """All lines of one place."""

    place: Place
    lines: tuple[Line, ...]
    """Methods, the best first where there is headroom; then references."""
    headroom: bool | None
    """Does one LoRA on both fact sets pass its criterion? None if nobody asked."""
    chance: Reading

    @property
    def joint(self) -> Reading:
        """One LoRA on both fact sets."""
        name = ALONE[-1][0]
        joint = (line.composed for line in self.lines if line.method == name)
        return next(joint, Reading())


def ranking(
    rows: pd.DataFrame,
    place: Place,
    beside: Beside = Beside(),
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> Ranking:
    """Reads the lines of one place.

    Args:
      rows: of a boundary study, as ``schema.COLUMNS``.
      place: the regime and its way of asking.
      beside: what rows do not say.
      thresholds: what the joint LoRA must reach.

    Raises:
      ValueError: if no merge or route was asked at this place.
    """
    book = _book(rows, place)
    asked = {method for arm, method, *_ in book if arm == Arm.PAIR}
    methods = [m for m in Method if m in asked]
    lines = [_line(book, place, method, beside) for method in methods]
    if not any(line.ranks and line.composed.measured for line in lines):
        raise ValueError(
            f"The rows hold no merge or route at base {BASE!r}, regime "
            f"{place.regime!r}, asked {place.split.value!r}: was the study run with "
            f"ranked methods, and did its bases meet their criteria?"
        )
    rest = [_alone(book, place, name, arm) for name, arm in ALONE]
    joint = rest[-1].composed
    headroom = has_headroom(_interval(joint), thresholds) if joint.measured else None
    if headroom is not False:
        lines.sort(key=lambda x: -(x.composed.value or 0.0))
    lines.sort(key=lambda line: line.kind == BOUND)  # after all methods
    chance = (_key(place, Arm.PAIR, m, Metric.CHANCE) for m in methods)
    first = next((book[key] for key in chance if key in book), Reading())
    return Ranking(place, (*adjusted(lines), *rest), headroom, first)


def adjusted(lines: Sequence[Line]) -> list[Line]:
    """The lines with p-values after Holm over all merges and routes.

    Args:
      lines: with p-values of single tests, or none.
    """
    tests = [i for i, line in enumerate(lines) if line.ranks and line.p is not None]
    p = dict.fromkeys(range(len(lines)))
    if tests:
        values = statistics.holm(np.array([lines[i].p for i in tests], float))
        p |= dict(zip(tests, map(float, values), strict=True))
    return [dataclasses.replace(line, p=p[i]) for i, line in enumerate(lines)]


def kind(method: str) -> tuple[str, str]:
    """What a method is, and what it needs, in words.

    Args:
      method: name of a merge or a route.

    >>> kind("ties"), kind("phatgoose"), kind("random-mean")[0]
    (('merge', 'nothing'), ('route', 'own data'), 'control')
    """
    if method not in route.names():
        control = merge.describe(method).control
        return (CONTROL if control else "merge"), SEES[merge.preset(method).data]
    entry = route.describe(method)
    if entry.data == "labels":
        return BOUND, "answers of other people"
    return (CONTROL if entry.source == CONTROL else "route"), SEES[entry.data]


def _line(book: _Book, place: Place, method: Method, beside: Beside) -> Line:
    name, of = str(method), (book, place, Arm.PAIR, method)
    what, sees = kind(name)
    pair = beside.paired.get((place.regime, name)) if method != Method.MEAN else None
    return Line(
        method=name,
        kind=what,
        sees=sees,
        composed=_read(*of),
        random=_read(book, place, Arm.RANDOM, method),
        **_kept(*of),
        above=Reading() if pair is None else Reading(*pair.difference, MEASURED),
        p=None if pair is None else pair.p,
        learned=beside.learned.get(name),
        cost=beside.costs.get(name),
    )


def _alone(book: _Book, place: Place, name: str, arm: Arm) -> Line:
    of = (book, place, arm, Method.NONE)
    return Line(method=name, kind=REFERENCE, composed=_read(*of), **_kept(*of))


def _kept(book: _Book, place: Place, arm: Arm, method: Method) -> dict[str, Any]:
    splits = {
        "hop1": Split.HOP1,
        "hop2": Split.HOP2,
        "familiar": Split.FAMILIAR_TWO_HOP,
    }
    return {
        name: _read(book, place._replace(split=split), arm, method)
        for name, split in splits.items()
    }


def _read(book: _Book, place: Place, arm: Arm, method: Method) -> Reading:
    return book.get(_key(place, arm, method, Metric.ACCURACY), Reading())


def _key(place: Place, arm: Arm, method: Method, metric: Metric) -> tuple[str, ...]:
    return (str(arm), str(method), str(place.split), str(metric))


def _book(rows: pd.DataFrame, place: Place) -> _Book:
    """Values over all seeds and all cells of new facts, in one regime."""
    frame = tidy(rows)
    # Few texts are repeated in thousands of rows: each is parsed once.
    wanted = {
        text for text in frame["condition"].unique() if _matches(text, place.regime)
    }
    mine = frame[(frame["seed"] == "all") & frame["condition"].isin(wanted)]
    return {
        tuple(str(getattr(row, name)) for name in _KEY): to_reading(row)
        for row in mine.itertuples()
    }


def _matches(condition: str, regime: str) -> bool:
    entries = json.loads(condition or "{}")
    here = (entries.get("base"), entries.get("regime")) == (BASE, regime)
    return here and "cells" in entries and "against" not in entries


def _interval(x: Reading) -> Interval:
    assert x.value is not None
    lo, hi = (x.value if end is None else end for end in (x.lo, x.hi))
    return Interval(x.value, lo, hi, x.n)
