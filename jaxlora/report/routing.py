"""What gates chose on the two-hop prompt: tables by layer and route, and a figure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from jaxlora.evaluate.schema import Arm, Cell, Method, Metric
from jaxlora.report import draw, readings
from jaxlora.report.grid import Grid
from jaxlora.report.readings import Reading

TOKENS = ("subject", "relation", "last", "bridge")
FIGURE = "figure-routes.png"
_SHORT = {"subject": "A", "relation": "S", "last": "Z", "bridge": "B"}
_COLORS = "PuOr"
_WIDE = 6
"""Panels in a row of the figure."""

Chosen = Mapping[tuple[str, str, int, str], Reading]
"""Readings by (method, metric, layer, token)."""

_ARROW_HEADER = (
    "",
    "weight of A->B at the subject",
    "at the relation",
    "at the last token",
    "at a written bridge",
    "entropy at the last token",
    "relation to its expert",
    "last token to its expert",
)
_ARROW_NOTE = (
    "Means over sites and people. The last two columns: how often the expert of "
    "the largest weight is the token's own, A->B at the relation and B->C at the "
    "last token; 0.5 is a coin."
)
_ROUTERS_HEADER = (
    "",
    "entropy at the relation",
    "at the last token",
    "relation to its expert",
    "last token to its expert",
    "written bridge to its expert",
    "right where sure (AUC)",
)
_ROUTERS_NOTE = (
    "Means over layers, sites and people; entropy in nats, ln 2 = 0.69 is "
    "undecided. To its expert: A->B at the relation, B->C at the last token and at "
    "the bridge. AUC: the chance that a right answer has a lower entropy than a "
    "wrong one; none where all answers are wrong."
)


def chosen(
    rows: pd.DataFrame, cell: Cell = Cell.R_OO
) -> dict[tuple[str, str, int, str], Reading]:
    """Returns what the gates of a cell's 2-combination chose.

    Args:
      rows: as ``schema.COLUMNS``.
      cell: the cell whose people are asked.

    Returns:
      Readings by (method, metric, layer, token); layer -1 and token "" stand for all.
    """
    # Of several coverages the highest, as in all tables.
    frame = readings.at(rows)
    frame = frame[
        (frame["seed"] == "all")
        & (frame["cell"] == cell.value)
        & (frame["library"] == Arm.PAIR.value)
        & frame["metric"].str.startswith("route: ")
    ]
    choices: dict[Any, Reading] = {}
    for row in frame.itertuples():
        where = json.loads(str(row.condition))
        key = (row.method, row.metric, where.get("layer", -1), where.get("token", ""))
        choices[key] = readings.to_reading(row)
    return choices


def routing_grid(rows: pd.DataFrame, cell: Cell = Cell.R_OO) -> Grid:
    """Returns Arrow's weight of the A->B expert on the two-hop prompt, by token.

    Args:
      rows: as ``schema.COLUMNS``.
      cell: the cell whose people are asked.
    """
    choices, arrow = chosen(rows, cell), Method.ARROW.value

    def words(metric: Metric, layer: int, token: str) -> str:
        reading = choices.get((arrow, metric.value, layer, token))
        return "–" if reading is None else reading.text()

    layers = sorted({key[2] for key in choices if key[0] == arrow and key[2] >= 0})
    body = [
        (
            f"layer {layer}",
            *(words(Metric.ROUTE_WEIGHT, layer, token) for token in TOKENS),
            words(Metric.ROUTE_ENTROPY, layer, "last"),
            words(Metric.ROUTE_AGREEMENT, layer, "relation"),
            words(Metric.ROUTE_AGREEMENT, layer, "last"),
        )
        for layer in layers
    ]
    title = f"What Arrow chooses in {cell.value}"
    return Grid(title, _ARROW_HEADER, tuple(body), _ARROW_NOTE, numeric=True)


def routers_grid(rows: pd.DataFrame, cell: Cell = Cell.R_OO) -> Grid:
    """Returns a line for each route: how sure its gate is, and whether it is right.

    Args:
      rows: as ``schema.COLUMNS``.
      cell: the cell whose people are asked.
    """
    choices = chosen(rows, cell)
    methods = dict.fromkeys(key[0] for key in choices)
    body = tuple(_router_line(method, choices) for method in methods)
    title = f"What every gate chooses in {cell.value}"
    return Grid(title, _ROUTERS_HEADER, body, _ROUTERS_NOTE, numeric=True)


def _router_line(method: str, choices: Chosen) -> tuple[str, ...]:
    def mean(metric: Metric, token: str) -> str:
        values = [
            reading.value
            for key, reading in choices.items()
            if (key[0], key[1], key[3]) == (method, metric.value, token)
            and reading.value is not None
        ]
        return f"{np.mean(values):.2f}" if values else "–"

    entropies = [mean(Metric.ROUTE_ENTROPY, token) for token in ("relation", "last")]
    right = [mean(Metric.ROUTE_AGREEMENT, t) for t in ("relation", "last", "bridge")]
    key = (method, Metric.ROUTE_CERTAINTY.value, -1, "")
    certainty = choices.get(key, Reading())
    return (method, *entropies, *right, certainty.text() if certainty.measured else "–")


def figure(rows: pd.DataFrame, cell: Cell = Cell.R_OO) -> Figure:
    """Returns heat maps of the weight of A->B, a panel a route: tokens by layers.

    Args:
      rows: as ``schema.COLUMNS``.
      cell: the cell whose people are asked.

    Raises:
      NothingToShowError: if no gate was looked at.
    """
    choices = chosen(rows, cell)
    weights = {k: r for k, r in choices.items() if k[1] == Metric.ROUTE_WEIGHT.value}
    methods = list(dict.fromkeys(key[0] for key in weights))
    if not methods:
        raise draw.NothingToShowError("No gate was looked at.")
    layers = sorted({key[2] for key in weights})
    wide = min(_WIDE, len(methods))
    high = -(-len(methods) // wide)
    # One gate is narrower than its title in one line.
    cut = "\n" if wide < 3 else " "
    title = f"Weight of the A→B expert{cut}on the two-hop prompt, {cell.value}"
    chart = draw.canvas(
        1.55 * wide + 1.2, 0.9 + (0.75 + 0.24 * len(layers)) * high, title
    )
    panels = draw.panels(chart, len(methods), _WIDE, sharex=True, sharey=True)
    for axes, method in zip(panels.flat, methods, strict=False):
        _panel(axes, weights, method, layers)
    for axes in panels[:, 0]:
        axes.set_yticks(range(len(layers)), [str(x) for x in layers], fontsize=7)
        axes.set_ylabel("layer", fontsize=8)
    colors = ScalarMappable(Normalize(0, 1), _COLORS)
    bar = chart.colorbar(colors, ax=list(panels.flat), shrink=0.6, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["B→C", "even", "A→B"], fontsize=8)
    return chart


def _panel(axes: Axes, weights: Chosen, method: str, layers: Sequence[int]) -> None:
    metric = Metric.ROUTE_WEIGHT.value
    values = np.full((len(layers), len(TOKENS)), np.nan)
    for y, layer in enumerate(layers):
        for x, token in enumerate(TOKENS):
            reading = weights.get((method, metric, layer, token))
            if reading is not None and reading.value is not None:
                values[y, x] = reading.value
    axes.imshow(values, cmap=_COLORS, vmin=0, vmax=1, aspect="auto", origin="lower")
    axes.set_title(method, fontsize=8)
    ticks = [_SHORT[token] for token in TOKENS]
    axes.set_xticks(range(len(TOKENS)), ticks, fontsize=8)
    axes.tick_params(length=0, labelbottom=True)
    # A written bridge is of another prompt than the three tokens before it.
    axes.axvline(len(TOKENS) - 1.5, color="white", linewidth=2)
    for (y, x), value in np.ndenumerate(values):
        # Numbers must be readable on both ends of the colour scale.
        ink = "white" if np.abs(value - 0.5) > 0.35 else draw.INK
        words = "" if np.isnan(value) else f"{value:.2f}"
        axes.text(x, y, words, ha="center", va="center", fontsize=5.5, color=ink)
