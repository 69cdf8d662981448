"""From result rows to readings: the one place where tables and figures look up numbers.

A *book* holds the values pooled over seeds, by cell, library, method, split and metric.
A :class:`.lines.Line` says which of them a table or figure shows. A control that could
not run is a reading of its own kind, so that it never disappears.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from jaxlora.evaluate.schema import COLUMNS, Arm, Cell, Method, Metric
from jaxlora.report.lines import NEGATIVE_LINES, Line

MEASURED, UNAVAILABLE, ABSENT = "measured", "unavailable", "absent"

_WORDS = ("familiarity", "knows", "library", "method", "split", "metric", "condition")
_SUBJECT = ["cell", "library", "method", "split"]
_KEY = [*_SUBJECT, "metric"]

Book: TypeAlias = dict[tuple[str, ...], "Reading"]
Subject: TypeAlias = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Reading:
    """One pooled value with its 95% interval, or the reason why there is none."""

    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    n: int = 0
    status: str = ABSENT

    @property
    def measured(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    def text(self) -> str:
        """Returns the value and its interval, two decimals each.

        >>> Reading(0.05, 0.02, 0.13, 60, MEASURED).text()
        '0.05 [0.02, 0.13]'
        >>> Reading(status=UNAVAILABLE).text()
        'unavailable'
        """
        return self._words("{:.2f}".format, "{} [{}, {}]")

    def short(self) -> str:
        """Returns the same in 11 characters, for values in [0, 1].

        >>> Reading(0.05, 0.02, 1.0, 60, MEASURED).short()
        '.05 .02–1.0'
        """
        return self._words(_three, "{} {}–{}")

    def _words(self, number: Any, form: str) -> str:
        if self.value is None:
            return UNAVAILABLE if self.status == UNAVAILABLE else "–"
        if self.lo is None or self.hi is None:
            return number(self.value)
        return form.format(number(self.value), number(self.lo), number(self.hi))


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns rows as written or as read back from CSV in one form.

    Seeds become strings, missing words become "", and three columns are added: ``cell``
    ("R-OO", "" where none), ``coverage`` (NaN where none) and ``extra``, the number of
    other keys in ``condition``. Rows that are tidy are returned as they are.

    Args:
      rows: as ``schema.COLUMNS``, or tidy.

    Raises:
      ValueError: if a column of ``schema.COLUMNS`` is missing.
    """
    if {"cell", "coverage", "extra"} <= set(rows.columns):
        return rows
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing:
        raise ValueError(
            f"The rows lack the columns {', '.join(missing)}; they have "
            f"{', '.join(map(str, rows.columns))}. Is this the results.csv of a study?"
        )
    out = rows.loc[:, list(COLUMNS)].copy()
    out["seed"] = out["seed"].astype(str)
    for name in _WORDS:
        out[name] = out[name].astype(object).where(out[name].notna(), "").astype(str)
    for name in ("value", "lo", "hi", "n"):
        out[name] = pd.to_numeric(out[name]).astype(float)
    # Few texts are repeated in thousands of rows: each is parsed once.
    codes, texts = pd.factorize(out["condition"])
    parsed = [json.loads(text or "{}") for text in texts]
    named = out["familiarity"] + "-" + out["knows"]
    out["cell"] = named.where(out["familiarity"] != "", "")
    shares = np.asarray([c.get("coverage") for c in parsed], float)
    extra = np.asarray([len(c.keys() - {"coverage"}) for c in parsed], int)
    out["coverage"], out["extra"] = shares[codes], extra[codes]
    return out


def coverages(rows: pd.DataFrame) -> list[float]:
    """Returns each coverage of the pooled rows, ascending.

    Args:
      rows: as ``schema.COLUMNS``, or tidy.
    """
    frame = tidy(rows)
    shares = frame.loc[frame["seed"] == "all", "coverage"].dropna().unique()
    return sorted(float(share) for share in shares)


def cells(rows: pd.DataFrame) -> list[Cell]:
    """Returns the cells that have any row, in the order of the schema.

    Args:
      rows: as ``schema.COLUMNS``, or tidy.
    """
    present = set(tidy(rows)["cell"].unique())
    return [cell for cell in Cell if cell.value in present]


def at(rows: pd.DataFrame, coverage: float | None = None) -> pd.DataFrame:
    """Returns tidy rows of one coverage; rows that name none belong to all.

    Args:
      rows: as ``schema.COLUMNS``, or tidy.
      coverage: a share in [0, 1]; the highest one present if ``None``.
    """
    frame = tidy(rows)
    shares = coverages(frame)
    if not shares:
        return frame
    share = shares[-1] if coverage is None else coverage
    return frame[frame["coverage"].isna() | (frame["coverage"] == share)]


def book(rows: pd.DataFrame, coverage: float | None = None) -> Book:
    """Returns every pooled value, by (cell, library, method, split, metric).

    Where rows differ only in their condition (a subset of the items, say), the one with
    the fewest keys counts. A measurement is unavailable if its value is missing, or if
    a pooled ``control available`` row with the same library, method and split says 0.
    That row speaks of every cell without a row of its own if it names none. Rows of
    single seeds say nothing here: the other seeds still make a pooled value.

    Args:
      rows: as ``schema.COLUMNS``, or tidy.
      coverage: a share in [0, 1]; the highest one present if ``None``.
    """
    frame = at(rows, coverage)
    pooled = frame[frame["seed"] == "all"].sort_values("extra", kind="stable")
    first = pooled.drop_duplicates(_KEY)[[*_KEY, "value", "lo", "hi", "n"]]
    # Columns of strings give out their rows a hundred times slower than objects do.
    out = {
        tuple(getattr(row, name) for name in _KEY): to_reading(row)
        for row in first.astype(object).itertuples(index=False)
    }
    # A control that could not run takes the place of its number.
    for subject in _unavailable(pooled, cells(frame)):
        out[(*subject, Metric.ACCURACY.value)] = Reading(status=UNAVAILABLE)
    return out


def read(
    book: Book, cell: str, line: Line, metric: Metric = Metric.ACCURACY
) -> Reading:
    """Returns the reading of one line in one cell; absent where no row exists.

    Args:
      book: as :func:`book` returns it.
      cell: for example ``R-OO``.
      line: library, method and split.
      metric: what is measured.
    """
    key = (str(cell), line.library.value, line.method.value, line.split.value)
    return book.get((*key, metric.value), Reading())


def chance(book: Book, cell: str, line: Line | None = None) -> Reading:
    """Returns chance for a line, or where it has none that of the mean, or the base.

    Args:
      book: as :func:`book` returns it.
      cell: for example ``R-OO``.
      line: library, method and split; ``None`` asks the mean and the base alone.
    """
    usual = (Line("", Arm.PAIR, Method.MEAN), Line("", Arm.BASE))
    # Chance is a property of the questions, so any arm asked the same ones will do.
    for candidate in (line, *usual) if line else usual:
        reading = read(book, cell, candidate, Metric.CHANCE)
        if reading.measured:
            return reading
    return Reading()


def band(book: Book, cell: str) -> tuple[float, float] | None:
    """Returns the lowest lower and highest upper bound of the negative controls.

    Controls that combine adapters do so under *mean*; other methods have their own.

    Args:
      book: as :func:`book` returns it.
      cell: for example ``R-OO``.
    """
    readings = [read(book, cell, line) for line in NEGATIVE_LINES]
    ends = _present(x for r in readings for x in (r.value, r.lo, r.hi))
    return (min(ends), max(ends)) if ends else None


def to_reading(row: Any) -> Reading:
    """Returns one tidy row, as a reading.

    Args:
      row: as ``DataFrame.itertuples`` yields it.
    """
    value, lo, hi, n = (_number(x) for x in (row.value, row.lo, row.hi, row.n))
    status = UNAVAILABLE if value is None else MEASURED
    return Reading(value, lo, hi, int(n or 0), status)


def _present(values: Iterable[float | None]) -> Sequence[float]:
    return [value for value in values if value is not None]


def _number(x: float) -> float | None:
    return None if pd.isna(x) else float(x)


def _three(x: float) -> str:
    text = f"{x:.2f}"
    return text[:3] if text.startswith("1") else text.replace("0.", ".", 1)


def _unavailable(pooled: pd.DataFrame, everywhere: Sequence[Cell]) -> list[Subject]:
    """The (cell, library, method, split) that pooled rows say could not run."""
    notes = pooled[pooled["metric"] == Metric.AVAILABLE.value]
    available: dict[Subject, float] = {
        key: group["value"].max() for key, group in notes.groupby(_SUBJECT, sort=False)
    }
    out = []
    for (cell, *use), value in available.items():
        named = [cell] if cell else [c.value for c in everywhere]
        # A note about one cell counts more than a note about all.
        places = [(name, *use) for name in named]
        out += [x for x in places if value == 0 and (cell or x not in available)]
    return out
