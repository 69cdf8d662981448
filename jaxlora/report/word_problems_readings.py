"""Looking up readings of the word-problem study: of a regime, an arm, a question."""

from collections.abc import Sequence

from jaxlora.evaluate.schema import Arm, Method, Metric, Split
from jaxlora.report.readings import Reading
from jaxlora.report.word_problems_book import (
    AXES as AXES,
)
from jaxlora.report.word_problems_book import (
    COVERAGE as COVERAGE,
)
from jaxlora.report.word_problems_book import (
    HEADLINE as HEADLINE,
)
from jaxlora.report.word_problems_book import (
    LEADERBOARD as LEADERBOARD,
)
from jaxlora.report.word_problems_book import (
    OVERLAP as OVERLAP,
)
from jaxlora.report.word_problems_book import (
    Book as Book,
)
from jaxlora.report.word_problems_book import (
    Law as Law,
)
from jaxlora.report.word_problems_book import (
    LawKey as LawKey,
)
from jaxlora.report.word_problems_book import (
    Place as Place,
)
from jaxlora.report.word_problems_book import (
    book as book,
)
from jaxlora.report.word_problems_book import (
    of_record as of_record,
)
from jaxlora.report.word_problems_lines import ALONE, Shown

LEVEL = 2
"""Operations of a problem that needs two skills and nothing else."""


def read(
    book: Book,
    place: Place,
    use: tuple[Arm, Method],
    split: Split = Split.BOTH,
    level: int = LEVEL,
    metric: Metric = Metric.ACCURACY,
) -> Reading:
    """Returns one reading; absent where no row exists.

    Args:
      book: of a run.
      place: base and regime.
      use: the arm, and how its experts are combined.
      split: what is asked.
      level: operations of a problem.
      metric: what is measured.
    """
    arm, method = map(str, use)
    key = (place, arm, method, str(split), str(metric), level)
    return book.values.get(key, Reading())


def single(
    book: Book, place: Place, split: Split = Split.BOTH, level: int = LEVEL
) -> Reading:
    """Returns the accuracy of the better of the two experts alone.

    Args:
      book: of a run.
      place: base and regime.
      split: what is asked.
      level: operations of a problem.
    """
    known = [read(book, place, use, split, level) for use in ALONE]
    known = [x for x in known if x.measured]
    return max(known, key=lambda x: x.value or 0.0, default=Reading())


def chance(
    book: Book, place: Place, split: Split = Split.BOTH, level: int = LEVEL
) -> Reading:
    """Returns the accuracy of shuffled answers: of the first combination that has any.

    Args:
      book: of a run.
      place: base and regime.
      split: what is asked.
      level: operations of a problem.
    """
    uses = [(Arm.PAIR, x) for x in methods(book, place)]
    known = (
        read(book, place, use, split, level, Metric.CHANCE)
        for use in (*uses, (Arm.BASE, Method.NONE))
    )
    return next((x for x in known if x.measured), Reading())


def methods(book: Book, place: Place) -> list[Method]:
    """Returns the methods by which a place combined two experts, in a fixed order.

    Args:
      book: of a run.
      place: base and regime.
    """
    names = {key[2] for key in book.values if key[:2] == (place, str(Arm.PAIR))}
    return [x for x in Method if str(x) in names]


def law(
    book: Book, place: Place, shown: Shown, level: int = LEVEL, kept: str = "alone"
) -> Law:
    """Returns the law of a combination; of absent readings where there is none.

    Args:
      book: of a run.
      place: base and regime.
      shown: the arm, with its method.
      level: operations of a problem.
      kept: where kept skills are measured.
    """
    split = Split.ANSWER_BOTH if kept == "answer only" else Split.BOTH
    words = (str(shown.arm), str(shown.method), str(split))
    absent = Law(*(Reading() for _ in Law._fields))
    return book.laws.get(LawKey(place, *words, level, kept), absent)


def label(book: Book, place: Place, method: Method, level: int = LEVEL) -> str:
    """Returns the verdict on a combination that writes steps; empty where none is.

    Args:
      book: of a run.
      place: base and regime.
      method: that combines the experts.
      level: operations of a problem.
    """
    key = (place, str(Split.BOTH), level, str(method))
    return book.verdicts[key]["label"] if key in book.verdicts else ""


def dial(book: Book, base: str = "") -> list[Place]:
    """Returns the places of the dial, from no overlap to full overlap.

    Args:
      book: of a run.
      base: kind of base; by default the main one.
    """
    kind = base or book.main
    some = [x for x in book.places if (x.base, x.regime) == (kind, OVERLAP)]
    return sorted(some, key=lambda x: x.overlap)


def ends(reading: Reading) -> tuple[float, float]:
    """Returns an interval; where there is none, the value twice.

    Args:
      reading: one that was measured.

    >>> ends(Reading(0.5))
    (0.5, 0.5)
    """
    value = reading.value or 0.0
    low, high = reading.lo, reading.hi
    return value if low is None else low, value if high is None else high


def levels(book: Book, place: Place, split: Split = Split.BOTH) -> Sequence[int]:
    """Returns the numbers of operations at which something was asked.

    Args:
      book: of a run.
      place: base and regime.
      split: what is asked.
    """
    key = (place, str(split))
    return sorted({x[5] for x in book.values if (x[0], x[3]) == key})
