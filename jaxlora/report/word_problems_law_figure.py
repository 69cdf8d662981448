"""The law of kept skills as a scatter: products across, composites up."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlora import route
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.report import draw
from jaxlora.report import word_problems_readings as look
from jaxlora.report.word_problems_lines import title
from jaxlora.report.word_problems_ranked import CONTROL, kind
from jaxlora.report.word_problems_readings import Book, Law, LawKey

PANELS = {
    "alone": "in problems of one operation",
    "in chains": "in problems as long as the composite",
}
LEVELS = {2: draw.BLUE, 3: draw.ORANGE, 4: draw.PURPLE}
"""Colours by number of operations."""
NAMED, APART = 6, 0.11
"""How many dots have a name, and how far they are from each other."""


class Dot(NamedTuple):
    """One combination at one place and level."""

    name: str
    across: float
    up: float
    color: str
    shape: str


def law(book: Book) -> Figure:
    """Returns product and composite of every merge and route, with the diagonal.

    Args:
      book: of a run.
    """
    kinds = [x for x in PANELS if any(k.kept == x for k in _chosen(book))]
    if not kinds:
        raise draw.NothingToShowError("No law of a combination was measured.")
    figure = draw.canvas(9.5, 5.8, "Both skills, against the product of what is kept")
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kept in zip(panels, kinds, strict=True):
        axes.set_title(f"skills kept {PANELS[kept]}", loc="left", fontsize=10)
        _panel(axes, book, kept)
    panels[0].set_ylabel("share of problems that need both, solved", fontsize=9.5)
    draw.legend(figure, panels[0], 5, ("both = product",))
    return figure


def _chosen(book: Book) -> list[LawKey]:
    return [x for x in book.laws if x.kept in PANELS and book.laws[x].product.measured]


def _panel(axes: Axes, book: Book, kept: str) -> None:
    draw.plain(axes, "y")
    draw.plain(axes, "x")
    axes.grid(axis="both", color="#E4E4E4", linewidth=0.7)
    axes.set_aspect("equal")
    axes.set_xlabel("product of kept skills", fontsize=9.5)
    axes.plot([0, 1], [0, 1], color=draw.INK, lw=0.9, ls="dashed",
              label="both = product")  # fmt: skip
    keys = [x for x in _chosen(book) if x.kept == kept]
    for label, some in _series(book, keys):
        _scatter(axes, label, some)
    dial = [x for x in keys if x.place in look.dial(book) and x.level == look.LEVEL]
    for key in dial:
        if key.library == Arm.PAIR:
            _interval(axes, _dot(key, book.laws[key]), book.laws[key])
    _names(axes, [_dot(x, book.laws[x]) for x in _wanted(book, keys)])


def _series(
    book: Book, keys: Sequence[LawKey]
) -> Iterator[tuple[str, list[tuple[Dot, Law]]]]:
    """Yields merges and routes by level, controls, and the joint LoRA."""
    for level in LEVELS:
        for name, is_route in (("merge", False), ("route", True)):
            some = [
                (_dot(x, book.laws[x]), book.laws[x])
                for x in keys
                if x.library == Arm.PAIR
                and not _is_control(x)
                and x.level == level
                and (x.method in route.names()) == is_route
            ]
            yield f"{name}, {level} operations", some
    controls = [x for x in keys if _is_control(x)]
    joint = [x for x in keys if x.library == Arm.JOINT]
    for label, chosen in (("controls", controls), ("joint LoRA", joint)):
        yield label, [(_dot(x, book.laws[x]), book.laws[x]) for x in chosen]


def _is_control(key: LawKey) -> bool:
    """Random experts, and methods that only look like merges or routes."""
    if key.library == Arm.RANDOM:
        return True
    method = Method(key.method)
    return method is not Method.NONE and kind(method)[0] == CONTROL


def _dot(key: LawKey, of: Law) -> Dot:
    shape = "^" if key.method in route.names() else "o"
    color = LEVELS.get(key.level, draw.INK)
    if _is_control(key):
        color, shape = draw.GREYS[1], "x"
    elif key.library == Arm.JOINT:
        color, shape = draw.GREEN, "D"
    across, up = of.product.value or 0.0, of.composite.value or 0.0
    return Dot(_name(key), across, up, color, shape)


def _name(key: LawKey) -> str:
    words = title(Method(key.method))
    if key.place.base != look.LEADERBOARD:
        words += f", overlap {key.place.overlap:g}"
    return words if key.level == look.LEVEL else f"{words}, {key.level} operations"


def _scatter(axes: Axes, label: str, some: Sequence[tuple[Dot, Law]]) -> None:
    if not some:
        return
    dots = [x for x, _ in some]
    color, shape = dots[0].color, dots[0].shape
    xs, ys = [x.across for x in dots], [x.up for x in dots]
    axes.scatter(
        xs, ys, s=24, c=color, marker=shape, zorder=3, label=label,
        # A cross has no edge.
        edgecolors=None if shape == "x" else "white", linewidths=0.8,
    )  # fmt: skip


def _interval(axes: Axes, dot: Dot, of: Law) -> None:
    """Both intervals of a dot, thin and pale: there are many dots behind."""
    pale = {"color": dot.color, "lw": 1.0, "alpha": 0.5, "zorder": 2}
    axes.plot([dot.across] * 2, look.ends(of.composite), **pale)
    axes.plot(look.ends(of.product), [dot.up] * 2, **pale)


def _wanted(book: Book, keys: Sequence[LawKey]) -> list[LawKey]:
    """The dots that are named: the dial's first, then the farthest from the law."""
    ends = {x.overlap for x in (*look.dial(book)[:1], *look.dial(book)[-1:])}
    pairs = [x for x in keys if x.library == Arm.PAIR and x.level == look.LEVEL]
    pairs = [x for x in pairs if not _is_control(x)]
    dial = [x for x in pairs if x.place in look.dial(book) and x.place.overlap in ends]
    rest = [x for x in pairs if x.place.base == look.LEADERBOARD]
    far = sorted(rest, key=lambda x: -abs(book.laws[x].difference.value or 0.0))
    chosen: list[LawKey] = []
    for key in (*dial[::-1], *far):
        dot = _dot(key, book.laws[key])
        others = [_dot(x, book.laws[x]) for x in chosen]
        away = (math.dist((dot.across, dot.up), (x.across, x.up)) for x in others)
        if len(chosen) < NAMED and all(x > APART for x in away):
            chosen.append(key)
    return chosen


def _names(axes: Axes, dots: Sequence[Dot]) -> None:
    for dot in dots:
        # Away from the diagonal and from the edge of the panel.
        left = dot.up >= dot.across and dot.across > 0.3
        left = left or dot.across > 0.75
        above = left or dot.up < 0.12
        axes.annotate(
            dot.name, (dot.across, dot.up), fontsize=7.5, color=draw.INK,
            textcoords="offset points", xytext=(-7 if left else 7, 7 if above else -7),
            ha="right" if left else "left", va="center", zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.6},
            arrowprops={"arrowstyle": "-", "color": draw.FAINT, "lw": 0.6},
        )  # fmt: skip
