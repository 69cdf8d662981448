"""Figures and page of the theory study: what was predicted beside what was measured."""

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlora.io.files import write_whole
from jaxlora.report import draw
from jaxlora.report.figures import png
from jaxlora.report.grid import Grid
from jaxlora.report.templates import template
from jaxlora.theory import CLAIMS, arc_cosine

Outcome: TypeAlias = Mapping[str, Any]

COLORS = (draw.BLUE, draw.RED, draw.GREEN, draw.ORANGE, draw.PURPLE, draw.SKY)
WORDS = {True: "held", False: "failed", None: "–"}


def _of(results: Mapping[str, Any], program: str, item: str = "") -> list[Outcome]:
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
    below = [max(o["value"] - o["value_lo"], 0.0) for o in points]
    above = [max(o["value_hi"] - o["value"], 0.0) for o in points]
    marks = {"fmt": "o", "ms": 4.5, "elinewidth": 1, "capsize": 2, "color": color}
    axes.errorbar(x, values, [below, above], label=f"{label}, measured", **marks)


def predicted(results: Mapping[str, Any]) -> Figure:
    """Returns every prediction against its measurement."""
    figure = draw.canvas(7.2, 6.6, "Predicted against measured")
    axes = figure.subplots()
    _axes(axes, "", "predicted", "measured")
    axes.fill_between([0, 1], [-0.1, 0.9], [0.1, 1.1], color="#EDEDED", lw=0)
    axes.plot([0, 1], [0, 1], color=draw.INK, lw=0.8, ls="dashed")
    programs = dict.fromkeys(x["condition"]["program"] for x in results["outcomes"])
    marks = "osD^vPX"
    for i, program in enumerate(programs):
        points = _of(results, program)
        axes.plot(
            [x["predicted"] for x in points],
            [x["value"] for x in points],
            marks[i % len(marks)],
            color=COLORS[i % len(COLORS)],
            ms=5,
            alpha=0.75,
            label=program,
        )
    failed = [x for x in results["outcomes"] if not x["held"]]
    if failed:
        x, y = [o["predicted"] for o in failed], [o["value"] for o in failed]
        axes.plot(x, y, "o", mfc="none", color=draw.INK, ms=11, label="failed")
    axes.set_xlim(-0.015, 1.03)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    return figure


def edits(results: Mapping[str, Any]) -> Figure:
    """Returns recall against the number of edits, and against their rank."""
    figure = draw.canvas(9.5, 7.2, "Recall against number of edits, and against rank")
    panels = figure.subplots(2, 2)
    sizes = dict.fromkeys(x["condition"]["hidden"] for x in _of(results, "capacity"))
    kinds = ("outer products", "least squares")
    for axes, kind in zip(panels[0], kinds, strict=True):
        _axes(axes, f"N facts stored by {kind}", "facts N", "recall")
        for color, hidden in zip(COLORS, sizes, strict=False):
            points = [
                x
                for x in _of(results, "capacity", kind)
                if x["condition"]["hidden"] == hidden
            ]
            x = [o["condition"]["facts"] for o in points]
            _curve(axes, x, points, color, f"M = {hidden}")
        axes.set_xscale("log", base=2)
        axes.legend(frameon=False, fontsize=8.5)
    _interference(panels[1, 0], _of(results, "interference"))
    axes = panels[1, 1]
    _axes(axes, "N facts in one edit of rank R", "rank R", "recall")
    for color, kind in zip(COLORS, ("adding", "overwriting"), strict=False):
        points = _of(results, "low-rank", kind)
        ranks = [int(o["item"].rpartition(" ")[2]) for o in points]
        _curve(axes, ranks, points, color, kind)
    axes.set_xscale("log", base=2)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return figure


def _interference(axes: Axes, points: Sequence[Outcome]) -> None:
    _axes(axes, "Facts that were not edited", "edits N / features M", "still answered")
    x = [o["condition"]["facts"] / o["condition"]["hidden"] for o in points]
    _curve(axes, x, points, draw.BLUE, "kept")
    axes.legend(frameon=False, fontsize=8.5)


def gap(results: Mapping[str, Any]) -> Figure:
    """Returns the composition gap, and what edits made apart recall, by overlap."""
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


def _gap(results: Mapping[str, Any], outcome: Outcome) -> dict[str, float]:
    """The gap of one case: what its worse hop keeps, less what is composed."""
    hops = [
        o["value"]
        for o in _of(results, "alike", "hop")
        if o["condition"] == outcome["condition"]
    ]
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
}


def save(results: Mapping[str, Any], out: str | os.PathLike[str]) -> list[Path]:
    """Writes every figure, each whole or not at all."""
    images = {name: png(make(results)) for name, make in FIGURES.items()}
    return [write_whole(Path(out) / name, data) for name, data in images.items()]


def claim_grid(results: Mapping[str, Any]) -> Grid:
    """Returns one line a claim: how many predictions held, and the one furthest off."""
    body = []
    for claim in CLAIMS:
        mine = [x for x in results["outcomes"] if x["claim"] == claim.name]
        if mine:
            worst = max(mine, key=lambda x: abs(x["value"] - x["predicted"]))
            held = f"{sum(x['held'] for x in mine)} of {len(mine)}"
            far = f"{worst['item']}: {worst['predicted']:.3f}, got {worst['value']:.3f}"
            body.append((claim.name, claim.statement, held, far))
    header = ("claim", "statement", "held", "furthest from its prediction")
    return Grid("Claims", header, tuple(body))


def outcome_grid(results: Mapping[str, Any]) -> Grid:
    """Returns one line a prediction."""
    header = ("asked", "sizes", "predicted", "interval", "measured", "n", "outcome")
    return Grid("Every prediction", header, tuple(_lines(results["outcomes"])))


def decoder_grid(results: Mapping[str, Any]) -> Grid:
    """Returns one line for each thing that was asked of trained decoders."""
    body = tuple(_lines(results["decoder"]))
    header = ("asked", "sizes", "predicted", "interval", "measured", "n", "outcome")
    bases = next((x["bases"] for x in results["decoder"]), [])
    note = "; ".join([*(f"base: {name}" for name in bases), *results["decoder_notes"]])
    return Grid("Trained decoders", header, body, note)


def _lines(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, ...]]:
    claim = ""
    for x in outcomes:
        if x["claim"] != claim:
            claim = x["claim"]
            yield (claim,)
        sizes = {k: v for k, v in x.get("condition", {}).items() if k != "program"}
        words = ", ".join(f"{k} {v:g}" for k, v in sizes.items() if v)
        if x["value"] is None:
            yield (x["item"], words, "–", "–", "unavailable", "–", "–")
            continue
        spread = f"{x['value']:.3f} [{x['value_lo']:.2f}, {x['value_hi']:.2f}]"
        known = x["predicted"] is not None
        wanted = f"{x['predicted']:.3f}" if known else "–"
        ends = f"{x['lo']:.2f} to {x['hi']:.2f}" if known else "–"
        outcome = WORDS[x["held"]]
        yield (x["item"], words, wanted, ends, spread, str(x["n"]), outcome)


def headline(results: Mapping[str, Any]) -> str:
    """Returns the outcome in one sentence.

    >>> headline({"held": 3, "judged": 3})
    'All 3 predictions held.'
    """
    held, judged = results["held"], results["judged"]
    if held == judged:
        return f"All {judged} predictions held."
    return f"{held} of {judged} predictions held, {judged - held} failed."


def write(
    results: Mapping[str, Any], out: str | os.PathLike[str], images: Sequence[Path]
) -> Path:
    """Writes report.html, whole or not at all, and returns its path."""
    page = template("theory.html.jinja").render(
        headline=headline(results),
        failed=[
            x for x in [*results["outcomes"], *results["decoder"]] if x["held"] is False
        ],
        claims=claim_grid(results),
        texts=CLAIMS,
        outcomes=outcome_grid(results),
        decoder=decoder_grid(results),
        figures={
            path.name: base64.b64encode(path.read_bytes()).decode() for path in images
        },
        results=results,
        config=json.dumps(results["config"], indent=2, sort_keys=True),
    )
    return write_whole(Path(out) / "report.html", page.encode("utf-8"))
