"""Tables of the word-problem study: dial, templates, coverage, number of experts."""

from collections.abc import Sequence

from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.report import word_problems_readings as look
from jaxlora.report.grid import Grid
from jaxlora.report.readings import Reading
from jaxlora.report.word_problems_lines import (
    BOUNDS,
    CONTROLS,
    EXPERT_A,
    EXPERT_B,
    JOINT,
    Shown,
    combined,
    title,
)
from jaxlora.report.word_problems_readings import Book, Place

PLAIN = (Method.MEAN, Method.SUM)
TEMPLATES = {
    "same order": "order alone, not words",
    "same words": "words alone, not order",
    "same numbers": "words of numbers alone",
    "both in the other": "all, but another than is asked",
    "both and asked in the other": "all, and asked in it",
}
"""Regimes of that axis, by what the rows of the two experts share."""
SIZES = {2: Arm.PAIR, 3: Arm.THREE, 4: Arm.FOUR, 6: Arm.SIX}
_POOLED = "Share solved, pooled over seeds and pairs of operations, 95% intervals"
_KEPT = ((Split.SKILL_A, "skill A"), (Split.SKILL_B, "skill B"))


def terminal(book: Book) -> list[Grid]:
    """Returns what a run prints at its end, for 100 columns.

    Args:
      book: of a run.
    """
    every = (overlap_grid(book, short=True), size_grid(book, short=True))
    return [x for x in every if x.body]


def overlap_grid(book: Book, *, short: bool = False) -> Grid:
    """Returns the dial: overlap down, arms across, with verdicts.

    Args:
      book: of a run.
      short: 11 characters a value with the verdict below, for a terminal.
    """
    places = look.dial(book)
    shown = combined(dict.fromkeys(m for p in places for m in look.methods(book, p)))
    columns = (*shown, JOINT, EXPERT_A, EXPERT_B)
    body = [_overlap_line(book, x, columns, short) for x in places]
    header = ("overlap", *(x.label for x in columns), "chance")
    header += () if short else ("n", "verdicts")
    note = (
        f"{_POOLED}; problems of two operations that need both skills, one to an "
        f"expert. Overlap: share of expert B's rows in the solution template of A."
    )
    return Grid("The dial: shared solution templates", header, tuple(body), note, True)


def _overlap_line(
    book: Book, place: Place, columns: Sequence[Shown], short: bool
) -> tuple[str, ...]:
    values = [text(look.read(book, place, x.use), short) for x in columns]
    if short:
        labels = (look.label(book, place, x.method) for x in columns)
        values = [f"{x}\n{y}" if y else x for x, y in zip(values, labels, strict=True)]
    level = look.chance(book, place)
    line = (f"{place.overlap:g}", *values, _value(level))
    if short:
        return line
    return (*line, str(level.n or "–"), judged(book, place))


def text(reading: Reading, short: bool = False) -> str:
    """Returns a reading with its interval.

    Args:
      reading: any.
      short: in 11 characters.
    """
    return reading.short() if short else reading.text()


def _value(reading: Reading) -> str:
    return "–" if reading.value is None else f"{reading.value:.2f}"


def judged(book: Book, place: Place) -> str:
    """Returns the verdicts of a place on problems of two operations, a line each.

    Args:
      book: of a run.
      place: base and regime.
    """
    some = [(x, look.label(book, place, x)) for x in look.methods(book, place)]
    return ";\n".join(f"{title(x)}: {label}" for x, label in some if label) or "–"


def control_grid(book: Book) -> Grid:
    """Returns what must fail and what may succeed at the ends of the dial.

    Args:
      book: of a run.
    """
    places = look.dial(book)
    ends = [places[0], places[-1]] if len(places) > 1 else places
    methods = dict.fromkeys(m for p in ends for m in look.methods(book, p))
    controls = [
        Shown(f"{arm}, {title(m)}", arm, m) for m in methods for arm in CONTROLS
    ]
    body = []
    for shown in (*combined(methods), *BOUNDS, *controls):
        some = [look.read(book, x, shown.use) for x in ends]
        if any(x.measured for x in some):
            body.append((shown.label, *(x.text() for x in some)))
    header = ("", *(f"overlap {x.overlap:g}" for x in ends))
    return Grid("Controls and bounds", header, tuple(body), _POOLED + ".", True)


def template_grid(book: Book) -> Grid:
    """Returns which part of a solution template must be shared.

    Args:
      book: of a run.
    """
    places = [x for x in book.places if x.regime in TEMPLATES]
    ends = look.dial(book, look.AXES) or look.dial(book)
    lines = [(TEMPLATES[x.regime], x) for x in places]
    full = [x for x in ends if x.overlap == 1]
    none = [x for x in look.dial(book) if x.overlap == 0]
    before = [("all, and asked in it (overlap 1)", x) for x in full]
    after = [("nothing (overlap 0)", x) for x in none]
    body = [_line(book, *x) for x in (*before, *lines, *after)] if places else []
    header = ("the experts' rows share", "bases", *_HEADER)
    note = f"{_POOLED}; problems of two operations that need both skills. {_KEPT_NOTE}"
    return Grid("Which part of a template", header, tuple(body), note)


_HEADER = (
    *("mean", "sum", "joint LoRA", "best expert alone"),
    *("skill A, skill B in the mean", "verdicts"),
)
_KEPT_NOTE = "Skill A, skill B: problems of one operation, solved by the mean."


def _line(book: Book, words: str, place: Place) -> tuple[str, ...]:
    """A place with the plain merges, the joint LoRA, and what the mean keeps."""
    shown = (*combined(PLAIN), JOINT)
    values = (look.read(book, place, x.use).text() for x in shown)
    mean = (Arm.PAIR, Method.MEAN)
    kept = (_value(look.read(book, place, mean, split, 1)) for split, _ in _KEPT)
    alone = look.single(book, place).text()
    return (words, place.base, *values, alone, ", ".join(kept), judged(book, place))


def coverage_grid(book: Book) -> Grid:
    """Returns how far the base knows the role of the new operations.

    Args:
      book: of a run.
    """
    covered = look.dial(book, look.COVERAGE)
    # Bases of the dial know more of them: the upper end of this axis.
    more = [x for x in look.dial(book, look.AXES) or look.dial(book) if x.overlap == 1]
    some = sorted((*covered, *more), key=lambda x: x.known)
    body = [_line(book, f"{x.known}", x) for x in some] if covered else []
    header = ("unary operations known", "bases", *_HEADER)
    note = f"{_POOLED}, at full overlap. {_KEPT_NOTE}"
    return Grid("Coverage of the new operations' role", header, tuple(body), note)


def size_grid(book: Book, *, short: bool = False) -> Grid:
    """Returns libraries of more experts than a problem needs, and of as many.

    Args:
      book: of a run.
      short: 11 characters a value.
    """
    place = next((x for x in look.dial(book, look.AXES) if x.overlap == 1), None)
    body: list[tuple[str, ...]] = []
    if place and look.read(book, place, (Arm.THREE, Method.MEAN)).measured:
        for method in PLAIN:
            body.append((title(method),))
            body += [_size(book, place, n, method, short) for n in SIZES]
    asked = ("both skills", "skill A", "skill B", "three skills", "four skills")
    note = f"{_POOLED}, at full overlap. Three and four skills: one to an expert each."
    header = ("experts merged", *asked)
    return Grid("Number of experts merged", header, tuple(body), note, True)


def _size(
    book: Book, place: Place, count: int, method: Method, short: bool
) -> tuple[str, ...]:
    use = (SIZES[count], method)
    asked = (
        *((Split.BOTH, 2), (Split.SKILL_A, 1), (Split.SKILL_B, 1)),
        *((Split.THREE_SKILLS, 3), (Split.FOUR_SKILLS, 4)),
    )
    values = [look.read(book, place, use, *x) for x in asked]
    return (str(count), *(text(x, short) for x in values))
