"""How faithful merges are to the sum of their experts: a table and a figure.

Both show :class:`jaxlora.merge.fidelity.Fidelity` with layers pooled by energy. Sites
are named by what tells them apart: ``attn/q_proj``, ``mlp/up_proj``.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from jaxlora.merge.fidelity import Fidelity
from jaxlora.report import draw, formats

TOTAL = "total"
"""The row that pools all sites."""

METHOD_COLORS = (
    *(draw.BLUE, draw.ORANGE, draw.GREEN, draw.RED, draw.PURPLE, draw.SKY),
    draw.YELLOW,
)
"""In the order in which merges are given; greys are left to negative controls."""


class _Panel(NamedTuple):
    quantity: str
    title: str
    axis: str
    share: bool


_PANELS = (
    _Panel("relative_error", "Relative error", "|M − S| / |S|", False),
    _Panel("norm_shrinkage", "Norm", "|M| / |S|", False),
    _Panel("cross_term_energy", "Cross terms", "share of |M|²", True),
    _Panel("outside_energy", "Outside the span", "share of |M|²", True),
)
_ROUNDING = 2e-6  # of float32: an error below it is shown as 0
_TITLE = "Merged deltas M against the exact weighted sum S"
_COEFFICIENT = "coefficient: "
_WORD: dict[str, Any] = {
    "va": "center",
    "fontsize": 7.5,
    "style": "italic",
    "color": draw.FAINT,
}


def table(fidelity: Fidelity, names: Sequence[str]) -> pd.DataFrame:
    """Returns one line a site, pooled over its layers, and a line ``total``.

    Columns: relative_error, norm_shrinkage, cross_term_energy, outside_energy, and
    ``coefficient: NAME`` for every expert; the index is the site. NaN is undefined.

    Args:
      fidelity: what ``merge.fidelity`` returned.
      names: of the E experts, in the library's order.

    Raises:
      ValueError: if there are not E names, or a name is there twice.
    """
    pooled, total = fidelity.layers(), fidelity.total()
    experts = len(total.products)
    if len(names) != experts or len(set(names)) != experts:
        raise ValueError(
            f"Got the names {list(names)}, expected {experts} different ones: one for "
            f"each expert of the library."
        )
    sites = list(pooled.error)
    coefficients = pooled.effective_coefficient
    columns = {}
    for quantity in (panel.quantity for panel in _PANELS):
        values = [float(getattr(pooled, quantity)[site]) for site in sites]
        columns[quantity] = [*values, float(getattr(total, quantity))]
    for i, name in enumerate(names):
        values = [float(coefficients[site][i]) for site in sites]
        values.append(float(total.effective_coefficient[i]))
        columns[_COEFFICIENT + name] = values
    return pd.DataFrame(columns, index=pd.Index([*sites, TOTAL], name="site"))


def figure(
    merges: Fidelity | Mapping[str, Fidelity],
    path: str | os.PathLike[str],
    names: Sequence[str] | None = None,
) -> Path:
    """Writes :func:`chart`, whole or not at all, and returns its path.

    Args:
      merges: one merge, or several of one library by the name of their method.
      path: ends in .png, .svg or .pdf, which says the format.
      names: of the E experts; None numbers them.
    """
    return formats.draw(chart(merges, names), Path(path))


def chart(
    merges: Fidelity | Mapping[str, Fidelity], names: Sequence[str] | None = None
) -> Figure:
    """Returns a figure: four quantities by site, and coefficients by expert.

    Sites are pooled over layers, experts over everything. A dotted line marks the norm
    of the exact sum. Where a value is undefined (nothing was merged, or an expert is
    absent) or infinite, a word says so.

    Args:
      merges: one merge, or several of one library by the name of their method.
      names: of the E experts; None numbers them.

    Raises:
      draw.NothingToShowError: if there is no merge.
      ValueError: if there are more merges than colours, they are of different sites or
        numbers of experts, or ``names`` are not E different ones.
    """
    several = {"": merges} if isinstance(merges, Fidelity) else dict(merges)
    tables = _tables(several, names)
    first = next(iter(tables.values()))
    rows = len(first) * (0.14 + 0.1 * len(tables))
    figure = draw.canvas(9.5, 4.2 + rows, _TITLE)
    grid = figure.add_gridspec(2, len(_PANELS), height_ratios=(0.9 + rows, 2.6))
    panels = [figure.add_subplot(grid[0, i]) for i in range(len(_PANELS))]
    for axes, panel in zip(panels, _PANELS, strict=True):
        _by_site(axes, tables, panel)
        axes.set_yticks(range(len(first)), [""] * len(first))
        axes.set_ylim(len(first) - 0.4, -0.6)
    panels[0].set_yticklabels([*short(list(first.index[:-1])), TOTAL])
    panels[0].get_yticklabels()[-1].set_fontweight("bold")
    _by_expert(figure.add_subplot(grid[1, :]), tables)
    if len(tables) > 1:
        roomy = sum(map(len, tables)) + 6 * len(tables) < 100
        draw.legend(figure, panels[0], len(tables) if roomy else 4)
    return figure


def _tables(
    several: Mapping[str, Fidelity], names: Sequence[str] | None
) -> dict[str, pd.DataFrame]:
    if not several:
        raise draw.NothingToShowError("No merge to show: got an empty mapping.")
    # Colours would repeat, and two merges look like one.
    if len(several) > len(METHOD_COLORS):
        raise ValueError(
            f"Got {len(several)} merges, expected at most {len(METHOD_COLORS)}: more "
            f"bars than that cannot be told apart; make several figures, or a table."
        )
    if names is None:
        names = [
            str(i) for i in range(len(next(iter(several.values())).total().products))
        ]
    tables = {method: table(frame, names) for method, frame in several.items()}
    sites = {method: tuple(frame.index) for method, frame in tables.items()}
    if len(set(sites.values())) > 1:
        raise ValueError(
            f"Merges are of different sites: {sites}; expected merges of one library."
        )
    return tables


def _by_site(axes: Axes, tables: Mapping[str, pd.DataFrame], panel: _Panel) -> None:
    draw.plain(axes, "x")
    axes.set_title(panel.title, loc="left", fontsize=10.5)
    axes.set_xlabel(panel.axis, fontsize=9.5)
    every = np.concatenate([frame[panel.quantity] for frame in tables.values()])
    if panel.share:
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_xlim(0, 1.03)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlim(0, 1.08 * max(1.0, *every[np.isfinite(every)]))
    if panel.quantity == "norm_shrinkage":
        axes.axvline(1, color=draw.INK, ls="dotted", lw=1)
    for offset, width, color, (method, frame) in _series(tables):
        y = np.arange(len(frame)) + offset
        values = frame[panel.quantity].to_numpy()
        axes.barh(y, _finite(values), width, color=color, label=method)
        for place, word in _words(values, 0.005 * axes.get_xlim()[1]):
            axes.text(0, y[place], f" {word}", ha="left", **_WORD)


def _by_expert(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    draw.plain(axes, "y")
    axes.set_title("Effective coefficients", loc="left", fontsize=10.5)
    axes.set_ylabel("⟨M, Δ⟩ / |Δ|²", fontsize=9.5)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.axhline(0, color=draw.INK, lw=0.9)
    first = next(iter(tables.values()))
    columns = [name for name in first.columns if name.startswith(_COEFFICIENT)]
    lowest = highest = 0.0
    for offset, width, color, (_, frame) in _series(tables):
        values = frame[columns].loc[TOTAL].to_numpy(float)
        _bars_or_words(axes, np.arange(len(values)) + offset, values, width, color)
        lowest, highest = min(lowest, *_finite(values)), max(highest, *_finite(values))
    room = 0.08 * (highest - lowest or 1.0)
    axes.set_ylim(lowest - (room if lowest else 0), highest + room)
    axes.set_xlim(-0.6, len(columns) - 0.4)
    labels = [name.removeprefix(_COEFFICIENT) for name in columns]
    crowded = sum(map(len, labels)) + 2 * len(labels) > 105
    axes.set_xticks(range(len(labels)), labels, rotation=40 if crowded else 0)
    axes.set_xlabel("expert", fontsize=9.5)


def _bars_or_words(axes: Axes, x: np.ndarray, values: np.ndarray, width, color) -> None:
    """Bars from 0 upwards; a word stands upright where a value has no bar."""
    axes.bar(x, _finite(values), width, color=color)
    upright = _WORD | {"va": "bottom", "ha": "center", "rotation": 90}
    for place, word in _words(values):
        axes.text(x[place], 0, f" {word}", **upright)


def short(names: Sequence[str]) -> list[str]:
    """Returns site names without what they all share.

    Args:
      names: paths of sites.

    >>> short(["layers/attn/q_proj/kernel", "layers/mlp/up_proj/kernel"])
    ['attn/q_proj', 'mlp/up_proj']
    """
    bare = [name.removesuffix("/kernel") for name in names]
    if len(bare) < 2:
        return bare
    # What the first and the last in the alphabet share, all of them share.
    first, last = min(bare), max(bare)
    same = [x == y for x, y in zip(first, last, strict=False)]
    common = first[: [*same, False].index(False)]
    cut = max(common.rfind("/"), common.rfind(".")) + 1
    return [name[cut:] for name in bare]


def _series(tables: Mapping[str, pd.DataFrame]):
    """Yields (offset in the group, bar width, colour, (method, table))."""
    # Bars of one site stand beside each other and leave a gap to the next.
    width = min(0.6, 0.8 / len(tables))
    for i, item in enumerate(tables.items()):
        offset = (i - (len(tables) - 1) / 2) * width
        yield offset, 0.88 * width, METHOD_COLORS[i], item


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, 0.0)


def _words(values: np.ndarray, least: float = 0.0) -> Iterator[tuple[int, str]]:
    """Yields (place, word) for values that no bar shows."""
    for place, value in enumerate(values):
        if not math.isfinite(value):
            yield place, "undefined" if math.isnan(value) else "infinite"
        elif 0 <= value < least:
            yield place, f"{value:.0e}" if value > _ROUNDING else "0"
