"""Tables of word problems on a text model: what each system solves, and beyond whom."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from jaxlora.evaluate.schema import Arm, Method, Metric
from jaxlora.report import readings
from jaxlora.report.grid import Grid

_TITLES: Mapping[str, Mapping[str, str]] = {
    "levels": {
        Arm.EXPERT_A: "easy expert",
        Arm.EXPERT_B: "medium expert",
        Arm.JOINT: "joint, easy + medium",
        Arm.HARD: "hard expert",
    },
    "formats": {
        Arm.EXPERT_A: "expert of the first",
        Arm.EXPERT_B: "expert of the second",
        Arm.JOINT: "joint, both formats",
    },
}
_NOTE = (
    "Pooled over seeds with intervals; – was not measured. Experts of formats learned "
    "easy and medium problems. The hard expert is the reference that combinations of "
    "an easy and a medium expert are held against."
)
_SHOWN = ("hard", "all")
"""Levels of the table of differences."""


def solved_grid(rows: pd.DataFrame) -> Grid:
    """Returns the accuracy of every system: systems down, tests and levels across.

    Args:
      rows: as ``schema.COLUMNS``.
    """
    values = _pooled(rows, Metric.ACCURACY)
    columns = dict.fromkeys(zip(values["test"], values["level"], strict=True))
    body: list[tuple[str, ...]] = []
    for regime, frame in values.groupby("regime", sort=False):
        body.append((str(regime),))
        for (arm, method), some in frame.groupby(["library", "method"], sort=False):
            keys = zip(some["test"], some["level"], strict=True)
            by_column = dict(zip(keys, _short(some), strict=True))
            title = _title(some["axis"].iloc[0], arm, method)
            body.append((title, *(by_column.get(x, "–") for x in columns)))
    header = ("", *(f"{test} {level}" for test, level in columns))
    return Grid("Word problems solved", header, tuple(body), _NOTE, True)


def difference_grid(rows: pd.DataFrame) -> Grid:
    """Returns what combinations solve beyond others, of hard problems and of files.

    Args:
      rows: as ``schema.COLUMNS``.
    """
    values = _pooled(rows, Metric.DIFFERENCE)
    values = values[values["level"].isin(_SHOWN)]
    methods = dict.fromkeys(values["method"])
    body: list[tuple[str, ...]] = []
    keys = ["regime", "test", "level"]
    for (regime, test, level), frame in values.groupby(keys, sort=False):
        body.append((f"{regime}, {test} {level}",))
        for side, some in frame.groupby("against", sort=False):
            by_method = dict(zip(some["method"], _signed(some), strict=True))
            body.append((f"minus {side}", *(by_method.get(x, "–") for x in methods)))
    note = "Paired differences of accuracy, over the same problems."
    header = ("", *map(str, methods))
    return Grid("Combinations minus others", header, tuple(body), note, True)


def _pooled(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Pooled rows of a metric, with the parts of their condition as columns."""
    frame = readings.tidy(rows)
    frame = frame[(frame["seed"] == "all") & (frame["metric"] == metric.value)]
    conditions = [json.loads(text) for text in frame["condition"]]
    keep = ["criterion" not in x for x in conditions]
    frame, conditions = frame[keep], [x for x in conditions if "criterion" not in x]
    return frame.assign(
        test=[x.get("test", "") for x in conditions],
        level=[x.get("level", "") for x in conditions],
        axis=[x.get("experts differ in", "") for x in conditions],
        regime=[_regime(x) for x in conditions],
        against=[_side(x) for x in conditions],
    )


def _regime(condition: Mapping[str, Any]) -> str:
    axis = condition.get("experts differ in")
    return f"{axis}: {condition['format']}" if axis else "base"


def _side(condition: Mapping[str, Any]) -> str:
    """The other side of a difference, as the first table calls it."""
    arm = condition.get("against", "").partition(" [")[0]
    return _title(condition.get("experts differ in", ""), arm, Method.NONE)


def _title(axis: str, arm: str, method: str) -> str:
    title = _TITLES.get(axis, {}).get(arm, arm)
    return title if method == Method.NONE else f"{title}, {method}"


def _short(frame: pd.DataFrame) -> Sequence[str]:
    return [readings.to_reading(row).short() for row in frame.itertuples()]


def _signed(frame: pd.DataFrame) -> Iterator[str]:
    for row in frame.itertuples():
        ends: Any = (row.value, row.lo, row.hi)
        value, lo, hi = (f"{x:+.2f}" for x in ends)
        yield f"{value} [{lo}, {hi}]"
