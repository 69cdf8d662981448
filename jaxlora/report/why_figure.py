"""Where the bridge is and where the second fact is read, as one figure of many maps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlora.report import draw

POSITIONS = ("A", "r1", "r2", "<think>", "B")
NAMES = {"<think>": "think", "B": "bridge"}
"""Of positions, on axes: the token may be another than the right bridge."""
SUBJECT, OTHER = "bridge as subject", "another person"
"""Donors."""
TITLE = "Where the bridge is, and where the second fact is read"


class Line(NamedTuple):
    """One row of the figure: what is asked of which model."""

    name: str
    regime: str
    method: str
    asked: str

    def of(self, rows: pd.DataFrame, **more: Any) -> pd.DataFrame:
        """Its rows.

        Args:
          rows: of all models.
          **more: further columns and their values.
        """
        keys = {"regime": self.regime, "method": self.method, "asked": self.asked}
        for name, value in (keys | more).items():
            rows = rows[rows[name] == value]
        return rows


LINES = (
    Line("base alone,\nfamiliar facts", "base", "", "direct"),
    Line("placed experts,\nsum", "placed", "sum", "direct"),
    Line("plain experts,\nsum", "direct", "sum", "direct"),
    Line("base alone, familiar\nfacts, written", "base", "", "written"),
    Line("bridge rows,\nmean, written", "bridge rows 0.5", "mean", "written"),
    Line("plain experts,\nmean, written", "direct", "mean", "written"),
)
MAPS = (
    ("Reads as the bridge", "lens", "bridge", ("", "")),
    ("Reads as the answer", "lens", "answer", ("", "")),
    ("Right bridge patched in", "patch", "follows", (SUBJECT, "right bridge")),
    ("Another person patched in", "patch", "follows", (OTHER, OTHER)),
)
EXPERTS = {"A->B": "hop1", "B->C": "hop2"}


def figure(rows: pd.DataFrame) -> Figure:
    """Returns the figure: a row for each model, maps of layers by positions.

    Args:
      rows: shares with the columns regime, method, asked, measure, donor, layer,
        position, expert, off, quantity, n and value.
    """
    out = draw.canvas(15.5, 2.0 * len(LINES) + 1.0, TITLE)
    ratios = (1, 1, 1, 1, 0.9, 0.9)
    grid = out.subplots(len(LINES), 6, squeeze=False, width_ratios=ratios)
    for axes, line in zip(grid, LINES, strict=True):
        for panel, (title, measure, quantity, donors) in zip(axes, MAPS, strict=False):
            donor = donors[line.asked == "written"]
            mine = line.of(rows, measure=measure, quantity=quantity, donor=donor)
            _map(panel, table(mine), line.asked)
            if line is LINES[0]:
                panel.set_title(title, loc="left", fontsize=10)
        for panel, expert in zip(axes[len(MAPS) :], EXPERTS, strict=True):
            _needs(panel, line.of(rows, measure="ablation"), expert)
        right = pooled(_right(line.of(rows, measure="lens", quantity="answer")))
        words = f"{line.name}\nright: {_word(right)}\nlayers done"
        axes[0].set_ylabel(words, fontsize=9.5)
    for panel, expert in zip(grid[1, len(MAPS) :], EXPERTS, strict=True):
        panel.set_title(f"{expert} without a layer", loc="left", fontsize=10)
    draw.legend(out, grid[1, len(MAPS)], 4)
    return out


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Pooled shares, a line for each layer and a column for each position.

    Args:
      rows: of one model, measure and quantity; each share counts by its n.
    """
    rows = rows.dropna(subset=["layer"])
    weighed = rows.assign(sum=rows["value"] * rows["n"])
    pooled = weighed.groupby(["layer", "position"])[["sum", "n"]].sum()
    shares = (pooled["sum"] / pooled["n"]).unstack()
    return shares.reindex(columns=[x for x in POSITIONS if x in shares.columns])


def pooled(rows: pd.DataFrame) -> float:
    """The mean of shares, each by its n; NaN of none.

    Args:
      rows: of one model, measure and quantity.
    """
    return float((rows["value"] * rows["n"]).sum() / max(rows["n"].sum(), 1))


def _map(axes: Axes, shares: pd.DataFrame, asked: str) -> None:
    shown = POSITIONS if asked == "written" else POSITIONS[:3]
    values = shares.reindex(columns=shown).to_numpy(float)
    colors = matplotlib.colormaps["Blues"].with_extremes(bad="#EEEEEE")
    masked = np.ma.masked_invalid(values)
    # Not up to the darkest blue, on which no number can be read.
    axes.imshow(masked, cmap=colors, vmin=0, vmax=1.15, origin="lower", aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if value > 0.65 else draw.INK
            axes.text(
                j, i, _word(value), ha="center", va="center", fontsize=7.5, color=color
            )
    axes.set_xticks(range(len(shown)), [NAMES.get(x, x) for x in shown])
    axes.set_yticks(range(len(values)), [str(i) for i in range(len(values))])
    _tidy(axes)


def _right(rows: pd.DataFrame) -> pd.DataFrame:
    """What the answer reads as after the last layer, where it is read."""
    last = rows[rows["layer"] == rows["layer"].max()]
    ends = [x for x in POSITIONS if x in set(last["position"])]
    return last[last["position"] == ends[-1]]


def _word(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def _needs(axes: Axes, rows: pd.DataFrame, expert: str) -> None:
    """Shares right when one layer of an expert is off; dashed: when nothing is."""
    if rows.empty:
        axes.set_visible(False)
        return
    draw.plain(axes, "y")
    layers = sorted({x for x in rows["off"] if x and "-" not in str(x)})
    series: Sequence[tuple[str, str, str]] = (
        ("two_hop", "the question", draw.BLUE),
        (EXPERTS[expert], "its own fact alone", draw.GREYS[1]),
    )
    for quantity, label, color in series:
        mine = rows[rows["quantity"] == quantity]
        cut = mine[mine["expert"] == expert]
        y = [pooled(cut[cut["off"] == layer]) for layer in layers]
        axes.plot(range(len(layers)), y, "o-", color=color, ms=5, lw=1.2, label=label)
        level = pooled(mine[mine["expert"] == "none"])
        axes.axhline(level, color=color, lw=1, ls="dashed", label=f"{label}, none off")
    axes.set_xticks(range(len(layers)), layers)
    axes.set_xlim(-0.4, len(layers) - 0.6)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=8.5, length=0)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
