"""Figures of a study: rows in, matplotlib figures out.

``library`` and ``familiarity`` are the two panels of the paper's figure (arXiv
2506.13479) in our numbers: libraries and single experts by what the base knows, and by
how familiar the entities are. ``errors``, ``controls`` and ``coverage`` show what the
paper's panels leave open: what is said instead, against which controls, and where the
boundary lies.
"""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlora.evaluate.schema import ERROR_METRICS, Cell, Library, Method, Metric
from jaxlora.report import draw, readings
from jaxlora.report.draw import Mark
from jaxlora.report.readings import Book, Line

KNOWN = {
    Cell.R_II: "II\nbase knows\nboth hops",
    Cell.R_OI: "OI\nbase knows\nonly hop 2",
    Cell.R_IO: "IO\nbase knows\nonly hop 1",
    Cell.R_OO: "OO\nbase knows\nneither hop",
}
FAMILIAR = {
    Cell.R_OO: "R\nA, B and C\nfamiliar",
    Cell.H_OO: "H\nA and B new,\nC familiar",
    Cell.F_OO: "F\nA, B and C\nnew",
}
MARKS = (
    Mark(Line("", Library.BASE), "base", draw.GREYS[0]),
    Mark(Line("", Library.HOP1), "A→B alone", draw.GREYS[1]),
    Mark(Line("", Library.HOP2), "B→C alone", draw.GREYS[2]),
    Mark(Line("", Library.PAIR, Method.MEAN), "2-combination, mean", draw.BLUE),
    Mark(Line("", Library.PAIR, Method.ARROW), "2-combination, Arrow", draw.SKY),
    Mark(Line("", Library.TRIPLE, Method.MEAN), "3-combination, mean", draw.RED),
    Mark(
        Line("", Library.TRIPLE_OTHERS, Method.MEAN),
        "3-combination, A→C of others",
        draw.ORANGE,
    ),
    Mark(Line("", Library.JOINT), "one LoRA on both", draw.GREEN),
)
ANSWERS = (
    (Metric.ACCURACY, "correct", draw.GREEN),
    (Metric.BRIDGE, "the bridge B", draw.BLUE),
    (Metric.RELATION2, "hop 2 applied to A", draw.SKY),
    (Metric.OLD, "what the base said", draw.ORANGE),
    (Metric.OTHER, "other", draw.GREYS[0]),
)
GROUP_COLORS = (draw.GREYS[2], draw.BLUE, draw.SKY, draw.RED, draw.GREEN)


class NothingToShowError(ValueError):
    """The rows hold no pooled value that a figure could show."""


def library(rows: pd.DataFrame) -> Figure:
    """Returns panel (a): two-hop accuracy by what the base knows, entities familiar."""
    title = "Two-hop accuracy by what the base knows (entities familiar)"
    return _grouped(rows, KNOWN, title)


def familiarity(rows: pd.DataFrame) -> Figure:
    """Returns panel (b): two-hop accuracy by familiarity, the base knowing neither hop."""
    title = "Two-hop accuracy by how familiar the entities are (base knows neither hop)"
    return _grouped(rows, FAMILIAR, title)


def _grouped(rows: pd.DataFrame, names: dict[Cell, str], title: str) -> Figure:
    found = readings.book(rows)
    cells = _shown(rows, found, tuple(names))
    figure = draw.canvas(9.5, 4.6, title)
    axes = figure.subplots()
    draw.plain(axes, "y")
    width = 0.86 / len(MARKS)
    for i, mark in enumerate(MARKS):
        x = [c + (i - (len(MARKS) - 1) / 2) * width for c in range(len(cells))]
        values = [readings.read(found, cell, mark.line) for cell in cells]
        draw.bars(axes, x, values, 0.84 * width, mark)
    label: str | None = "chance"
    for c, cell in enumerate(cells):
        chance = readings.chance(found, cell).value
        if chance is not None:
            axes.hlines(chance, c - 0.46, c + 0.46, draw.INK, "dashed", label, lw=0.9)
            label = None
    axes.set_xticks(range(len(cells)), [names[cell] for cell in cells])
    axes.set_xlim(-0.55, len(cells) - 0.45)
    axes.set_ylabel("two-hop accuracy", fontsize=10)
    draw.legend(figure, axes, 3)
    return figure


def errors(rows: pd.DataFrame) -> Figure:
    """Returns the shares of each type of answer, by cell, one panel a combination."""
    found = readings.book(rows)
    cells = _shown(rows, found, tuple(Cell))
    methods = [m for m in (Method.MEAN, Method.SUM, Method.ARROW, Method.ORACLE)
               if _has(found, cells, Line("", Library.PAIR, m), Metric.OTHER)]
    if not methods:
        raise NothingToShowError("No error types of the 2-combination were measured.")
    height = 1.5 + 0.3 * len(cells)
    figure = draw.canvas(9.5, height * ((len(methods) + 1) // 2), "What the 2-combination answers")
    panels = figure.subplots((len(methods) + 1) // 2, 2, squeeze=False, sharey=True)
    for panel in panels.flat[len(methods):]:
        panel.set_visible(False)
    for axes, method in zip(panels.flat, methods, strict=False):
        draw.plain(axes, "x")
        axes.set_title(method.value, loc="left", fontsize=10.5)
        _stack(axes, found, cells, Line("", Library.PAIR, method))
    panels[0, 0].set_yticks(range(len(cells)), [cell.value for cell in cells])
    panels[0, 0].invert_yaxis()
    for axes in panels[-1]:
        axes.set_xlabel("share of answers", fontsize=10)
    draw.legend(figure, panels[0, 0], len(ANSWERS))
    return figure


def _stack(axes: Axes, found: Book, cells: Sequence[Cell], line: Line) -> None:
    left = [0.0] * len(cells)
    for metric, label, color in ANSWERS:
        values = [readings.read(found, cell, line, metric).value or 0.0 for cell in cells]
        axes.barh(range(len(cells)), values, 0.7, left, color=color, label=label)
        left = [a + b for a, b in zip(left, values, strict=True)]
    for y, cell in enumerate(cells):
        reading = readings.read(found, cell, line)
        if not reading.measured:
            draw.missing(axes, 0.01, y, reading)


def controls(rows: pd.DataFrame) -> Figure:
    """Returns every combination against every control, one panel a familiarity."""
    found = readings.book(rows)
    cells = _shown(rows, found, tuple(FAMILIAR))
    figure = draw.canvas(9.5, 7.4, "Combinations against every control (base knows neither hop)")
    panels = figure.subplots(1, len(cells), squeeze=False, sharey=True)[0]
    for axes, cell in zip(panels, cells, strict=True):
        draw.plain(axes, "x")
        axes.set_title(FAMILIAR[cell].replace("\n", ": ", 1).replace("\n", " "), loc="left", fontsize=10.5)
        _dot_groups(axes, found, cell)
    return figure
