"""Figures of the theory study: closed forms as lines in bands, measurements as dots."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlora.report import draw
from jaxlora.theory import arc_cosine

Outcome: TypeAlias = Mapping[str, Any]
"""A prediction and its measurement, as results.json holds them."""

COLORS = (draw.BLUE, draw.RED, draw.GREEN, draw.ORANGE, draw.PURPLE, draw.SKY)


def _of(results: Mapping[str, Any], program: str, item: str = "") -> list[Outcome]:
    """The outcomes of a program whose item begins with ``item``."""
    return [
        x
        for x in results["outcomes"]
        if x["condition"]["program"] == program and x["item"].startswith(item)
    ]


def _axes(axes: Axes, title: str, x: str, y: str) -> None:
    draw.plain(axes, "y")
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x, fontsize=9.5)
    axes.set_ylabel(y, fontsize=9.5)


def _curve(axes: Axes, x: Sequence[float], points: Sequence[Outcome], color, label):
    """The predicted values as a line in their band, the measured ones as dots."""
    low, high = [o["lo"] for o in points], [o["hi"] for o in points]
    axes.fill_between(x, low, high, color=color, alpha=0.12, lw=0)
    predicted = [o["predicted"] for o in points]
    axes.plot(x, predicted, color=color, lw=1.2, label=f"{label}, predicted")
    values = [o["value"] for o in points]
    # matplotlib wants lengths, and none below 0 from rounding.
    below = [max(o["value"] - o["value_lo"], 0.0) for o in points]
    above = [max(o["value_hi"] - o["value"], 0.0) for o in points]
    marks = {"fmt": "o", "ms": 4.5, "elinewidth": 1, "capsize": 2, "color": color}
    axes.errorbar(x, values, [below, above], label=f"{label}, measured", **marks)


def predicted(results: Mapping[str, Any]) -> Figure:
    """Returns every prediction against its measurement.

    Args:
      results: of the theory study, as in results.json.
    """
    figure = draw.canvas(7.2, 6.6, "Predicted against measured")
    axes = figure.subplots()
    _axes(axes, "", "predicted", "measured")
    axes.fill_between([0, 1], [-0.1, 0.9], [0.1, 1.1], color="#EDEDED", lw=0)
    axes.plot([0, 1], [0, 1], color=draw.INK, lw=0.8, ls="dashed")
    programs = dict.fromkeys(x["condition"]["program"] for x in results["outcomes"])
    styles = zip(itertools.cycle("osD^vPX"), itertools.cycle(COLORS), strict=False)
    for program, (shape, color) in zip(programs, styles, strict=False):
        points = _of(results, program)
        x, y = [p["predicted"] for p in points], [p["value"] for p in points]
        axes.plot(x, y, shape, color=color, ms=5, alpha=0.75, label=program)
    failed = [x for x in results["outcomes"] if not x["held"]]
    if failed:
        x, y = [o["predicted"] for o in failed], [o["value"] for o in failed]
        axes.plot(x, y, "o", mfc="none", color=draw.INK, ms=11, label="failed")
    axes.set_xlim(-0.015, 1.03)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    return figure


def edits(results: Mapping[str, Any]) -> Figure:
    """Returns recall against the number of edits, and against their rank.

    Args:
      results: of the theory study, as in results.json.
    """
    figure = draw.canvas(9.5, 7.2, "Recall against number of edits, and against rank")
    panels = figure.subplots(2, 2)
    sizes = dict.fromkeys(x["condition"]["hidden"] for x in _of(results, "capacity"))
    kinds = ("outer products", "least squares")
    for axes, kind in zip(panels[0], kinds, strict=True):
        _axes(axes, f"N facts stored by {kind}", "facts N", "recall")
        for color, hidden in zip(COLORS, sizes, strict=False):
            every = _of(results, "capacity", kind)
            points = [x for x in every if x["condition"]["hidden"] == hidden]
            x = [o["condition"]["facts"] for o in points]
            _curve(axes, x, points, color, f"M = {hidden}")
        axes.set_xscale("log", base=2)
        axes.legend(frameon=False, fontsize=8.5)
    _interference(panels[1, 0], _of(results, "interference"))
    _ranks(panels[1, 1], results)
    return figure


def _ranks(axes: Axes, results: Mapping[str, Any]) -> None:
    _axes(axes, "N facts in one edit of rank R", "rank R", "recall")
    every = _of(results, "low-rank")
    widths = dict.fromkeys(o["condition"]["width"] for o in every)
    kinds = [(kind, d) for kind in ("adding", "overwriting") for d in widths]
    for color, (kind, width) in zip(COLORS, kinds, strict=False):
        points = [
            o
            for o in every
            if o["item"].startswith(kind) and o["condition"]["width"] == width
        ]
        ranks = [int(o["item"].rpartition(" ")[2]) for o in points]
        _curve(axes, ranks, points, color, f"{kind}, D = {width}")
    axes.set_xscale("log", base=2)
    axes.legend(frameon=False, fontsize=7, loc="upper left")


def _interference(axes: Axes, points: Sequence[Outcome]) -> None:
    _axes(axes, "Facts that were not edited", "edits N / features M", "still answered")
    x = [o["condition"]["facts"] / o["condition"]["hidden"] for o in points]
    _curve(axes, x, points, draw.BLUE, "kept")
    axes.legend(frameon=False, fontsize=8.5)


def gap(results: Mapping[str, Any]) -> Figure:
    """Returns the composition gap, and what edits made apart recall, by overlap.

    Args:
      results: of the theory study, as in results.json.
    """
    figure = draw.canvas(9.5, 4.1, "What overlap of keys does")
    left, right = figure.subplots(1, 2)
    what = "kept hops minus two-hop accuracy"
    _axes(left, "Composition gap of the sum", "cosine of bridge and person", what)
    points = _of(results, "alike", "composed")
    sizes = dict.fromkeys(x["condition"]["people"] for x in points)
    for color, people in zip(COLORS, sizes, strict=False):
        mine = [o for o in points if o["condition"]["people"] == people]
        x = [o["condition"]["alike"] for o in mine]
        _curve(left, x, [_gap(results, o) for o in mine], color, f"N = {people}")
    left.legend(frameon=False, fontsize=8.5)
    _axes(right, "N edits made apart", "overlap k of two keys", "recall")
    points = _of(results, "apart", "together")
    _curve(right, [_overlap(o) for o in points], points, draw.GREEN, "new answer")
    right.axvline(0.5, color=draw.INK, lw=0.8, ls="dashed")
    right.legend(frameon=False, fontsize=8.5)
    return figure


PLACES = ("placed", "halves, sum", "placed, mean", "halves, mean", "reversed")
"""Placements whose two-hop accuracy is drawn; the base's beside them."""


def placed(results: Mapping[str, Any]) -> Figure:
    """Returns two-hop accuracy by the gain of the second layer, for each placement.

    Args:
      results: of the theory study, as in results.json.
    """
    figure = draw.canvas(8.2, 4.6, "Two layers: where the edits are")
    axes = figure.subplots()
    _axes(axes, "", "gain of what the first layer wrote", "answers 'X R1 R2'")
    every = _of(results, "placed")
    # One size, the one that was asked at most gains; nothing stale.
    fresh = [o for o in every if o["condition"]["stale"] == 0]
    sizes = [o["condition"]["width"] for o in fresh]
    most = max(sizes, key=sizes.count, default=0)
    for color, place in zip(COLORS, (*PLACES, "base"), strict=False):
        points = sorted(
            (
                o
                for o in fresh
                if o["item"] == f"{place}: composed" and o["condition"]["width"] == most
            ),
            key=lambda o: o["condition"]["gain"],
        )
        _curve(axes, [o["condition"]["gain"] for o in points], points, color, place)
    axes.legend(frameon=False, fontsize=8, ncols=2)
    return figure


def _gap(results: Mapping[str, Any], outcome: Outcome) -> dict[str, float]:
    """The gap of one case: what its worse hop keeps, less what is composed."""
    hops = [
        o["value"]
        for o in _of(results, "alike", "hop")
        if o["condition"] == outcome["condition"]
    ]
    # Both hops are needed, so the worse of them bounds what can be composed.
    kept = min(hops, default=1.0)
    return {
        "predicted": 1 - outcome["predicted"],
        "lo": 1 - outcome["hi"],
        "hi": 1 - outcome["lo"],
        "value": kept - outcome["value"],
        "value_lo": kept - outcome["value_hi"],
        "value_hi": kept - outcome["value_lo"],
    }


def _overlap(outcome: Outcome) -> float:
    square = outcome["condition"]["strength"] ** 2
    return float(arc_cosine(square / (1 + square)))


FIGURES: dict[str, Callable[[Mapping[str, Any]], Figure]] = {
    "figure-predicted.png": predicted,
    "figure-edits.png": edits,
    "figure-gap.png": gap,
    "figure-placed.png": placed,
}
