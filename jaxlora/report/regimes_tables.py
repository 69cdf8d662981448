"""Tables of the boundary study: regimes, every place, cells, verdicts, criteria."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxlora.evaluate.predictions import Ending
from jaxlora.evaluate.schema import Cell, Split
from jaxlora.evaluate.verdict import Label
from jaxlora.report import outcome, readings, regimes_figure, regimes_readings
from jaxlora.report.grid import Grid
from jaxlora.report.regimes_figure import Group
from jaxlora.report.regimes_lines import CONTROLS, JOINT, MEAN, SHOWN, SUM, Shown
from jaxlora.report.regimes_readings import ASKS, Book, Place

_POOLED = "Accuracy on new facts, pooled over cells and seeds, with 95% intervals"
ENDINGS = (Ending.HELD, Ending.FAILED, Ending.UNDECIDED, Ending.NOT_MEASURED)


def regime_grid(book: Book, *, short: bool = False) -> Grid:
    """Returns the table of regimes: arms down, ways of asking across.

    Args:
      book: of a run.
      short: 11 characters a value, so that six columns fit a terminal.
    """
    chosen = regimes_figure.groups(book, regimes_figure.MAIN, tuple(ASKS))
    body: list[tuple[str, ...]] = []
    for shown in SHOWN:
        some = [regimes_readings.value(book, *group, shown) for group in chosen]
        if any(x.status != readings.ABSENT for x in some):
            body.append((shown.label, *(_text(x, short) for x in some)))
    some = [regimes_readings.best(book, *group, CONTROLS) for group in chosen]
    body.append(("best negative control", *(_text(x, short) for x, _ in some)))
    body.append(("which", *(_use(use) for _, use in some)))
    chances = (regimes_readings.chance(book, *group).value for group in chosen)
    body.append(("chance", *("–" if x is None else f"{x:.2f}" for x in chances)))
    counts = (regimes_readings.value(book, *group, MEAN).n for group in chosen)
    body.append(("n", *(str(n or "–") for n in counts)))
    verdicts = (_labels(book, *group) for group in chosen)
    body.append(("verdicts, mean / sum", *verdicts))
    header = ("", *(f"{place.words}, {ASKS[split]}" for place, split in chosen))
    where = regimes_figure.of_base(book.main)
    note = f"{_POOLED}; {where}. Best of several: chosen on these numbers."
    return Grid("Regimes", header, tuple(body) if chosen else (), note, True)


def _text(reading: readings.Reading, short: bool) -> str:
    return reading.short() if short else reading.text()


def _use(use: tuple[Any, Any] | None) -> str:
    return "–" if use is None else outcome.library_title(*map(str, use))


def _labels(book: Book, place: Place, split: Split) -> str:
    some = (regimes_readings.label(book, place, split, x) for x in (MEAN, SUM))
    return " / ".join(x or "–" for x in some)


def place_grid(book: Book) -> Grid:
    """Returns one line a place and way of asking, with the arms of the map.

    Args:
      book: of a run.
    """
    columns = (MEAN, SUM, JOINT, *(x for x in SHOWN if x.label.endswith(" alone")))
    body = []
    for place in book.places:
        for split, asked in ASKS.items():
            some = [regimes_readings.value(book, place, split, x) for x in columns]
            if any(x.measured for x in some):
                control, _ = regimes_readings.best(book, place, split, CONTROLS)
                where = (place.base, f"{place.coverage:g}", place.words)
                values = (x.text() for x in (*some, control))
                body.append((*where, asked, *values, _labels(book, place, split)))
    header = ("base", "coverage", "regime", "asked", *(x.label for x in columns))
    header = (*header, "best negative control", "verdicts, mean / sum")
    return Grid("Every regime on every base", header, tuple(body), _POOLED + ".")


def cell_grid(book: Book) -> Grid:
    """Returns the main regimes cell by cell: mean, sum and joint LoRA.

    Args:
      book: of a run.
    """
    chosen = regimes_figure.groups(book, regimes_figure.MAIN, tuple(ASKS))
    cells = [
        x
        for x in Cell
        if any(x in regimes_readings.cells(book, place) for place, _ in chosen)
    ]
    body: list[tuple[str, ...]] = []
    for place, split in chosen:
        body.append((f"{place.words}, {ASKS[split]}",))
        for shown in (MEAN, SUM, JOINT):
            use = (shown.arm, shown.methods[0])
            some = (
                regimes_readings.read(book, place, split, use, cell=x).text()
                for x in cells
            )
            body.append((shown.label, *some))
    title = f"Cell by cell ({regimes_figure.of_base(book.main)})"
    return Grid(title, ("", *cells), tuple(body), numeric=True)


def verdict_grid(results: Mapping[str, Any], *, pooled: bool = True) -> Grid:
    """Returns verdicts with cause, remarks and reason.

    Args:
      results: as in results.json.
      pooled: those over all cells of new facts; else those of single cells.
    """
    body = tuple(
        _verdict(x, pooled)
        for x in results.get("verdicts", [])
        if ("," in x["cell"]) is pooled
    )
    header = ("base", "coverage", "regime", "placement", "asked")
    header += () if pooled else ("cell",)
    more = ("method", "verdict", "cause", "remarks", "reason")
    title = "Verdicts on new facts" if pooled else "Verdicts, cell by cell"
    return Grid(title, (*header, *more), body)


def _verdict(x: Mapping[str, Any], pooled: bool) -> tuple[str, ...]:
    words = [x["base"], f"{x['coverage']:g}", x["regime"], x["placement"], x["asked"]]
    words += [] if pooled else [x["cell"]]
    cause = x.get("cause") or "none"
    more = (x.get("method"), x["label"], "–" if cause == "none" else cause)
    remarks = ", ".join(outcome.remarks(x, short=True))
    return tuple(str(w or "–") for w in (*words, *more, remarks, x.get("reason")))


def criteria_grid(results: Mapping[str, Any]) -> Grid:
    """Returns the criteria of each kind of base: the worst value of its seeds.

    Args:
      results: as in results.json.
    """
    criteria = results.get("criteria", [])
    names = list(dict.fromkeys(x["criterion"] for x in criteria))
    points = dict.fromkeys((x["base"], x["coverage"]) for x in criteria)
    body = []
    for point in points:
        mine = [x for x in criteria if (x["base"], x["coverage"]) == point]
        values = (_worst([x for x in mine if x["criterion"] == n]) for n in names)
        seeds = len({x["seed"] for x in mine})
        body.append((point[0], f"{point[1]:g}", str(seeds), *values))
    needs = {x["criterion"]: f"{x['threshold']:g}" for x in criteria}
    optional = ", ".join(
        dict.fromkeys(x["criterion"] for x in criteria if not x["required"])
    )
    note = "The worst seed of each. "
    note += f"Without {optional} a base still counts, but not all that it is asked."
    header = ("base", "coverage", "bases", *(f"{n} >= {needs[n]}" for n in names))
    return Grid("Criteria", header, tuple(body), note if optional else "")


def _worst(some: Sequence[Mapping[str, Any]]) -> str:
    if not some:
        return "–"
    worst = min(some, key=lambda x: (x["passed"], x["value"]))
    return f"{worst['value']:.3f}{'' if worst['passed'] else ' failed'}"


def endings(results: Mapping[str, Any]) -> str:
    """Returns how many predictions held, failed, or neither.

    Args:
      results: as in results.json.

    >>> endings({"predictions": {"outcomes": [{"outcome": "held"}]}})
    'Predictions: 1 held, 0 failed, 0 undecided, 0 not measured.'
    """
    every = (results.get("predictions") or {}).get("outcomes", [])
    if not every:
        return "No prediction was written down before this run."
    counts = Counter(x["outcome"] for x in every)
    return f"Predictions: {', '.join(f'{counts[x]} {x}' for x in ENDINGS)}."


def finding(book: Book) -> tuple[str, str]:
    """Returns the outcome in two sentences: where experts compose, and where not.

    Args:
      book: of a run.
    """
    chosen = regimes_figure.groups(book, regimes_figure.MAIN, tuple(ASKS))
    judged = [(group, x) for group in chosen if (x := _judged(book, *group))]
    yes = [_said(book, *g, x) for g, x in judged if x[1] == Label.COMPOSES]
    no = [(g, x) for g, x in judged if x[1] != Label.COMPOSES]
    if not judged:
        absent = "There is no verdict: no base met its criteria, or nothing was asked."
        return absent, "Nothing follows from this run."
    ways = f"{len(yes) or 'none'} of {len(judged)} ways of training and asking"
    first = f"In {ways} two merged experts compose facts that are new to the base"
    return f"{first}{': ' * bool(yes)}{'; '.join(yes)}.", _others(book, no)


def _others(book: Book, no: Sequence[tuple[Group, tuple[Shown, str]]]) -> str:
    """The sentence on ways in which experts do not compose."""
    if not no:
        return "There is no way that was tried and in which they do not."
    values = [regimes_readings.value(book, *g, x[0]).value or 0.0 for g, x in no]
    labels = Counter(label for _, (_, label) in no)
    group, x = no[max(range(len(no)), key=values.__getitem__)]
    counted = ", ".join(f"{label} {count}" for label, count in labels.items())
    return (
        f"In the other {len(no)} the better of mean and sum has {min(values):.2f} to "
        f"{max(values):.2f} ({counted}); the highest is {_said(book, *group, x)}."
    )


def _judged(book: Book, place: Place, split: Split) -> tuple[Shown, str] | None:
    """The better of mean and sum: its arm and its label."""
    labels = ((x, regimes_readings.label(book, place, split, x)) for x in (MEAN, SUM))
    some = [(x, label) for x, label in labels if label not in ("", Label.INVALID)]

    def order(x: tuple[Shown, str]) -> tuple[bool, float]:
        reading = regimes_readings.value(book, place, split, x[0])
        return x[1] == Label.COMPOSES, reading.value or 0.0

    return max(some, key=order, default=None)


def _said(book: Book, place: Place, split: Split, judged: tuple[Shown, str]) -> str:
    shown, label = judged
    reading = regimes_readings.value(book, place, split, shown)
    if not reading.measured:
        return f"{place.words}, {ASKS[split]} ({label})"
    control, _ = regimes_readings.best(book, place, split, CONTROLS)
    joint = regimes_readings.value(book, place, split, JOINT)
    beside = ", ".join(_beside(control, joint))
    words = f"{place.words}, {ASKS[split]}: {shown.label} {reading.text()}"
    return f"{words} ({beside})"


def _beside(control: readings.Reading, joint: readings.Reading) -> Iterator[str]:
    for name, reading in (("best control", control), ("joint LoRA", joint)):
        if reading.value is not None:
            yield f"{name} {reading.value:.2f}"
