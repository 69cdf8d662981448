"""From easy to hard as a map, and written steps against the answer alone as bars."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from jaxlora.report import draw, points, word_problems_facts
from jaxlora.report import word_problems_levels as levels
from jaxlora.report.readings import Reading
from jaxlora.report.word_problems_facts import FACTS, PROBLEMS, Forms
from jaxlora.report.word_problems_levels import Table
from jaxlora.report.word_problems_readings import Book

SCALE = "Blues"
WRITTEN, DIRECT = draw.BLUE, draw.ORANGE
PRODUCT = "product of the skills it keeps"
FORMS = {
    PROBLEMS: ("steps written", "answer only"),
    FACTS: ("bridge written", "asked directly"),
}
_WIDTH = 0.36


def easy_to_hard(book: Book) -> Figure:
    """Returns arms of trained levels down and asked levels across.

    Args:
      book: of a run.
    """
    every = levels.tables(book)
    if not every:
        raise draw.NothingToShowError("No expert was confined to a level.")
    longest = max(len(x.names) for x in every)
    title = "From easy to hard: share solved, by the levels that experts saw"
    figure = draw.canvas(9.5, 1.5 + 0.36 * longest, title)
    widths = [len(x.levels) + 0.5 for x in every]
    panels = figure.subplots(1, len(every), squeeze=False, width_ratios=widths)[0]
    image = None
    for axes, table in zip(panels, every, strict=True):
        axes.set_title(table.title, loc="left", fontsize=10)
        image = _heat(axes, table)
        axes.set_xlabel("operations in the problem", fontsize=9.5)
    assert image is not None
    figure.colorbar(image, ax=panels, label="share solved", pad=0.015, fraction=0.03)
    return figure


def _heat(axes: Axes, table: Table) -> AxesImage:
    values = np.array(
        [[math.nan if x.value is None else x.value for x in r] for r in table.readings]
    )
    image = axes.imshow(values, cmap=SCALE, vmin=0, vmax=1)
    axes.set_aspect("auto")
    axes.set_xticks(range(len(table.levels)), [str(x) for x in table.levels])
    axes.set_yticks(range(len(table.names)), table.names)
    axes.tick_params(labelsize=9, length=0)
    axes.spines[:].set_visible(False)
    # White lines between cells.
    axes.set_xticks(np.arange(len(table.levels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(table.names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    _write(axes, table.readings)
    return image


def _write(axes: Axes, some: Sequence[Sequence[Reading]]) -> None:
    """The number of each cell, with its interval behind it in smaller words."""
    for y, line in enumerate(some):
        for x, reading in enumerate(line):
            if reading.value is None:
                axes.text(x, y, "–", ha="center", va="center", color=draw.FAINT)
                continue
            color = "white" if reading.value > 0.55 else draw.INK
            style = {"ha": "center", "color": color}
            axes.text(x, y - 0.1, f"{reading.value:.2f}", va="center", fontsize=9.5,
                      **style)  # fmt: skip
            if reading.lo is not None and reading.hi is not None:
                ends = f"{reading.lo:.2f}–{reading.hi:.2f}"
                axes.text(x, y + 0.3, ends, va="center", fontsize=6.8, **style)


def answers(book: Book, facts: tuple[Forms, ...] = ()) -> Figure:
    """Returns both forms of word problems, and of two-hop facts beside them.

    Args:
      book: of a run.
      facts: of a boundary study, from ``word_problems_facts.read``.
    """
    mine = word_problems_facts.problems(book)
    if not any(x.direct.measured for x in mine):
        raise draw.NothingToShowError("No base was asked for the answer alone.")
    every = [(PROBLEMS, mine), *([(FACTS, facts)] if facts else [])]
    title = "Two skills, step by step or at once"
    figure = draw.canvas(9.5, 4.5, title)
    widths = [len(x) for _, x in every]
    panels = figure.subplots(
        1, len(every), squeeze=False, sharey=True, width_ratios=widths
    )[0]
    for axes, (name, some) in zip(panels, every, strict=True):
        draw.plain(axes, "y")
        axes.set_title(name, loc="left", fontsize=10)
        _bars(axes, some, FORMS[name])
    panels[0].set_ylabel("share solved", fontsize=10)
    # Bars of facts look alike and have other names.
    labels = zip(*FORMS.values(), strict=True)
    joined = [", or ".join(x[: len(every)]) for x in labels]
    handles, names = panels[0].get_legend_handles_labels()
    renamed = dict(zip(FORMS[PROBLEMS], joined, strict=True))
    figure.legend(
        handles, [renamed.get(x, x) for x in names], loc="outside lower center",
        ncols=3, frameon=False, fontsize=9.5,
    )  # fmt: skip
    return figure


def _bars(axes: Axes, some: Sequence[Forms], names: tuple[str, str]) -> None:
    forms = (
        (names[0], WRITTEN, [(x.written, x.product) for x in some]),
        (names[1], DIRECT, [(x.direct, x.direct_product) for x in some]),
    )
    for i, (label, color, readings) in enumerate(forms):
        at = [x + _WIDTH * (i - 0.5) for x in range(len(some))]
        values, lengths = points.spread([r for r, _ in readings])
        axes.bar(
            at, values, _WIDTH * 0.94, yerr=lengths, color=color, label=label,
            ecolor=draw.INK, capsize=2, error_kw={"elinewidth": 0.9},
        )  # fmt: skip
        for x, (reading, _) in zip(at, readings, strict=True):
            if not reading.measured:
                points.missing(axes, x, 0.02, reading, rotation=90)
        known = [(x, r.value) for x, (_, r) in zip(at, readings, strict=True)
                 if r.value is not None]  # fmt: skip
        if known:
            xs, ys = zip(*known, strict=True)
            left, right = ([x + s * _WIDTH * 0.55 for x in xs] for s in (-1, 1))
            axes.hlines(ys, left, right, draw.INK, lw=2,
                        label=PRODUCT if i == 0 else "_")  # fmt: skip
    axes.set_xticks(
        range(len(some)), [x.name.replace(" alone", "\nalone") for x in some]
    )
