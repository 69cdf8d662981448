"""Tables of the law of kept skills, of every method, and of the first wrong step."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from jaxlora import merge
from jaxlora.evaluate.schema import STEP_ERRORS, Arm, Method, Metric, Split
from jaxlora.report import word_problems_readings as look
from jaxlora.report.grid import Grid
from jaxlora.report.readings import Reading
from jaxlora.report.word_problems_lines import JOINT, Shown, combined, title
from jaxlora.report.word_problems_readings import Book, Law, LawKey, Place

KEPT = {
    "alone": (Split.SKILL_A, Split.SKILL_B),
    "in chains": (Split.CHAIN_A, Split.CHAIN_B),
    "answer only": (Split.ANSWER_A, Split.ANSWER_B),
}
"""Where kept skills are measured."""
LEAST = 0.05
"""Where a product may be below it, a ratio to it says nothing."""
_HEADER = ("kept A", "kept B", "product", "both skills", "ratio")
_NOTE = (
    "Kept A, kept B: the share of problems that need one skill and that the combined "
    "model solves: of one operation (alone), or of as many as the composite (in "
    "chains). Product: of the two, pair by pair. Ratio: both skills over product; 1 "
    "where nothing but the skills is lost. No ratio where the product may be below "
    f"{LEAST:g}. 95% intervals over seeds, pairs and problems."
)


class Ranked(NamedTuple):
    """One method of the leaderboard."""

    method: Method
    value: Reading
    random: Reading
    above: Reading
    p: float | None
    kept: tuple[Reading, Reading]
    law: Law


def law_grid(book: Book) -> Grid:
    """Returns the law on the dial, then at more operations at full overlap.

    Args:
      book: of a run.
    """
    places = look.dial(book)
    body: list[tuple[str, ...]] = []
    for place in places:
        body += _group(book, place, 2, "alone")
    for level in look.levels(book, places[-1]) if places else ():
        for kept in ("alone", "in chains"):
            if (level, kept) != (2, "alone"):
                body += _group(book, places[-1], level, kept)
    return Grid("The law of kept skills", ("", *_HEADER), tuple(body), _NOTE, True)


def _group(book: Book, place: Place, level: int, kept: str) -> list[tuple[str, ...]]:
    """A heading, and a line for every combination and the joint LoRA."""
    shown = (*combined(look.methods(book, place)), JOINT)
    some = [(x, look.law(book, place, x, level, kept)) for x in shown]
    lines = [(x.label, *numbers(book, place, x, level, kept)) for x, law in some
             if law.product.measured]  # fmt: skip
    heading = f"overlap {place.overlap:g}, {level} operations, skills {kept}"
    return [(heading,), *lines] if lines else []


def numbers(
    book: Book, place: Place, shown: Shown, level: int, kept: str
) -> tuple[str, ...]:
    """Returns kept skills, product, composite and ratio in words.

    Args:
      book: of a run.
      place: base and regime.
      shown: a combination or the joint LoRA.
      level: operations of the composite.
      kept: where kept skills are measured.
    """
    law = look.law(book, place, shown, level, kept)
    at = level if kept == "in chains" else 1
    skills = (look.read(book, place, shown.use, x, at).text() for x in KEPT[kept])
    return (*skills, law.product.text(), law.composite.text(), ratio(law).text())


def ratio(law: Law) -> Reading:
    """Returns the ratio of a law; absent where the product may be next to nothing.

    Args:
      law: of a combination.
    """
    return law.ratio if (law.product.lo or 0.0) >= LEAST else Reading()


def every_law_grid(book: Book) -> Grid:
    """Returns all laws that were measured, but those of random experts.

    Args:
      book: of a run.
    """
    chosen = [x for x in book.laws if x.library != Arm.RANDOM]
    body = tuple(_every_line(book, key) for key in chosen)
    where = ("base", "known unary", "regime", "overlap", "asked in")
    header = (*where, "arm", "level", "kept", *_HEADER)
    return Grid("Every law", header, body, _NOTE if body else "")


def _every_line(book: Book, key: LawKey) -> tuple[str, ...]:
    place, method = key.place, Method(key.method)
    shown = Shown("", Arm(key.library), method)
    where = (place.base, str(place.known), place.regime, f"{place.overlap:g}")
    arm = title(method) if shown.arm is Arm.PAIR else key.library
    words = (*where, place.asked, arm, str(key.level), key.kept)
    return (*words, *numbers(book, place, shown, key.level, key.kept))


def ranked(book: Book) -> list[Ranked]:
    """Returns the methods of the leaderboard, best first.

    Args:
      book: of a run.
    """
    place = next(iter(look.dial(book, look.LEADERBOARD)), None)
    if place is None:
        return []
    some = [_ranked(book, place, x) for x in book.leaderboard]
    return sorted(some, key=lambda x: -(x.value.value or 0.0))


def _ranked(book: Book, place: Place, x: Any) -> Ranked:
    method = Method(x["method"])
    shown = Shown(title(method), Arm.PAIR, method)
    skills = [look.read(book, place, shown.use, y, 1) for y in KEPT["alone"]]
    return Ranked(
        method,
        look.of_record(x["value"]),
        look.read(book, place, (Arm.RANDOM, method)),
        look.of_record(x["above mean"]),
        x["p_adjusted"],
        (skills[0], skills[1]),
        look.law(book, place, shown),
    )


def leaderboard_grid(book: Book) -> Grid:
    """Returns every merge and route, with what it keeps and whether the law holds.

    Args:
      book: of a run.
    """
    body = tuple(_ranked_line(x) for x in ranked(book))
    header = ("method", "kind", "both skills", "random experts", "above mean", "p")
    header += ("kept A", "kept B", "product", "ratio")
    note = (
        "Full overlap, two operations. Random experts: of the same norms, under the "
        "same method. Above mean: paired; p after Holm over all methods. "
    )
    left_out = _left_out(book)
    return Grid("Leaderboard of merges and routes", header, body,
                f"{note}{_NOTE}{left_out}" if body else "", True)  # fmt: skip


def _left_out(book: Book) -> str:
    mine = [x for x in book.refused if x["base"] == look.LEADERBOARD]
    reasons = dict.fromkeys(f"{x['method']} ({x['reason']})" for x in mine)
    return f" Left out: {'; '.join(reasons)}." if reasons else ""


def _ranked_line(x: Ranked) -> tuple[str, ...]:
    kind = "merge" if str(x.method) in merge.names() else "route"
    p = "–" if x.p is None else f"{x.p:.3f}"
    words = (title(x.method), kind, x.value.text(), _value(x.random), x.above.text())
    kept = (_value(y) for y in x.kept)
    return (*words, p, *kept, x.law.product.text(), ratio(x.law).text())


def _value(reading: Reading) -> str:
    return "–" if reading.value is None else f"{reading.value:.2f}"


def sides(some: Iterable[Law]) -> Counter[str]:
    """Counts ratios whose interval is below 1, holds it, or is above it.

    Args:
      some: laws; those without a ratio are not counted.
    """
    return Counter(side(x) for x in map(ratio, some) if x.measured)


def side(x: Reading) -> str:
    """Returns where the interval of a ratio lies.

    Args:
      x: a ratio with its interval.

    >>> side(Reading(0.9, 0.8, 0.95))
    'below'
    """
    low, high = look.ends(x)
    return "below" if high < 1 else "above" if low > 1 else "holds"


def error_grid(book: Book) -> Grid:
    """Returns how often the first wrong step is wrong in each way.

    Args:
      book: of a run.
    """
    places = look.dial(book)
    body = [line for x in places for line in _error_lines(book, x, (2,))]
    if places:
        more = [x for x in look.levels(book, places[-1]) if x > 2]
        body += _error_lines(book, places[-1], more)
    kinds = (str(x).rpartition(": ")[2] for x in STEP_ERRORS)
    header = ("overlap", "operations", "method", "all steps right", *kinds)
    note = (
        "Share of problems that need both skills, by the first step that is wrong. "
        "Template: right, but written in the other template. Missing, extra: a step "
        "that is not there, or one too many."
    )
    return Grid("The first wrong step", header, tuple(body), note, True)


def _error_lines(
    book: Book, place: Place, levels: Sequence[int]
) -> Iterator[tuple[str, ...]]:
    for level in levels:
        for shown in combined(look.methods(book, place)):
            metrics = (Metric.STEPS_RIGHT, *STEP_ERRORS)
            some = [
                look.read(book, place, shown.use, Split.BOTH, level, x) for x in metrics
            ]
            if some[0].measured:
                where = (f"{place.overlap:g}", str(level), shown.label)
                yield (*where, *map(_value, some))
