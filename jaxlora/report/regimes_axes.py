"""What else decides: bases that differ from the base point in one thing, in dots."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlora.evaluate.schema import Split
from jaxlora.report import draw, points, regimes_readings
from jaxlora.report.readings import Reading
from jaxlora.report.regimes_figure import BAND, MAIN
from jaxlora.report.regimes_lines import CONTROLS, JOINT, MEAN, SUM
from jaxlora.report.regimes_readings import Book, Place
from jaxlora.studies.boundary.config import AXES

POINT = "map"
PANELS = (
    (MAIN[0], Split.TWO_HOP, "direct rows,\nasked directly"),
    (MAIN[1], Split.WRITTEN, "B→C practises,\nbridge written"),
    (MAIN[2], Split.TWO_HOP, "A→B low, B→C high,\nasked directly"),
)


def axes(book: Book) -> Figure:
    """Returns mean, sum, joint LoRA and best single expert of every kind of base.

    Args:
      book: of a run.
    """
    bases = [POINT, *(x for x in names(book) if x != POINT)]
    if len(bases) < 2:
        raise draw.NothingToShowError("No base but that of the base point was asked.")
    title = "Bases that differ from the base point in one thing: accuracy on new facts"
    figure = draw.canvas(9.5, 1.7 + 0.5 * len(bases), title)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for panel, (regime, split, words) in zip(panels, PANELS, strict=True):
        draw.plain(panel, "x")
        panel.set_title(words, loc="left", fontsize=10)
        panel.set_xlabel("two-hop accuracy", fontsize=9.5)
        places = [regimes_readings.find(book, base, regime) for base in bases]
        _panel(panel, book, split, places)
    labels = ["base point" if x == POINT else x for x in bases]
    panels[0].set_yticks(range(len(bases)), labels)
    panels[0].set_ylim(len(bases) - 0.5, -0.5)
    draw.legend(figure, panels[0], 5, (BAND,))
    return figure


def names(book: Book) -> list[str]:
    """Returns the base point and the axes that were run, in the order of the run.

    Args:
      book: of a run.
    """
    known = (POINT, *AXES)
    return list(dict.fromkeys(x.base for x in book.places if x.base in known))


def _panel(panel: Axes, book: Book, split: Split, places: list[Place | None]) -> None:
    def of(read) -> list[Reading]:
        return [Reading() if x is None else read(x) for x in places]

    for y, control in enumerate(
        of(lambda x: regimes_readings.best(book, x, split, CONTROLS)[0])
    ):
        if control.measured:
            low, high = control.lo or 0.0, control.hi or control.value or 0.0
            label = BAND if y == 0 else None
            some = {"height": 0.9, "color": "#E7E7E7", "zorder": 0.5, "label": label}
            panel.barh(y, high - low, left=low, **some)
    for i, shown in enumerate((MEAN, SUM, JOINT)):
        some = of(lambda x, s=shown: regimes_readings.value(book, x, split, s))
        _dots(panel, some, 0.22 * i - 0.33, (shown.label, shown.color, shown.shape))
    alone = of(lambda x: regimes_readings.single(book, x, split))
    _dots(panel, alone, 0.33, ("best single expert", draw.GREYS[2], "s"))
    for y, reading in enumerate(alone):
        if not reading.measured:
            points.missing(panel, 0.5, y, reading)


def _dots(
    panel: Axes, some: list[Reading], aside: float, look: tuple[str, str, str]
) -> None:
    label, color, shape = look
    known = [(y, r) for y, r in enumerate(some) if r.measured]
    values, lengths = points.spread([r for _, r in known])
    marks = {"markersize": 4.5, "elinewidth": 1.3, "capsize": 2}
    panel.errorbar(
        values,
        [y + aside for y, _ in known],
        xerr=lengths,
        fmt=shape,
        color=color,
        label=label,
        **marks,
    )
