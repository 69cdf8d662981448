"""What adapters are as a figure: spectra of every group, and cosines of pairs."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxlora import spectra
from jaxlora.report import draw
from jaxlora.report.fidelity import METHOD_COLORS, short
from jaxlora.spectra import Group

COLUMNS = 4
"""Groups side by side."""

NUMBERED = 12
"""Adapters up to which each cell of the heat map shows its number."""

_BARS = " ▁▂▃▄▅▆▇█"


def chart(groups: Mapping[str, Group], experts: Sequence[str]) -> Figure:
    """Returns a figure: a panel of spectra for each group; below, cosines of pairs.

    A line is an adapter, the root mean square over its layers; on the left of the lower
    row are the cosines of whole adapters, on the right those of every group.

    Args:
      groups: at least one.
      experts: names of the E adapters.
    """
    rows = -(-len(groups) // COLUMNS)
    several = len(experts) > 1
    side = 2.6 + 0.16 * min(len(experts), 24) if several else 0.0
    title = "Singular values of each group (root mean square over layers)"
    figure = draw.canvas(10.5, 0.9 + 2.1 * rows + 1.25 * side, title)
    if not several:
        _spectra(figure, groups, experts, rows)
        return figure
    heights = 2.1 * rows, 1.25 * side
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    upper, lower = parts
    _spectra(upper, groups, experts, rows)
    left, right = lower.subplots(1, 2, width_ratios=(1, 1.25))
    _heat(left, experts, spectra.cosines(spectra.total(groups)))
    _pairs(right, groups, len(experts))
    return figure


def sparkline(values: np.ndarray) -> str:
    """Values from 0, as bars of eight heights; at most 16, which are means of runs.

    Args:
      values: at least one.

    >>> sparkline(np.asarray([8.0, 4.0, 1.0]))
    '█▄▁'
    """
    parts = [run.mean() for run in np.array_split(values, min(16, len(values)))]
    top = max(parts, default=0.0)
    if not top > 0:
        return ""
    return "".join(_BARS[math.ceil(round(8 * x / top, 6))] for x in parts)


def _spectra(figure, groups: Mapping[str, Group], experts, rows: int) -> None:
    columns = min(COLUMNS, len(groups))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(groups) :]:
        axes.axis("off")
    names = short(list(groups))
    for axes, name, group in zip(grid.flat, names, groups.values(), strict=False):
        for i, values in enumerate(group.spectrum):
            rank = int(group.ranks[i].max())
            shown = values[:rank]
            above = shown > 1e-6 * max(shown.max(initial=0.0), 1e-30)
            axes.plot(
                np.arange(1, rank + 1)[above],
                shown[above],
                color=_color(i, len(experts)),
                linewidth=1.4,
                marker="o",
                markersize=2.2,
                label=experts[i],
            )
        axes.set_yscale("log")
        axes.set_title(name, fontsize=9.5, loc="left", color=draw.INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        _tidy(axes)
    for axes in grid[:, 0]:
        axes.set_ylabel("singular value", fontsize=8.5)
    for axes in grid.flat[max(0, len(groups) - columns) : len(groups)]:
        axes.set_xlabel("number", fontsize=8.5)
    if 1 < len(experts) <= NUMBERED:
        draw.legend(figure, grid[0, 0], min(len(experts), 6))


def _heat(axes: Axes, experts: Sequence[str], matrix: np.ndarray) -> None:
    colors = matplotlib.colormaps["RdBu"].with_extremes(bad="#EEEEEE")
    image = axes.imshow(np.ma.masked_invalid(matrix), cmap=colors, vmin=-1, vmax=1)
    places = range(len(experts))
    size = 8.5 if len(experts) <= NUMBERED else 6.5
    turned = sum(map(len, experts)) > 24
    slant: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(places, experts, fontsize=size, **(slant if turned else {}))
    axes.set_yticks(places, experts, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Cosines of deltas, all groups", fontsize=10.5, loc="left")
    if len(experts) > NUMBERED:
        axes.figure.colorbar(image, ax=axes, shrink=0.8)
        return
    for i, j in itertools.product(places, places):
        value = matrix[i, j]
        word = "–" if np.isnan(value) else f"{value:.2f}".replace("-0.00", "0.00")
        color = "white" if abs(value) > 0.6 else draw.INK
        axes.text(j, i, word, ha="center", va="center", fontsize=8, color=color)


def _pairs(axes: Axes, groups: Mapping[str, Group], experts: int) -> None:
    pairs = np.triu_indices(experts, 1)
    rng = np.random.default_rng(0)
    for row, group in enumerate(groups.values()):
        values = spectra.cosines(group.gram)[pairs]
        values = values[~np.isnan(values)]
        places = row + rng.uniform(-0.18, 0.18, len(values)) * (len(values) > 3)
        axes.scatter(values, places, s=14, color=draw.BLUE, alpha=0.6, linewidths=0)
        if len(values):
            axes.plot([values.mean()] * 2, [row - 0.3, row + 0.3], color=draw.RED)
    widest = max(0.1, *(abs(x) for x in axes.get_xlim()))
    axes.set_xlim(-widest, widest)
    axes.axvline(0, color=draw.FAINT, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(groups)), short(list(groups)))
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_title(
        "Of each pair, by group (red: their mean)", fontsize=10.5, loc="left"
    )
    axes.set_xlabel("cosine", fontsize=8.5)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, length=0, which="both")
    axes.grid(color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)


def _color(i: int, experts: int):
    if experts <= len(METHOD_COLORS):
        return METHOD_COLORS[i]
    return matplotlib.colormaps["viridis"](i / (experts - 1))
