"""From easy to hard: levels that experts saw against levels that are asked."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.report import word_problems_readings as look
from jaxlora.report.grid import Grid
from jaxlora.report.readings import Reading
from jaxlora.report.word_problems_lines import BASE, HARD, JOINT, Shown, combined
from jaxlora.report.word_problems_readings import Book, Place

LADDER = "easy + medium, one skill"
"""Both experts learn one operation, at two levels."""
TRAINED = {
    "easy problems": "level 1 only",
    "medium problems": "level 2 only",
    "hard problems": "level 3 only",
}
"""Both experts are confined to one level."""
MERGES = tuple(combined((Method.MEAN, Method.SUM)))
ONE, TWO = "One skill, learned at two levels", "Two skills, learned at one level"


class Table(NamedTuple):
    """Readings of several arms at several levels."""

    title: str
    levels: tuple[int, ...]
    names: tuple[str, ...]
    readings: tuple[tuple[Reading, ...], ...]
    """By name and level."""


def tables(book: Book) -> list[Table]:
    """Returns both tables, without those of which nothing was asked.

    Args:
      book: of a run.
    """
    return [x for x in (_one(book), _two(book)) if x.names]


def _one(book: Book) -> Table:
    """Experts of an easy and a medium level of one operation, beside one of a hard."""
    place = next((x for x in book.places if x.regime == LADDER), None)
    if place is None:
        return Table(ONE, (), (), ())
    levels = (1, *look.levels(book, place, Split.CHAIN_A))
    lines: dict[str, Shown] = {
        "easy expert alone": Shown("", Arm.EXPERT_A),
        "medium expert alone": Shown("", Arm.EXPERT_B),
        "mean of both": MERGES[0],
        "sum of both": MERGES[1],
        "hard expert alone": HARD,
        "base": BASE,
    }
    some = {name: _skill(book, place, x, levels) for name, x in lines.items()}
    return _table(ONE, levels, some)


def _skill(book: Book, place: Place, shown: Shown, levels: Sequence[int]):
    """Problems of each level that need the one skill."""
    return tuple(
        look.read(book, place, shown.use, Split.SKILL_A if x == 1 else Split.CHAIN_A, x)
        for x in levels
    )


def _two(book: Book) -> Table:
    """Experts of two operations, all of one level, asked what needs both."""
    places = [x for x in book.places if x.regime in TRAINED]
    levels = tuple(sorted({y for x in places for y in look.levels(book, x)}))
    some = {
        f"{TRAINED[place.regime]}: {shown.label}": tuple(
            look.read(book, place, shown.use, level=level) for level in levels
        )
        for place in places
        for shown in (*MERGES, JOINT)
    }
    return _table(TWO, levels, some)


def _table(title: str, levels: Sequence[int], some) -> Table:
    known = {k: x for k, x in some.items() if any(r.measured for r in x)}
    return Table(title, tuple(levels), tuple(known), tuple(known.values()))


def level_grid(book: Book) -> Grid:
    """Returns trained levels down, asked levels across.

    Args:
      book: of a run.
    """
    every = tables(book)
    levels = sorted({level for x in every for level in x.levels})
    body: list[tuple[str, ...]] = []
    for table in every:
        body.append((table.title,))
        for name, line in zip(table.names, table.readings, strict=True):
            at = dict(zip(table.levels, line, strict=True))
            body.append((name, *(at.get(x, Reading()).text() for x in levels)))
    header = ("", *(f"level {x}" for x in levels))
    note = (
        "Share solved, with 95% intervals. Level: number of operations; what is not "
        "the experts' is known to the base. One skill: problems that need it. Two: "
        "problems that need both, so of level 2 and above. The hard expert, and the "
        "lines of level 3, are what easy and medium experts are to reach."
    )
    return Grid("From easy to hard", header, tuple(body), note if body else "", True)
