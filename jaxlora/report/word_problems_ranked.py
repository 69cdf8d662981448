"""Every merge and route at full overlap: what it keeps, and whether the law holds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxlora import merge, route
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.report import leaderboard_lines
from jaxlora.report import word_problems_readings as look
from jaxlora.report.grid import Grid
from jaxlora.report.readings import Reading
from jaxlora.report.word_problems_laws import KEPT, NOTE, ratio, short
from jaxlora.report.word_problems_lines import Shown, title
from jaxlora.report.word_problems_readings import Book, Law, Place

CONTROL = "control"


class Ranked(NamedTuple):
    """One method of the leaderboard."""

    method: Method
    kind: str
    """Merge, route, or a control: what looks like one and knows nothing."""
    sees: str
    """Which data it needs."""
    value: Reading
    random: Reading
    above: Reading
    p: float | None
    kept: tuple[Reading, ...]
    law: Law


def kind(method: Method) -> tuple[str, str]:
    """Returns whether a method is a merge, a route or a control, and what it sees.

    Args:
      method: any but none.

    >>> kind(Method.TIES), kind(Method.RANDOM_MEAN)[0]
    (('merge', 'nothing'), 'control')
    """
    if str(method) in route.names():
        about = route.describe(str(method))
        data = "target" if about.data == "labels" else about.data
        name = CONTROL if about.source == "control" else "route"
    else:
        data = merge.preset(str(method)).data
        name = CONTROL if merge.describe(str(method)).control else "merge"
    return name, leaderboard_lines.SEES[data]


def ranked(book: Book, *, controls: bool = False) -> list[Ranked]:
    """Returns the methods of the leaderboard, best first.

    Args:
      book: of a run.
      controls: controls instead of methods.
    """
    place = next(iter(look.dial(book, look.LEADERBOARD)), None)
    if place is None:
        return []
    some = [_ranked(book, place, x) for x in book.leaderboard]
    kept = [x for x in some if (x.kind == CONTROL) == controls]
    return sorted(kept, key=lambda x: -(x.value.value or 0.0))


def _ranked(book: Book, place: Place, x: Mapping[str, Any]) -> Ranked:
    method = Method(x["method"])
    shown = Shown(title(method), Arm.PAIR, method)
    return Ranked(
        method,
        *kind(method),
        value=look.of_record(x["value"]),
        random=look.read(book, place, (Arm.RANDOM, method)),
        above=look.of_record(x["above mean"]),
        p=x["p_adjusted"],
        kept=tuple(look.read(book, place, shown.use, y, 1) for y in KEPT["alone"]),
        law=look.law(book, place, shown),
    )


def leaderboard_grid(book: Book) -> Grid:
    """Returns every merge and route, with what it keeps and whether the law holds.

    Args:
      book: of a run.
    """
    body = [_line(x) for x in ranked(book)]
    controls = [_line(x) for x in ranked(book, controls=True)]
    body += [("Controls",), *controls] if controls else []
    header = ("method", "kind", "sees", "both skills", "random experts", "above mean")
    header += ("p", "kept A", "kept B", "product", "ratio")
    note = (
        "Full overlap, two operations. Random experts: of the same norms, under the "
        "same method. Above mean: paired; p after Holm over all lines. "
    )
    note = f"{note}{NOTE}{_left_out(book)}" if body else ""
    return Grid("Leaderboard of merges and routes", header, tuple(body), note, True)


def _left_out(book: Book) -> str:
    mine = [x for x in book.refused if x["base"] == look.LEADERBOARD]
    reasons = dict.fromkeys(f"{x['method']} ({x['reason']})" for x in mine)
    return f" Left out: {'; '.join(reasons)}." if reasons else ""


def _line(x: Ranked) -> tuple[str, ...]:
    p = "–" if x.p is None else f"{x.p:.3f}"
    words = (title(x.method), x.kind, x.sees, x.value.text(), short(x.random))
    kept = map(short, x.kept)
    return (*words, x.above.text(), p, *kept, x.law.product.text(), ratio(x.law).text())
