"""Two figures on where combinations stand: beside every control, and over coverage.

Grey stands for negative controls. The grey band is the range of those under *mean*: a
combination by mean whose interval lies in it does nothing that its controls do not do.
For other methods it is only a scale: verdicts compare each with controls of its own.
"""

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlora.evaluate.schema import Cell, Method, Metric
from jaxlora.report import draw, points, readings
from jaxlora.report.lines import FORMAT_LINES, PAIR_LINES, SECTIONS, Line
from jaxlora.report.readings import Book

FAMILIAR = {
    Cell.R_OO: "R\nA, B and C\nfamiliar",
    Cell.H_OO: "H\nA and B new,\nC familiar",
    Cell.F_OO: "F\nA, B and C\nnew",
}
CURVES = (
    (Method.MEAN, draw.BLUE),
    (Method.SUM, draw.RED),
    (Method.FACTOR_MEAN, draw.PURPLE),
    (Method.ARROW, draw.SKY),
    (Method.UNIFORM, draw.ORANGE),
    (Method.ORACLE, draw.GREEN),
)
BAND = "negative controls (mean), range"
SECTION_COLORS = (draw.GREYS[2], draw.BLUE, draw.SKY, draw.RED, draw.GREEN)
_WIDE = 3  # panels in a row
_Sections: TypeAlias = Sequence[tuple[str, Sequence[Line]]]


def controls(rows: pd.DataFrame) -> Figure:
    """Returns every combination beside every control, one panel a familiarity.

    Args:
      rows: as ``schema.COLUMNS``.
    """
    rows = readings.tidy(rows)
    book = readings.book(rows)
    cells = draw.shown(rows, book, tuple(FAMILIAR))
    title = "Combinations and controls where the base knows neither hop"
    title += draw.at_coverage(rows)
    figure = draw.canvas(9.5, 7.4, title)
    panels = figure.subplots(1, len(cells), squeeze=False, sharey=True)[0]
    sections = [(name, _kept(book, cells, lines)) for name, lines in SECTIONS]
    for axes, cell in zip(panels, cells, strict=True):
        draw.plain(axes, "x")
        # Names have line breaks for bars; a title has room for one line.
        head, rest = FAMILIAR[cell].split("\n", 1)
        words = f"{head}: {rest.replace(chr(10), ' ')}"
        axes.set_title(words, loc="left", fontsize=10)
        axes.set_xlabel("two-hop accuracy", fontsize=9.5)
        _dot_sections(axes, book, cell, sections)
    _name_sections(panels[0], sections)
    draw.legend(figure, panels[0], 2)
    return figure


def _kept(book: Book, cells: Sequence[Cell], lines: tuple[Line, ...]) -> list[Line]:
    """Controls stay even where nobody measured them; combinations only if measured."""
    free = lines is PAIR_LINES or lines is FORMAT_LINES
    return [x for x in lines if not free or draw.has(book, cells, x, Metric.ACCURACY)]


def _dot_sections(axes: Axes, book: Book, cell: Cell, sections: _Sections) -> None:
    # The range of everything that must fail.
    band = readings.band(book, cell)
    if band:
        axes.axvspan(*band, color="#EDEDED", zorder=0, label=BAND)
    chance = readings.chance(book, cell).value
    if chance is not None:
        axes.axvline(chance, color=draw.INK, ls="dashed", lw=0.9, label="chance")
    y = 0
    for (name, lines), color in zip(sections, SECTION_COLORS, strict=True):
        values = [readings.read(book, cell, line) for line in lines]
        points.dots(axes, range(y + 1, y + 1 + len(lines)), values, color, "_" + name)
        y += 1 + len(lines)


def _name_sections(axes: Axes, sections: _Sections) -> None:
    names = [
        (text, head)
        for name, lines in sections
        if lines
        for text, head in [(name, True), *((x.label, False) for x in lines)]
    ]
    axes.set_yticks(range(len(names)), [n.replace("->", "→") for n, _ in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    for label, (_, head) in zip(axes.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if head else "normal")


def coverage(rows: pd.DataFrame) -> Figure:
    """Returns accuracy of each combination over coverage of hop 2, one panel a cell.

    Args:
      rows: as ``schema.COLUMNS``; of two coverages or more.
    """
    rows = readings.tidy(rows)
    coverages = readings.coverages(rows)
    if len(coverages) < 2:
        raise draw.NothingToShowError(
            f"The rows hold {len(coverages)} value(s) of coverage, the figure needs "
            "two: run the study with several, as the preset 'full' does."
        )
    books = [readings.book(rows, share) for share in coverages]
    cells = draw.shown(rows, books[-1], tuple(Cell))
    high = -(-len(cells) // _WIDE)
    title = "Two-hop accuracy by coverage of the second hop in pretraining"
    figure = draw.canvas(9.5, 1.3 + 2.5 * high, title)
    panels = draw.panels(figure, len(cells), _WIDE, sharex=True, sharey=True)
    for axes, cell in zip(panels.flat, cells, strict=False):
        draw.plain(axes, "y")
        axes.set_title(cell.value, loc="left", fontsize=10.5)
        axes.set_xlabel("coverage of hop 2", fontsize=9.5)
        axes.label_outer()
        _curves(axes, coverages, books, cell)
    for axes in panels[:, 0]:
        axes.set_ylabel("two-hop accuracy", fontsize=9.5)
    draw.legend(figure, panels[0, 0], 4)
    return figure


def _curves(axes: Axes, coverages: list[float], books: list[Book], cell: Cell) -> None:
    bands = [readings.band(book, cell) or (math.nan, math.nan) for book in books]
    axes.fill_between(
        coverages,
        [low for low, _ in bands],
        [high for _, high in bands],
        color="#E4E4E4",
        lw=0,
        label=BAND,
    )
    step = min(b - a for a, b in itertools.pairwise(coverages))
    style = {"marker": "o", "markersize": 4, "lw": 1.5, "elinewidth": 1, "capsize": 2}
    for i, (method, color) in enumerate(CURVES):
        curve = [readings.read(book, cell, draw.pair(method)) for book in books]
        if any(reading.measured for reading in curve):
            values, lengths = points.spread(curve)
            # Methods stand beside each other, so that intervals do not overlap.
            aside = (i - (len(CURVES) - 1) / 2) * 0.06 * step
            x = [coverage + aside for coverage in coverages]
            label = method.value
            axes.errorbar(x, values, lengths, color=color, label=label, **style)
    axes.set_xticks(coverages, [f"{coverage:g}" for coverage in coverages])
