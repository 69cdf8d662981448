"""Readings drawn with their intervals: bars, dots, and what stands for no value."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from jaxlora.report.draw import FAINT, INK
from jaxlora.report.lines import Line
from jaxlora.report.readings import UNAVAILABLE, Reading

_BAR = {"ecolor": INK, "capsize": 2.0, "error_kw": {"elinewidth": 0.9, "capthick": 0.9}}


class Series(NamedTuple):
    """A line of readings and how it looks."""

    line: Line
    label: str
    color: str


def spread(readings: Sequence[Reading]) -> tuple[list[float], list[list[float]]]:
    """Returns values and error lengths [2, N] for matplotlib, NaN where none.

    Args:
      readings: of N bars or dots.
    """
    values = [math.nan if r.value is None else r.value for r in readings]
    below = [
        # Bounds of a mean over seeds may cross the value by rounding; lengths may not.
        math.nan if r.value is None or r.lo is None else max(0.0, r.value - r.lo)
        for r in readings
    ]
    above = [
        math.nan if r.value is None or r.hi is None else max(0.0, r.hi - r.value)
        for r in readings
    ]
    return values, [below, above]


def bars(
    axes: Axes,
    x: Sequence[float],
    readings: Sequence[Reading],
    width: float,
    series: Series,
) -> None:
    """Draws one series of bars with intervals; words stand where there is no value.

    Args:
      axes: what is drawn on.
      x: place of each bar.
      readings: value of each bar, and its interval.
      width: of a bar.
      series: label and colour.
    """
    values, errors = spread(readings)
    axes.bar(
        x,
        values,
        width,
        yerr=errors,
        color=series.color,
        edgecolor=series.color,
        linewidth=1.4,
        label=series.label,
        **_BAR,
    )
    for position, reading in zip(x, readings, strict=True):
        if not reading.measured:
            missing(axes, position, 0.02, reading, rotation=90)


def chance_lines(axes: Axes, chances: Sequence[tuple[float, float]]) -> None:
    """Draws a dashed line for each (place, chance), as wide as the bars there.

    Args:
      axes: what is drawn on.
      chances: (place, chance) of each cell.
    """
    if chances:
        places, values = zip(*chances, strict=True)
        left, right = [x - 0.46 for x in places], [x + 0.46 for x in places]
        axes.hlines(values, left, right, INK, "dashed", label="chance", linewidth=0.9)


def missing(
    axes: Axes, x: float, y: float, reading: Reading, rotation: int = 0
) -> None:
    """Writes why there is no value.

    Args:
      axes: what is drawn on.
      x: where the words stand.
      y: where the words stand.
      reading: without a value.
      rotation: in degrees; 90 is upright.
    """
    upright = rotation == 90
    axes.text(
        x,
        y,
        UNAVAILABLE if reading.status == UNAVAILABLE else "not measured",
        rotation=rotation,
        ha="center",
        va="bottom" if upright else "center",
        fontsize=7.5,
        style="italic",
        color=FAINT,
        # Words stay readable where they cross a line of the grid.
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )


def dots(
    axes: Axes, y: Sequence[float], readings: Sequence[Reading], color: str, label: str
) -> None:
    """Draws one series of dots with horizontal intervals.

    Args:
      axes: what is drawn on.
      y: place of each dot.
      readings: value of each dot, and its interval.
      color: of dots and lines.
      label: of the series, for the legend.
    """
    values, errors = spread(readings)
    axes.errorbar(
        values,
        y,
        xerr=errors,
        fmt="o",
        color=color,
        markersize=4.5,
        elinewidth=1.4,
        capsize=2.5,
        label=label,
    )
    for position, reading in zip(y, readings, strict=True):
        if not reading.measured:
            missing(axes, 0.5, position, reading)
