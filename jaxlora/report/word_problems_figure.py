"""The figures of the dial and of the law of kept skills.

Grey stands for what must fail. A filled dot is a combination with the verdict
*composes*; dotted lines are the products of the skills that a combination keeps.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxlora.evaluate.verdict import Label
from jaxlora.report import draw, points
from jaxlora.report import word_problems_readings as look
from jaxlora.report.readings import Reading
from jaxlora.report.word_problems_lines import JOINT, Shown, combined
from jaxlora.report.word_problems_readings import Book, Place

SINGLE = Shown("better expert alone", JOINT.arm, color=draw.GREYS[1], shape="s")
CHANCE, PRODUCT = "chance", "product of the skills it keeps"
COMPOSES = "filled: verdict composes"
ASIDE = 0.008
"""Distance of dots that would cover each other, as a share of an axis."""


def overlap(book: Book) -> Figure:
    """Returns the dial, and beside it longer problems at full overlap.

    Args:
      book: of a run.
    """
    places = look.dial(book)
    shown = combined(dict.fromkeys(m for p in places for m in look.methods(book, p)))
    some = [look.read(book, p, x.use) for p in places for x in shown]
    if not any(x.measured for x in some):
        raise draw.NothingToShowError("No combination was asked along the dial.")
    figure = draw.canvas(9.5, 4.9, "Problems that need two experts: share solved")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.1, 1))
    _dial(left, book, places, shown)
    _levels(right, book, places[-1], shown)
    left.set_ylabel("share of problems solved", fontsize=10)
    handles, labels = left.get_legend_handles_labels()
    dotted = Line2D([], [], color=draw.FAINT, ls="dotted", lw=1.6, label=PRODUCT)
    filled = Line2D([], [], color=draw.FAINT, marker="o", ls="", label=COMPOSES)
    some = [x for x, name in zip(handles, labels, strict=True) if name != CHANCE]
    chance = [x for x, name in zip(handles, labels, strict=True) if name == CHANCE]
    more = {"frameon": False, "fontsize": 9.5, "handlelength": 1.6}
    figure.legend(
        handles=[*some, *chance, dotted, filled],
        loc="outside lower center",
        ncols=4,
        **more,
    )
    return figure


def _dial(axes: Axes, book: Book, places: Sequence[Place], shown: Sequence[Shown]):
    x = [p.overlap for p in places]
    draw.plain(axes, "y")
    count = max(look.read(book, p, arm.use).n for p in places for arm in shown)
    title = f"two operations, one to an expert, n = {count} each"
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("overlap: share of B's rows in A's solution template", fontsize=9.5)
    axes.set_xticks(x, [f"{v:g}" for v in x])
    spread = max(x) - min(x) or 1.0
    axes.set_xlim(min(x) - 0.05 * spread, max(x) + 0.05 * spread)
    _chance(axes, x, [look.chance(book, p) for p in places])
    for i, arm in enumerate(shown):
        values = [look.read(book, p, arm.use) for p in places]
        composes = [look.label(book, p, arm.method) for p in places]
        aside = ASIDE * spread * (i - (len(shown) - 1) / 2)
        at = [v + aside for v in x]
        _line(axes, at, values, arm, [v == Label.COMPOSES for v in composes])
        _product(axes, at, [look.law(book, p, arm).product for p in places], arm)
    _line(axes, x, [look.read(book, p, JOINT.use) for p in places], JOINT)
    _line(axes, x, [look.single(book, p) for p in places], SINGLE)


def _levels(axes: Axes, book: Book, place: Place, shown: Sequence[Shown]) -> None:
    x = look.levels(book, place)
    draw.plain(axes, "y")
    words = "full overlap" if place.overlap == 1 else f"overlap {place.overlap:g}"
    axes.set_title(f"{words}, longer problems", loc="left", fontsize=10)
    axes.set_xlabel("operations, two of them new", fontsize=9.5)
    axes.set_xticks(x, [str(v) for v in x])
    axes.set_xlim(min(x) - 0.3, max(x) + 0.3)
    _chance(axes, x, [look.chance(book, place, level=v) for v in x])
    for i, arm in enumerate(shown):
        at = [v + 0.04 * (i - (len(shown) - 1) / 2) for v in x]
        values = [look.read(book, place, arm.use, level=v) for v in x]
        labels = [look.label(book, place, arm.method, v) for v in x]
        _line(axes, at, values, arm, [v == Label.COMPOSES for v in labels])
        laws = [look.law(book, place, arm, v, "in chains").product for v in x]
        _product(axes, at, laws, arm)
    _line(axes, x, [look.read(book, place, JOINT.use, level=v) for v in x], JOINT)
    _line(axes, x, [look.single(book, place, level=v) for v in x], SINGLE)


def _line(
    axes: Axes,
    x: Sequence[float],
    some: Sequence[Reading],
    shown: Shown,
    filled: Sequence[bool] | None = None,
) -> None:
    """Dots with intervals, joined; hollow ones where there is no verdict *composes*."""
    known = [i for i, r in enumerate(some) if r.measured]
    if not known:
        return
    values, lengths = points.spread([some[i] for i in known])
    at = [x[i] for i in known]
    full = [filled is None or filled[i] for i in known]
    faces = [shown.color if y else "white" for y in full]
    axes.errorbar(
        at, values, lengths, color=shown.color, lw=1.6, elinewidth=1.2, capsize=2,
        fmt=f"{shown.shape}-", markersize=5, label=shown.label,
    )  # fmt: skip
    axes.scatter(
        at, values, s=26, c=faces, edgecolors=shown.color, linewidths=1.3, zorder=5,
        marker=shown.shape,
    )  # fmt: skip


def _product(
    axes: Axes, x: Sequence[float], some: Sequence[Reading], shown: Shown
) -> None:
    known = [(v, r.value) for v, r in zip(x, some, strict=True) if r.value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), color=shown.color, ls="dotted", lw=1.6)


def _chance(axes: Axes, x: Sequence[float], some: Sequence[Reading]) -> None:
    known = [(v, r) for v, r in zip(x, some, strict=True) if r.value is not None]
    if not known:
        return
    at = [v for v, _ in known]
    low, high = zip(*(look.ends(r) for _, r in known), strict=True)
    axes.fill_between(at, low, high, color="#E3E3E3", zorder=0.5)
    values = [r.value or 0.0 for _, r in known]
    axes.plot(at, values, color=draw.INK, ls="dashed", lw=0.9, label=CHANCE)
