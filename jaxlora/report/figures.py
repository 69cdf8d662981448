"""Figures of a study: rows in, matplotlib figures out.

``library`` and ``familiarity`` are the two panels of the paper's figure (arXiv
2506.13479) in our numbers: libraries and single experts by what the base knows, and by
how familiar the entities are. ``errors``, ``controls`` and ``coverage`` show what the
paper's panels leave open: what is said instead, against which controls, and where the
boundary lies.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlora.evaluate.schema import Arm, Cell, Method, Metric
from jaxlora.files import write_whole
from jaxlora.report import draw, formats, points, readings, routing
from jaxlora.report.boundary import FAMILIAR, controls, coverage
from jaxlora.report.lines import Line
from jaxlora.report.points import Series
from jaxlora.report.readings import Book

KNOWN = {
    Cell.R_II: "II\nbase knows\nboth hops",
    Cell.R_OI: "OI\nbase knows\nonly hop 2",
    Cell.R_IO: "IO\nbase knows\nonly hop 1",
    Cell.R_OO: "OO\nbase knows\nneither hop",
}
SERIES = (
    Series(Line("", Arm.BASE), "base", draw.GREYS[0]),
    Series(Line("", Arm.HOP1), "A→B alone", draw.GREYS[1]),
    Series(Line("", Arm.HOP2), "B→C alone", draw.GREYS[2]),
    Series(Line("", Arm.PAIR, Method.MEAN), "2-combination, mean", draw.BLUE),
    Series(Line("", Arm.PAIR, Method.ARROW), "2-combination, Arrow", draw.SKY),
    Series(Line("", Arm.TRIPLE, Method.MEAN), "3-combination, mean", draw.RED),
    Series(
        Line("", Arm.TRIPLE_OTHERS, Method.MEAN),
        "3-combination, A→C of others",
        draw.ORANGE,
    ),
    Series(Line("", Arm.JOINT), "one LoRA on both", draw.GREEN),
)
ANSWERS = (
    (Metric.ACCURACY, "correct", draw.GREEN),
    (Metric.BRIDGE, "the bridge B", draw.BLUE),
    (Metric.RELATION2, "hop 2 applied to A", draw.SKY),
    (Metric.OLD, "what the base said", draw.ORANGE),
    (Metric.OTHER, "other", draw.GREYS[0]),
)
_EDGE = {"edgecolor": "white", "linewidth": 0.6}
_STACKED = (Method.MEAN, Method.SUM, Method.ARROW, Method.ORACLE)


def library(rows: pd.DataFrame) -> Figure:
    """Returns panel (a): two-hop accuracy by what the base knows, entities familiar.

    Args:
      rows: as ``schema.COLUMNS``.
    """
    title = "Two-hop accuracy by what the base knows (entities familiar)"
    return _grouped(rows, KNOWN, title)


def familiarity(rows: pd.DataFrame) -> Figure:
    """Returns panel (b): two-hop accuracy by familiarity, base knowing neither.

    Args:
      rows: as ``schema.COLUMNS``.
    """
    title = "Two-hop accuracy by how familiar the entities are (base knows neither)"
    return _grouped(rows, FAMILIAR, title)


def _grouped(rows: pd.DataFrame, names: dict[Cell, str], title: str) -> Figure:
    rows = readings.tidy(rows)
    book = readings.book(rows)
    cells = draw.shown(rows, book, tuple(names))
    figure = draw.canvas(9.5, 4.6, title + draw.at_coverage(rows))
    axes = figure.subplots()
    draw.plain(axes, "y")
    width = 0.86 / len(SERIES)
    for i, series in enumerate(SERIES):
        x = [c + (i - (len(SERIES) - 1) / 2) * width for c in range(len(cells))]
        values = [readings.read(book, cell, series.line) for cell in cells]
        points.bars(axes, x, values, 0.84 * width, series)
    chances = [(c, readings.chance(book, cell).value) for c, cell in enumerate(cells)]
    points.chance_lines(axes, [(c, v) for c, v in chances if v is not None])
    axes.set_xticks(range(len(cells)), [names[cell] for cell in cells])
    axes.set_xlim(-0.55, len(cells) - 0.45)
    axes.set_ylabel("two-hop accuracy", fontsize=10)
    draw.legend(figure, axes, 3)
    return figure


def errors(rows: pd.DataFrame) -> Figure:
    """Returns the shares of each type of answer by cell, one panel a combination.

    Args:
      rows: as ``schema.COLUMNS``.
    """
    rows = readings.tidy(rows)
    book = readings.book(rows)
    cells = draw.shown(rows, book, tuple(Cell))
    methods = [m for m in _STACKED if draw.has(book, cells, draw.pair(m), Metric.OTHER)]
    if not methods:
        raise draw.NothingToShowError(
            "No error types of the 2-combination were measured."
        )
    high = (len(methods) + 1) // 2
    size = 0.9 + high * (0.75 + 0.27 * len(cells))
    title = "What the 2-combination answers to a two-hop question"
    figure = draw.canvas(9.5, size, title + draw.at_coverage(rows))
    panels = draw.panels(figure, len(methods), 2, sharey=True)
    for axes, method in zip(panels.flat, methods, strict=False):
        draw.plain(axes, "x")
        axes.set_title(method.value, loc="left", fontsize=10.5)
        axes.set_xlabel("share of answers", fontsize=9.5)
        _stack(axes, book, cells, draw.pair(method))
    panels[0, 0].set_yticks(range(len(cells)), [cell.value for cell in cells])
    panels[0, 0].invert_yaxis()
    draw.legend(figure, panels[0, 0], len(ANSWERS))
    return figure


def _stack(axes: Axes, book: Book, cells: Sequence[Cell], line: Line) -> None:
    # Shares are stacked: each starts where the one before it ends.
    left = [0.0] * len(cells)
    for metric, label, color in ANSWERS:
        shares = [readings.read(book, c, line, metric).value or 0.0 for c in cells]
        axes.barh(
            range(len(cells)), shares, 0.7, left, color=color, label=label, **_EDGE
        )
        left = [a + b for a, b in zip(left, shares, strict=True)]
    for y, cell in enumerate(cells):
        reading = readings.read(book, cell, line)
        if not reading.measured:
            points.missing(axes, 0.5, y, reading)


FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "figure-library.png": library,
    "figure-familiarity.png": familiarity,
    "figure-errors.png": errors,
    "figure-controls.png": controls,
    "figure-coverage.png": coverage,
    routing.FIGURE: routing.figure,
}


def png(figure: Figure) -> bytes:
    """Returns the figure as PNG; the same figure gives the same bytes.

    Args:
      figure: a finished one.
    """
    return formats.encode(figure, ".png")


def charts(rows: pd.DataFrame) -> dict[str, Figure]:
    """Returns every figure that the rows can fill, by its file name.

    Args:
      rows: as ``schema.COLUMNS``.
    """
    out, rows = {}, readings.tidy(rows)
    for name, make in FIGURES.items():
        # A small run has no coverage curve or routes; its other figures are drawn.
        with contextlib.suppress(draw.NothingToShowError):
            out[name] = make(rows)
    return out


def render(rows: pd.DataFrame) -> dict[str, bytes]:
    """Returns ``{file name: PNG}`` of every figure that the rows can fill.

    Args:
      rows: as ``schema.COLUMNS``.
    """
    return {name: png(chart) for name, chart in charts(rows).items()}


def save_all(rows: pd.DataFrame, out_dir: str | os.PathLike[str]) -> list[Path]:
    """Writes every figure that the rows can fill, each whole or not at all.

    Args:
      rows: as ``schema.COLUMNS``.
      out_dir: the folder of the run.
    """
    folder, images = Path(out_dir), render(rows)
    return [write_whole(folder / name, data) for name, data in images.items()]
