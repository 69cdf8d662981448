"""The figure of which expert a route takes at which token and layer of one prompt.

A square stands for a token in a layer: its colour is the expert of the largest weight,
its area that weight, so that no colour is ever mixed with another. See
:mod:`jaxlora.report.route_numbers` for what is averaged how.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from jaxlora.report import draw
from jaxlora.report.fidelity import METHOD_COLORS
from jaxlora.report.route_numbers import (
    Measured,
    Panels,
    check,
    cut,
    decimals,
    grouped,
    measure,
    printable,
    stack,
)
from jaxlora.route import diagnose

COLORS = (*METHOD_COLORS, draw.INK)
"""Of experts, in the library's order; of more experts, the most used have colours."""

LONGEST = 512
"""Tokens that a figure shows at most."""

_OTHERS, _SMALL = "#B8B8B8", 0.14
_PANEL: dict[str, Any] = {"fontsize": 10, "loc": "left", "color": draw.INK}


def chart(
    sites: Mapping[str, ArrayLike],
    tokens: Sequence[str],
    experts: Sequence[str],
    *,
    panels: Panels = "mean",
    title: str = "Experts by token and layer",
) -> Figure:
    """Returns the map of one prompt, entropy beside it, and the load of each expert.

    Where no single expert has the largest weight, the square is small and hollow; where
    there is no expert, there is none.

    Args:
      sites: {site: [L, T, E]}.
      tokens: text of the T tokens, below the map.
      experts: names of the E experts.
      panels: one map, or one a part of the layers, or one a site.
      title: of the figure.

    Raises:
      ValueError: if arrays differ in shape, texts or names are too few or too many,
        or there are more than ``LONGEST`` tokens.
    """
    stacked = stack(sites)
    check(stacked, tokens, experts)
    _, L, T, E = stacked.shape
    if T > LONGEST:
        raise ValueError(
            f"The prompt has {T} tokens, expected at most {LONGEST} in a figure; "
            f"shorten it, or write the rows alone."
        )
    measured, maps = measure(sites), grouped(sites, panels)
    palette = colors(measured.load)
    sizes = _sizes(L, T, len(maps))
    figure = draw.canvas(max(sizes.width, 5.4), max(sizes.height, 3.9), title)
    ratios = {
        "width_ratios": (T * sizes.column, 0.6, 1.9),
        "height_ratios": (0.55, *(L * sizes.row for _ in maps)),
    }
    grid = figure.add_gridspec(len(maps) + 1, 3, **ratios)
    top = figure.add_subplot(grid[0, 0])
    _strip(top, measured.entropy.mean(axis=0), E, upright=True)
    for i, (name, chosen) in enumerate(maps.items()):
        axes = figure.add_subplot(grid[i + 1, 0], sharex=top)
        _map(axes, chosen, palette, words=sizes.words)
        axes.set_title(name, **_PANEL)
        last = i == len(maps) - 1
        _tokens(axes, tokens if last else None, sizes.column)
        beside = figure.add_subplot(grid[i + 1, 1], sharey=axes)
        _strip(beside, chosen.entropy.mean(axis=1), E, upright=False)
        beside.set_xlabel("entropy" if last else "", fontsize=8.5)
    bars = 0.28 * (len(palette) + (len(palette) < E))
    rest = max(0.05, sizes.height - bars - 2.0)
    room = grid[1:, 2].subgridspec(2, 1, height_ratios=(bars, rest))
    _load(figure.add_subplot(room[0]), measured, experts, palette)
    _key(figure.add_subplot(grid[0, 2]), E)
    return figure


class _Sizes(NamedTuple):
    """Of a figure, in inches; ``words``: is there room for a number in a square?"""

    row: float
    column: float
    width: float
    height: float
    words: bool


def _sizes(layers: int, tokens: int, maps: int) -> _Sizes:
    row = float(np.clip(4.6 / layers, 0.17, 0.42))
    column = float(np.clip(8 / tokens, 0.19, max(0.3, 1.6 * row)))
    width, height = 3.6 + column * tokens, 2.0 + (0.3 + row * layers) * maps
    return _Sizes(row, column, width, height, column >= 0.45 and row >= 0.26)


def colors(load: np.ndarray) -> dict[int, str]:
    """Colours of the experts; those that are not in it are too many for one each.

    Args:
      load: [E], mean weight of each expert.

    >>> colors(np.array([0.5, 0.5]))
    {0: '#0072B2', 1: '#E69F00'}
    """
    most = np.argsort(-load, kind="stable")
    shown = range(len(load)) if len(load) <= len(COLORS) else most[: len(COLORS)]
    return {int(e): color for e, color in zip(shown, COLORS, strict=False)}


def _map(
    axes: Axes, measured: Measured, palette: Mapping[int, str], words: bool
) -> None:
    L, T, E = measured.weight.shape
    patches, faces, edges = [], [], []
    for layer, token in np.ndindex(L, T):
        best = int(measured.top[layer, token])
        weight = float(measured.weight[layer, token].max())
        if weight <= 0:
            continue
        none = best == diagnose.NONE
        side = _side(0.0 if none else weight, E)
        corner = token - side / 2, layer - side / 2
        patches.append(Rectangle(corner, side, side))
        faces.append("none" if none else palette.get(best, _OTHERS))
        edges.append(draw.INK if none else "none")
        if words and not none:
            color = "white" if faces[-1] in _DARK else draw.INK
            axes.text(token, layer, decimals(weight), color=color, **_WORD)
    style = {"facecolors": faces, "edgecolors": edges, "linewidths": 0.7}
    # One collection, because thousands of patches of their own are slow to draw.
    axes.add_collection(PatchCollection(patches, **style))
    _lattice(axes, L, T)


def _lattice(axes: Axes, layers: int, tokens: int) -> None:
    """White lines between the squares, layers named from the top."""
    axes.set_xlim(-0.5, tokens - 0.5)
    axes.set_ylim(layers - 0.5, -0.5)
    axes.set_facecolor("#F6F6F6")
    axes.set_xticks(np.arange(tokens + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(layers + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0, labelsize=8.5)
    axes.set_yticks(range(0, layers, 1 if layers <= 12 else 4))
    axes.set_ylabel("layer", fontsize=9.5)


_DARK = (draw.BLUE, draw.GREEN, draw.RED, draw.INK)
_WORD: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}


def _side(weight: float, experts: int) -> float:
    """Side of a square whose area goes from small, at 1 / E, to the cell, at 1."""
    # A weight of 1 / E is no choice at all: it has the smallest square.
    least = 1 / experts if experts > 1 else 0.0
    sure = min(max((weight - least) / (1 - least), 0.0), 1.0)
    return 0.92 * math.sqrt(_SMALL + (1 - _SMALL) * sure)


def _tokens(axes: Axes, tokens: Sequence[str] | None, wide: float) -> None:
    if tokens is None:
        axes.tick_params(labelbottom=False)
        return
    words = [printable(text) for text in tokens]
    flat = max(map(len, words)) * 0.085 < wide
    turned: dict[str, Any] = {} if flat else {"rotation": 90}
    labels = axes.set_xticks(range(len(words)), words, fontsize=8.5, **turned)
    for label in labels:
        # A token "$" would start a formula.
        label.label1.set_parse_math(False)


def _strip(axes: Axes, values: np.ndarray, experts: int, *, upright: bool) -> None:
    """Mean entropy along the map's edge, from 0 to ln E."""
    most = math.log(experts) if experts > 1 else 1.0
    places, style = range(len(values)), {"color": draw.FAINT, "linewidth": 0}
    limits, ticks = (0, 1.04 * most), ([0, most], ["0", f"ln {experts}"])
    if upright:
        axes.bar(places, values, 0.92, **style)
        axes.set_ylim(*limits)
        axes.set_yticks(*ticks)
        axes.set_ylabel("entropy", fontsize=8.5)
        axes.tick_params(labelbottom=False)
    else:
        axes.barh(places, values, 0.92, **style)
        axes.set_xlim(*limits)
        axes.set_xticks(*ticks)
        axes.tick_params(labelleft=False)
    axes.tick_params(which="both", length=0, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#C8C8C8")


def _load(axes: Axes, measured: Measured, experts, palette: Mapping[int, str]) -> None:
    """Bars of mean weight; a circle is how often an expert's weight is the largest."""
    lines = [
        (experts[e], measured.load[e], measured.share[e], c) for e, c in palette.items()
    ]
    rest = [e for e in range(len(experts)) if e not in palette]
    if rest:
        total = measured.load[rest].sum(), measured.share[rest].sum()
        lines.append((f"{len(rest)} others", *total, _OTHERS))
        word = f" {decimals(total[0])} together"
        axes.text(0, len(lines) - 1, word, va="center", fontsize=7.5)
    for y, (_, weight, share, color) in enumerate(lines):
        axes.barh(y, weight, 0.62, color=color)
        axes.plot(share, y, "o", color="white", markeredgecolor=draw.INK, markersize=5)
    axes.axvline(1 / len(experts), color=draw.INK, linestyle="dotted", linewidth=0.9)
    axes.set_yticks(range(len(lines)), [cut(name) for name, *_ in lines])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    most = max(0.1, *(max(measured.load[e], measured.share[e]) for e in palette))
    axes.set_xlim(min(0.0, float(measured.load.min())), 1.08 * most)
    axes.set_title("load", **_PANEL)
    axes.tick_params(length=0, labelsize=8.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    words = "bar: mean weight\n○: share as the top\ndotted: 1 / E"
    axes.set_xlabel(words, fontsize=8.5, loc="left")


def _key(axes: Axes, experts: int) -> None:
    least = 1 / experts
    weights = [least, least + (1 - least) / 2, 1.0] if experts > 1 else [1.0]
    for x, weight in enumerate(weights):
        side = _side(weight, experts)
        axes.add_patch(Rectangle((x - side / 2, -side / 2), side, side, fc=draw.FAINT))
        axes.text(x, -0.75, decimals(weight), ha="center", va="top", fontsize=8)
    axes.set_xlim(-0.6, 5)
    axes.set_ylim(-1.6, 0.6)
    axes.set_aspect("equal", anchor="W")
    axes.axis("off")
    axes.set_title("weight of the top expert", fontsize=8.5, loc="left")
