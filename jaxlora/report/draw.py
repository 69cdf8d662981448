"""What all figures share: colours, titles, panels, axes and legends.

Figures are plain ``Figure`` objects: nothing here touches pyplot or its global state.
Colours follow Okabe and Ito's palette, which survives colour blindness; greys are
negative controls throughout.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxlora.evaluate.schema import Arm, Cell, Method, Metric
from jaxlora.report.lines import Line
from jaxlora.report.readings import (
    Book,
    coverages,
    read,
)
from jaxlora.report.readings import cells as present_cells

BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
RED, ORANGE, YELLOW, PURPLE = "#D55E00", "#E69F00", "#F0E442", "#CC79A7"
GREYS = ("#C8C8C8", "#9A9A9A", "#6B6B6B")
INK, FAINT = "#222222", "#8A8A8A"
DPI = 150


class NothingToShowError(ValueError):
    """The rows hold no pooled value that a figure could show."""


def pair(method: Method) -> Line:
    """Returns the 2-combination under a method.

    Args:
      method: how the two experts are combined.
    """
    return Line(method.value, Arm.PAIR, method)


def has(book: Book, cells: Sequence[Cell], line: Line, metric: Metric) -> bool:
    """Returns whether a line has a value in any of the cells.

    Args:
      book: pooled values.
      cells: where to look.
      line: library, method and split.
      metric: what is measured.
    """
    return any(read(book, cell, line, metric).measured for cell in cells)


def shown(rows: pd.DataFrame, book: Book, wanted: Sequence[Cell]) -> list[Cell]:
    """Returns the wanted cells that are in the rows, if there is anything in them.

    Args:
      rows: as ``schema.COLUMNS``.
      book: pooled values of these rows.
      wanted: cells that the figure could show.
    """
    cells = [cell for cell in present_cells(rows) if cell in wanted]
    if not any(
        reading.measured and key[0] in cells and key[-1] == Metric.ACCURACY.value
        for key, reading in book.items()
    ):
        raise NothingToShowError(
            f"No pooled accuracy in the cells {', '.join(wanted)}: expected rows with "
            "seed 'all'. Did every seed fail its criteria?"
        )
    return cells


def at_coverage(rows: pd.DataFrame) -> str:
    """Returns which coverage is shown, for a title, if there is more than one.

    Args:
      rows: as ``schema.COLUMNS``.
    """
    shares = coverages(rows)
    return f", coverage {shares[-1]:g}" if len(shares) > 1 else ""


def canvas(width: float, height: float, title: str) -> Figure:
    """Returns an empty figure, in inches, with its title at the left.

    Args:
      width: in inches.
      height: in inches.
      title: of the whole figure.
    """
    # Not pyplot: it keeps every figure until somebody closes it.
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    return figure


def panels(figure: Figure, count: int, columns: int, **shared: Any) -> np.ndarray:
    """Returns axes [rows, columns] for ``count`` panels; those left over are hidden.

    Args:
      figure: an empty one.
      count: panels that will be drawn, 1 or more.
      columns: panels side by side, at most.
      **shared: ``sharex`` and ``sharey`` of ``Figure.subplots``.
    """
    columns = min(columns, count)
    axes = figure.subplots(-(-count // columns), columns, squeeze=False, **shared)
    for spare in axes.flat[count:]:
        spare.set_visible(False)
    return axes


def plain(axes: Axes, share: str) -> None:
    """Leaves only what carries information; ``share`` is the axis from 0 to 1.

    Args:
      axes: what is drawn on.
      share: the axis that goes from 0 to 1, x or y.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9.5, length=0)
    axes.grid(axis="y" if share == "y" else "x", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    # A little beyond 0 and 1, so that dots at the ends are whole.
    ticks, limits = [0, 0.25, 0.5, 0.75, 1], (-0.015, 1.03)
    names = ["0", "0.25", "0.5", "0.75", "1"]
    if share == "y":
        axes.set_yticks(ticks, names)
        axes.set_ylim(*limits)
    else:
        axes.set_xticks(ticks, names)
        axes.set_xlim(*limits)


def legend(
    figure: Figure, axes: Axes, columns: int, last: Sequence[str] = ("chance",)
) -> None:
    """Places one legend for the figure below its panels.

    Args:
      figure: where it is placed.
      axes: the panel whose labels it shows.
      columns: entries in a line.
      last: labels that come after all others, whatever was drawn first.
    """
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i] in last)
    handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9.5,
        handlelength=1.4,
        columnspacing=1.6,
    )
