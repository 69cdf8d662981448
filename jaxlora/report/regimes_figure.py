"""The figure of regimes: every arm as a dot with its interval, regime beside regime.

Grey stands for what must fail. The band of a regime is the interval of its best
negative control, the dark line below it chance.
"""

from collections.abc import Sequence
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlora.evaluate.schema import Split
from jaxlora.report import draw, points, regimes_readings
from jaxlora.report.regimes_lines import CONTROLS, MEAN, SHOWN, SUM, Shown
from jaxlora.report.regimes_readings import ASKS, IDENTITY, Book, Place
from jaxlora.studies.boundary import regimes

Group: TypeAlias = tuple[Place, Split]
MAIN = ("direct", f"bridge rows {regimes.RHO:g}", "both practise", "placed")
"""Regimes of the study's answer."""
LEFT_OUT = ((MAIN[1], Split.TWO_HOP), (MAIN[3], Split.WRITTEN))
"""Of these, what the figure has no room for; the tables show it."""
VARIANTS = (*MAIN[:2], *(x.name for x in regimes.variants()))
_WIDTH = 0.8
BAND, CHANCE = "best negative control", "chance"


def groups(book: Book, names: Sequence[str], splits: Sequence[Split]) -> list[Group]:
    """Returns the regimes that were asked, in each way, on the main base.

    Args:
      book: of a run.
      names: of regimes.
      splits: ways of asking.
    """
    # Variants of rows are asked on the map alone.
    bases = (book.main, "map") if names is not MAIN else (book.main,)
    chosen: list[Group] = []
    for name in names:
        places = (regimes_readings.find(book, base, name) for base in reversed(bases))
        place = next(filter(None, places), None)
        chosen += [(place, split) for split in splits if place]
    return chosen


def regimes(book: Book) -> Figure:
    """Returns the page-wide figure of the main regimes.

    Args:
      book: of a run.
    """
    every = groups(book, MAIN, tuple(ASKS))
    chosen = [x for x in every if (x[0].regime, x[1]) not in LEFT_OUT]
    title = f"Two experts, one question: accuracy on new facts ({of_base(book.main)})"
    return _figure(book, chosen, title, 5.0)


def variants(book: Book) -> Figure:
    """Returns who practises in which form, with the bridge written.

    Args:
      book: of a run.
    """
    chosen = groups(book, VARIANTS, (Split.WRITTEN,))
    if all(place.regime in MAIN[:2] for place, _ in chosen):
        raise draw.NothingToShowError("No variant of the rows was asked.")
    title = "Who practises, and in which rows: bridge written, new facts"
    return _figure(book, chosen, title, 4.6)


def of_base(name: str) -> str:
    """Returns what a kind of base is called in titles.

    Args:
      name: of the base.
    """
    return {"headline": "headline bases", "map": "bases of the map"}.get(name, name)


def _figure(book: Book, chosen: Sequence[Group], title: str, height: float) -> Figure:
    kept = [x for x in SHOWN if any(_of(book, g, x).measured for g in chosen)]
    if not kept:
        raise draw.NothingToShowError(f"No pooled accuracy for {title!r}.")
    counts = {_of(book, g, MEAN).n for g in chosen} - {0}
    title += f", n = {counts.pop()} each" if len(counts) == 1 else ""
    figure = draw.canvas(9.5, height, title)
    axes = figure.subplots()
    draw.plain(axes, "y")
    for x, group in enumerate(chosen):
        _scale(axes, book, x, group)
    for i, shown in enumerate(kept):
        at = (i + 0.5) / len(kept) - 0.5
        _dots(axes, book, chosen, shown, at * _WIDTH)
    for x, group in enumerate(chosen):
        _judged(axes, book, x, group)
    both = len({split for _, split in chosen}) > 1
    axes.set_xticks(range(len(chosen)), [_name(*group, both) for group in chosen])
    axes.tick_params(axis="x", labelsize=9 if len(chosen) < 7 else 8)
    axes.set_xlim(-0.5, len(chosen) - 0.5)
    axes.set_ylim(-0.03, 1.19)
    axes.set_ylabel("two-hop accuracy", fontsize=10)
    entries = len(kept) + 2
    columns = -(-entries // (2 if entries > 6 else 1))
    draw.legend(figure, axes, columns, (BAND, CHANCE))
    return figure


def _of(book: Book, group: Group, shown: Shown):
    return regimes_readings.value(book, *group, shown)


def _name(place: Place, split: Split, both: bool) -> str:
    """The regime in two or three short lines."""
    words = place.words.replace("->", "→")
    for cut in (" practises", " low, ", " in ", " with "):
        words = words.replace(cut, f"{cut.rstrip()}\n".replace(" \n", "\n"), 1)
    words = words.replace("\n(", "\n(").replace("practises\n (", "practises\n(")
    return f"{words}\n{ASKS[split]}" if both else words


def _scale(axes: Axes, book: Book, x: float, group: Group) -> None:
    """The band of the best control, and chance; one label each."""
    first = x == 0
    reading, _ = regimes_readings.best(book, *group, CONTROLS)
    if reading.measured:
        low, high = reading.lo or 0.0, reading.hi or reading.value or 0.0
        place = {"x": x, "width": 0.94, "color": "#E7E7E7", "zorder": 0.5}
        axes.bar(height=high - low, bottom=low, label=BAND if first else None, **place)
    chance = regimes_readings.chance(book, *group).value
    if chance is not None:
        ends = (x - 0.47, x + 0.47)
        # matplotlib leaves labels that begin with an underscore out of legends.
        label = CHANCE if first else "_"
        axes.hlines([chance], *ends, draw.INK, "dashed", lw=0.9, label=label)


def _dots(
    axes: Axes, book: Book, chosen: Sequence[Group], shown: Shown, aside: float
) -> None:
    readings = [_of(book, group, shown) for group in chosen]
    places = [x + aside for x, r in enumerate(readings) if r.measured]
    values, lengths = points.spread([r for r in readings if r.measured])
    axes.errorbar(
        places,
        values,
        lengths,
        fmt=shown.shape,
        color=shown.color,
        markersize=5,
        elinewidth=1.3,
        capsize=2,
        label=shown.label.replace("->", "→"),
    )


def _judged(axes: Axes, book: Book, x: float, group: Group) -> None:
    """The verdicts on mean and sum, above a regime; and where nobody measured."""
    place, _ = group
    labels = [(x, regimes_readings.label(book, *group, x)) for x in (MEAN, SUM)]
    # The verdict of that regime is on the pair without identity rows.
    lines = [x for x in labels if x[1] and place.regime != IDENTITY]
    for i, (shown, label) in enumerate(lines):
        weight = "bold" if label.startswith("composes") else "normal"
        words = f"{shown.label}: {label}"
        style = {"ha": "center", "va": "center", "fontsize": 8, "color": shown.color}
        axes.text(x, 1.145 - 0.06 * i, words, fontweight=weight, **style)
    if not _of(book, group, MEAN).measured:
        points.missing(axes, x, 0.5, _of(book, group, MEAN))
