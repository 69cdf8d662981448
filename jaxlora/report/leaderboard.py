"""The leaderboard of a study: one line for each method, as words, CSV and a figure.

Everything is read from the leaderboard in ``results``, which a study computes from its
items: what is pooled and how it is judged is the study's part.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlora.files import write_text, write_whole
from jaxlora.report import draw, outcome, points
from jaxlora.report.figures import png
from jaxlora.report.grid import Grid, markdown_table
from jaxlora.report.leaderboard_lines import (
    Line,
    band,
    counted,
    learned,
    lines,
    reading,
    sees,
)
from jaxlora.report.readings import UNAVAILABLE, Reading
from jaxlora.tasks.two_hop import arrows

FIGURE = "figure-leaderboard.png"
BEGIN, END = "<!-- leaderboard:begin -->", "<!-- leaderboard:end -->"
"""Lines of a README between which the table stands; see :func:`fill`."""
_COLORS = {
    "nothing": draw.BLUE,
    "own data": draw.PURPLE,
    "target data": draw.ORANGE,
    "control": draw.GREYS[2],
}
_WORDS = (
    *("method", "kind", "data", "space", "coverage", "verdict", "p_adjusted"),
    *("three_verdict", "against", "headroom"),
)
_NUMBERS = (
    *("two_hop", "difference", "known_second_hop", "R-OO", "H-OO", "F-OO"),
    *("hop1", "hop2", "familiar", "three"),
)
_TITLES = {
    "two_hop": "two-hop",
    "difference": "above",
    "known_second_hop": "R-OI",
    "hop1": "hop 1",
    "hop2": "hop 2",
    "familiar": "familiar",
    "three": "with A->C",
}
_SHORT = ("two_hop", "hop1", "hop2", "three")
_NOTE = (
    "Two-hop accuracy where the base knows neither hop, all people of R-OO, H-OO and "
    "F-OO together, with 95% intervals. Above: the paired difference to the nearest "
    "negative control. R-OI: the base knows the second hop. Hop 1, hop 2, familiar: "
    "what the combined model keeps. With A->C: the 3-combination, whose third expert "
    "saw these people. Target data are two-hop questions of other people. Verdicts "
    "after Holm over all methods."
)
_NO_HEADROOM = (
    " No headroom: one LoRA on both fact sets falls short as well, so the methods are "
    "listed, not ranked."
)


def grid(results: Mapping[str, Any], *, short: bool = False) -> Grid:
    """Returns the leaderboard, best first, with the references below it.

    Args:
      results: as in results.json.
      short: for a terminal of 100 columns.
    """
    every = lines(results)
    methods = [line for line in every if line["kind"] != "reference"]
    names = [name for name in _TITLES if not short or name in _SHORT]
    where = ("sees",) if short else ("sees", "space")
    # Runs of version 0.1 did not note the rows.
    where += ("rows",) if any(map(_counted, every)) and not short else ()
    header = ("method", *where, *(_TITLES[name] for name in names), "verdict")

    def words(line: Line) -> tuple[str, ...]:
        first = (line["method"], *(_where(line, name) for name in where))
        values = (_shown(reading(line, name), name, short) for name in names)
        return (*first, *values, _verdict(line))

    body = [words(line) for line in methods]
    rest = [words(line) for line in every if line["kind"] == "reference"]
    # References alone would be no leaderboard.
    if rest and methods:
        body += [("For comparison",), *rest]
    note = f"{_NOTE} {counted(methods)}".strip() if body else ""
    if any(line.get("headroom") is False for line in methods):
        note += _NO_HEADROOM
    return Grid("Leaderboard of methods", header, tuple(body), note, numeric=True)


def _verdict(line: Line) -> str:
    """The verdict and what holds beside it; older runs have no remarks."""
    return ", ".join([line.get("verdict", "–"), *outcome.remarks(line, short=True)])


def to_markdown(results: Mapping[str, Any]) -> str:
    """Returns the table between two markers, as a README holds it.

    Args:
      results: as in results.json.
    """
    table = grid(results)
    text = f"{markdown_table(table)}\n\n{arrows(table.note)}"
    text = text if table.body else "No method."
    return f"{BEGIN}\n\n{text}\n\n{END}\n"


def fill(text: str, results: Mapping[str, Any]) -> str:
    """Returns a text with the leaderboard between its markers replaced.

    Args:
      text: a README with a line ``BEGIN`` and a line ``END``.
      results: as in results.json.

    Raises:
      ValueError: if the text does not have both markers, in order.
    """
    # Everything outside the markers stays, letter by letter.
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"The text needs a line {BEGIN} and, after it, a line {END}.")
    return head + to_markdown(results).rstrip("\n") + tail


def to_csv(results: Mapping[str, Any]) -> str:
    """Returns every number of the leaderboard, one line a method, as CSV.

    Args:
      results: as in results.json.
    """
    return pd.DataFrame(map(_entry, lines(results))).to_csv(index=False)


def _entry(line: Line) -> dict[str, Any]:
    entry = {name: line.get(name) for name in _WORDS}
    ends = {"": "value", "_lo": "lo", "_hi": "hi", "_n": "n"}
    for name in _NUMBERS:
        value = line.get(name) or {}
        entry |= {f"{name}{end}": value.get(key) for end, key in ends.items()}
    entry["learned_rows"] = learned(line) if _counted(line) else None
    reasons = line.get("unavailable") or {}
    return entry | {"unavailable": "; ".join(f"{k}: {v}" for k, v in reasons.items())}


def figure(results: Mapping[str, Any]) -> Figure:
    """Returns methods down, accuracy across; grey is the band of negative controls.

    Args:
      results: as in results.json.

    Raises:
      NothingToShowError: if no method was measured.
    """
    methods = [x for x in lines(results) if x["kind"] != "reference"]
    if not any(reading(line, "two_hop").measured for line in methods):
        raise draw.NothingToShowError("The results hold no leaderboard of methods.")
    title = "Two-hop accuracy of every method, where the base knows neither hop"
    chart = draw.canvas(9.5, 1.7 + 0.2 * len(methods), title)
    axes = chart.subplots()
    draw.plain(axes, "x")
    controls = band(lines(results))
    if controls:
        axes.axvspan(*controls, color="#E3E3E3", zorder=0, label="negative controls")
    for kind, color in _COLORS.items():
        _series(axes, methods, kind, color)
    _triples(axes, methods)
    axes.set_yticks(range(len(methods)), [line["method"] for line in methods])
    axes.tick_params(axis="y", labelsize=8)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_xlabel("two-hop accuracy, R-OO, H-OO and F-OO together", fontsize=9.5)
    draw.legend(chart, axes, 3)
    return chart


def save(results: Mapping[str, Any], out_dir: str | os.PathLike[str]) -> list[Path]:
    """Writes leaderboard.md, leaderboard.csv and the figure, if there are lines.

    Args:
      results: as in results.json.
      out_dir: the folder of the run.

    Returns:
      The path of the figure, in a list; empty if nothing was measured.
    """
    if not lines(results):
        return []
    out = Path(out_dir)
    write_text(out / "leaderboard.md", to_markdown(results))
    write_text(out / "leaderboard.csv", to_csv(results))
    return [write_whole(out / name, data) for name, data in render(results).items()]


def charts(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Returns the figure by its file name; empty if no method was measured.

    Args:
      results: as in results.json.
    """
    try:
        return {FIGURE: figure(results)}
    except draw.NothingToShowError:
        return {}


def render(results: Mapping[str, Any]) -> dict[str, bytes]:
    """Returns ``{file name: PNG}``, empty if no method was measured.

    Args:
      results: as in results.json.
    """
    return {name: png(chart) for name, chart in charts(results).items()}


def _series(axes: Axes, methods: Sequence[Line], kind: str, color: str):
    mine = [(y, line) for y, line in enumerate(methods) if sees(line) == kind]
    shown = [(y, reading(line, "two_hop")) for y, line in mine]
    if shown:
        label = kind if kind == "control" else f"merge or route that sees {kind}"
        points.dots(axes, [y for y, _ in shown], [r for _, r in shown], color, label)


def _triples(axes: Axes, methods: Sequence[Line]) -> None:
    """Circles for the 3-combination, whose third expert holds the answers."""
    triples = [reading(line, "three") for line in methods]
    values, _ = points.spread(triples)
    label = "with an A→C expert that saw these people"
    circle = {"s": 22, "facecolors": "none", "edgecolors": draw.RED, "linewidths": 1.1}
    axes.scatter(values, range(len(methods)), zorder=3, label=label, **circle)
    for y, triple in enumerate(triples):
        axes.axhline(y, color="#F0F0F0", linewidth=0.6, zorder=0)
        if triple.status == UNAVAILABLE:
            points.missing(axes, 0.9, y, triple)


def _shown(number: Reading, name: str, short: bool) -> str:
    """Intervals where a verdict looks; the CSV has all of them."""
    if short:
        return number.short()
    if name not in ("two_hop", "difference", "three"):
        number = dataclasses.replace(number, lo=None, hi=None)
    return number.text()


def _where(line: Line, name: str) -> str:
    if line["kind"] == "reference":
        return "–"
    if name == "rows":
        return learned(line)
    return line["space"] if name == "space" else sees(line)


def _counted(line: Line) -> bool:
    return bool(line.get("learned_rows"))
