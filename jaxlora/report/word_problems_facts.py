"""Written steps against the answer alone, in word problems and in two-hop facts.

The numbers of the second are read from the results of a run of the boundary study: a
fact's second hop, asked directly or with the bridge written, is the same question.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from jaxlora.evaluate.schema import Split
from jaxlora.report import regimes_figure, regimes_lines, regimes_readings
from jaxlora.report import word_problems_readings as look
from jaxlora.report.grid import Grid
from jaxlora.report.readings import Reading
from jaxlora.report.word_problems_lines import JOINT, combined
from jaxlora.studies.harness.results import rows_file

NAMES = ("results.csv", "results.csv.gz")
SINGLE = "best expert alone"
ANSWERS = "answers"
"""Bases that are taught to answer without steps as well, and experts like them."""
PROBLEMS, FACTS = "Word problems that need both skills", "Facts of two hops"
ABSENT = (
    "The two-hop study's numbers are not here: --two-hop FOLDER, with the results of "
    "`jaxlora study boundary`, puts them beside these."
)


class Forms(NamedTuple):
    """One arm, asked in both forms."""

    name: str
    written: Reading
    """With the steps written, or the bridge."""
    direct: Reading
    """The answer alone."""
    product: Reading = Reading()
    """Of the skills that are kept where steps are written."""
    direct_product: Reading = Reading()
    """Of those that are kept where they are not."""


def read(folder: str | Path | None) -> tuple[Forms, ...]:
    """Returns mean, sum, joint LoRA and best expert of a boundary study; () for None.

    Args:
      folder: of its results.csv or results.csv.gz.

    Raises:
      ValueError: if there is none, or it is of another study.
    """
    if folder is None:
        return ()
    path = rows_file(Path(folder))
    if not path.is_file():
        raise ValueError(
            f"{folder} has neither {' nor '.join(NAMES)}; expected the folder of a "
            f"finished `jaxlora study boundary`."
        )
    rows = pd.read_csv(path, keep_default_na=False, na_values=[""], low_memory=False)
    forms = tuple(_facts(rows)) if set(rows.get("study", ())) == {"boundary"} else ()
    if not forms:
        raise ValueError(
            f"{path} holds no direct and written answers of new facts; expected the "
            f"results of `jaxlora study boundary`."
        )
    return forms


def _facts(rows: pd.DataFrame) -> list[Forms]:
    book = regimes_readings.book(rows, {})
    direct, written = (
        regimes_readings.find(book, book.main, x) for x in regimes_figure.MAIN[:2]
    )
    if direct is None or written is None:
        return []

    asked = ((written, Split.WRITTEN), (direct, Split.TWO_HOP))
    some = [
        Forms(shown.label, *(regimes_readings.value(book, *x, shown) for x in asked))
        for shown in (regimes_lines.MEAN, regimes_lines.SUM, regimes_lines.JOINT)
    ]
    some.append(Forms(SINGLE, *(regimes_readings.single(book, *x) for x in asked)))
    return [x for x in some if x.written.measured or x.direct.measured]


def problems(book: look.Book) -> tuple[Forms, ...]:
    """Returns every method, the joint LoRA and the best expert, at full overlap.

    They are of the bases that were taught both forms, where there are any.

    Args:
      book: of a run.
    """
    taught = [x for x in book.places if x.base == ANSWERS]
    places = taught or look.dial(book)
    if not places:
        return ()
    place = places[-1]
    some = []
    for shown in (*combined(look.methods(book, place)), JOINT):
        written = look.read(book, place, shown.use)
        direct = look.read(book, place, shown.use, Split.ANSWER_BOTH)
        products = (
            look.law(book, place, shown, kept=x).product
            for x in ("alone", "answer only")
        )
        some.append(Forms(shown.label, written, direct, *products))
    alone = (look.single(book, place, x) for x in (Split.BOTH, Split.ANSWER_BOTH))
    some.append(Forms(SINGLE, *alone))
    return tuple(x for x in some if x.written.measured)


def answer_grid(book: look.Book, facts: tuple[Forms, ...] = ()) -> Grid:
    """Returns both forms of word problems, and of two-hop facts where they are given.

    Args:
      book: of a run.
      facts: of a boundary study, from :func:`read`.
    """
    body: list[tuple[str, ...]] = []
    for title, some in ((PROBLEMS, problems(book)), (FACTS, facts)):
        body += [(title,), *map(_line, some)] if some else []
    header = ("", "steps written", "product of kept", "answer only", "product of kept")
    note = (
        "The same problems of two operations at full overlap, solved step by step or "
        "answered at once; of facts, with the bridge written (the expert of B->C "
        "practises it) or asked directly. Product of kept: of problems of one skill, "
        "asked in the same form. Bases and experts are taught both forms where there "
        "are such; no answers at once where the base gives none to known problems."
    )
    if not facts:
        note += f" {ABSENT}"
    return Grid("Written steps and the answer alone", header, tuple(body), note, True)


def _line(x: Forms) -> tuple[str, ...]:
    parts = (x.written, x.product, x.direct, x.direct_product)
    return (x.name, *(r.text() for r in parts))
