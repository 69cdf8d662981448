"""Tables of the law of kept skills, and of the first wrong step."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

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
NOTE = (
    "Kept A, kept B: the share of problems that need one skill and that the combined "
    "model solves: of one operation (alone), or of as many as the composite (in "
    "chains). Product: of the two, pair by pair. Ratio: both skills over product; 1 "
    "where nothing but the skills is lost. No ratio where the product may be below "
    f"{LEAST:g}. 95% intervals over seeds, pairs and problems."
)


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
    return Grid("The law of kept skills", ("", *_HEADER), tuple(body), NOTE, True)


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
    return Grid("Every law", header, body, NOTE if body else "")


def _every_line(book: Book, key: LawKey) -> tuple[str, ...]:
    place, method = key.place, Method(key.method)
    shown = Shown("", Arm(key.library), method)
    where = (place.base, str(place.known), place.regime, f"{place.overlap:g}")
    arm = title(method) if shown.arm is Arm.PAIR else key.library
    words = (*where, place.asked, arm, str(key.level), key.kept)
    return (*words, *numbers(book, place, shown, key.level, key.kept))


def short(reading: Reading) -> str:
    """Returns a value without its interval.

    Args:
      reading: any.

    >>> short(Reading(0.5)), short(Reading())
    ('0.50', '–')
    """
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
                yield (*where, *map(short, some))
