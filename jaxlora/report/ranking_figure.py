"""The figure of the ranking: every method down, one panel for each place.

Methods stand in one order in all panels, that of the first, so that a line of the
figure is a method. Crosses are random experts under the same method; the green band is
one LoRA on both fact sets.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlora.report import draw, points
from jaxlora.report.ranking_lines import BOUND, CONTROL, REFERENCE, Line, Ranking

_COLORS = {
    "nothing": draw.BLUE,
    "own data": draw.PURPLE,
    "target data": draw.ORANGE,
    CONTROL: draw.GREYS[2],
    BOUND: draw.GREEN,
}
_LABELS = {CONTROL: "control: no method", BOUND: "bound: searched route"}


def figure(rankings: Sequence[Ranking]) -> Figure:
    """Returns methods down, in the order of the first place; one panel a place.

    Args:
      rankings: of every place.
    """
    order = _order(rankings)
    title = "Two-hop accuracy of every merge and route"
    chart = draw.canvas(6.0, 1.6 + 0.135 * len(order), title)
    panels = chart.subplots(1, len(rankings), squeeze=False, sharey=True)[0]
    for axes, ranking in zip(panels, rankings, strict=True):
        draw.plain(axes, "x")
        axes.set_title(_title(ranking), loc="left", fontsize=8.5)
        axes.set_xlabel("two-hop accuracy", fontsize=8.5)
        axes.tick_params(labelsize=7.5)
        _panel(axes, ranking, order)
    panels[0].set_yticks(range(len(order)), order)
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    draw.legend(chart, panels[0], 2)
    return chart


def _order(rankings: Sequence[Ranking]) -> list[str]:
    """Methods by their value at the first place that has them; the bound is last."""
    values: dict[str, tuple[bool, float]] = {}
    for x in (x for ranking in rankings for x in ranking.lines):
        if x.kind != REFERENCE:
            here = (x.kind == BOUND, -(x.composed.value or 0.0))
            values.setdefault(x.method, here)
    return sorted(values, key=lambda name: values[name])


def _title(ranking: Ranking) -> str:
    lacks = "\nno headroom: not ranked" if ranking.headroom is False else "\n"
    return ranking.place.title.replace(", ", ",\n", 1) + lacks


def _panel(axes: Axes, ranking: Ranking, order: Sequence[str]) -> None:
    for y in range(0, len(order), 2):
        axes.axhspan(y - 0.5, y + 0.5, color="#F6F6F6", zorder=0)
    joint, chance = ranking.joint, ranking.chance
    if joint.measured:
        axes.axvspan(joint.lo or 0, joint.hi or 0, color="#D9EFE6", zorder=0.5)
        label = "one LoRA on both fact sets"
        axes.axvline(joint.value or 0, color=draw.GREEN, lw=1, label=label)
    places = {name: y for y, name in enumerate(order)}
    methods = [x for x in ranking.lines if x.kind != REFERENCE]
    for sees, color in _COLORS.items():
        mine = [x for x in methods if _series(x) == sees]
        if mine:
            label = f"needs {sees}" if mine[0].ranks else _LABELS[sees]
            y = [places[x.method] for x in mine]
            points.dots(axes, y, [x.composed for x in mine], color, label)
    _randoms(axes, methods, places)
    if chance.measured:
        axes.axvline(chance.value or 0, color=draw.INK, ls="dashed", lw=0.9,
                     label="chance")  # fmt: skip


def _series(x: Line) -> str:
    return x.sees if x.ranks else x.kind


def _randoms(axes: Axes, methods: Sequence[Line], places: dict[str, int]) -> None:
    """Random experts under each method: small, they stand behind."""
    known = [x for x in methods if x.random.measured]
    values = [x.random.value or 0.0 for x in known]
    y = [places[x.method] for x in known]
    cross = {"marker": "x", "s": 11, "color": draw.FAINT, "linewidths": 0.8}
    axes.scatter(values, y, zorder=1.5, label="random experts, same method", **cross)
