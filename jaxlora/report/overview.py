"""The first table of a two-hop study: a line for each kind of people, in plain words.

Accuracy of the combination as a number and as a bar, its verdict, and beside it the
best control and what an expert of the answers gives back.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from jaxlora.evaluate.schema import Arm, Method
from jaxlora.report import readings
from jaxlora.report.grid import Grid
from jaxlora.report.lines import NEGATIVE_LINES, Line
from jaxlora.report.readings import Book, Reading
from jaxlora.tasks.two_hop import plain

WIDTH = 10
"""Characters of a bar."""
_TRIPLE = Line("", Arm.TRIPLE, Method.MEAN)


def grid(
    rows: pd.DataFrame, results: Mapping[str, Any], *, short: bool = False
) -> Grid:
    """Returns who is asked, what two merged experts answer, and the verdict.

    Args:
      rows: as ``schema.COLUMNS``.
      results: as in results.json.
      short: with bars and short intervals, for a terminal of 100 columns.
    """
    rows = readings.tidy(rows)
    book, use = readings.book(rows), _use(results)
    body = tuple(
        _line(book, cell, use, _verdict(results, cell, use), short)
        for cell in readings.cells(rows)
    )
    measured = any(readings.read(book, x, use).measured for x in readings.cells(rows))
    bars = ("0" + "1".rjust(WIDTH - 1),) if short else ()
    rest = () if short else ("best negative control", "with an expert of the answers")
    header = ("who is asked", f"two experts, {use.method}", *bars, "verdict", *rest)
    note = "Right answers to two-hop questions, with 95% intervals; codes of cells "
    note += "behind their names."
    title = "What two merged experts answer"
    return Grid(title, header, body if measured else (), note)


def bar(value: float | None) -> str:
    """Returns a share as a bar of characters.

    Args:
      value: from 0 to 1; ``None`` if it was not measured.

    >>> bar(0.5)
    '█████·····'
    >>> bar(None)
    ''
    """
    if value is None:
        return ""
    full = round(min(max(value, 0.0), 1.0) * WIDTH)
    return "█" * full + "·" * (WIDTH - full)


def _use(results: Mapping[str, Any]) -> Line:
    """The mean of two experts, or the first method of a run that leaves it out."""
    some = [
        x["method"]
        for x in results.get("verdicts", [])
        if x["library"] == Arm.PAIR.value
    ]
    usual = Method.MEAN.value
    method = usual if usual in some or not some else some[0]
    return Line("", Arm.PAIR, Method(method))


def _verdict(results: Mapping[str, Any], cell: str, use: Line) -> str:
    key = (str(cell), use.library.value, use.method.value)
    mine = [
        x
        for x in results.get("verdicts", [])
        if (x["cell"], x["library"], x["method"]) == key
    ]
    # Of several coverages the highest counts, as in the headline.
    best = max(mine, key=lambda x: x.get("coverage") or 0.0, default=None)
    return "–" if best is None else best["label"]


def _line(
    book: Book, cell: str, use: Line, verdict: str, short: bool
) -> tuple[str, ...]:
    reading = readings.read(book, cell, use)
    if short:
        name = plain(cell, code=True)
        return (name, reading.short(), bar(reading.value), verdict)
    rest = (
        x.text() for x in (_control(book, cell), readings.read(book, cell, _TRIPLE))
    )
    return (f"{plain(cell)} [{cell}]", reading.text(), verdict, *rest)


def _control(book: Book, cell: str) -> Reading:
    """The negative control with the highest value; absent if none was measured."""

    def every() -> Iterator[Reading]:
        for line in NEGATIVE_LINES:
            reading = readings.read(book, cell, line)
            if reading.value is not None:
                yield reading

    return max(every(), key=lambda x: x.value or 0.0, default=Reading())
