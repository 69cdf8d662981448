"""Tables of a study: what it measured, for the terminal, a README and a program.

``main_table`` is a data frame; ``closing_grid`` is what a run ends with, libraries and
methods down and cells across. ``terminal`` and ``to_markdown`` add criteria, verdicts
and predictions.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd
from rich.console import Group
from rich.text import Text

from jaxlora.evaluate.schema import Arm, Method, Metric, Split
from jaxlora.report import outcome, overview, readings, routing
from jaxlora.report.grid import Grid, markdown_table, rich_table
from jaxlora.report.lines import SECTIONS, Line
from jaxlora.report.readings import Reading
from jaxlora.tasks.two_hop import arrows

_MEAN = Line("", Arm.PAIR, Method.MEAN)
_CLOSING_NOTE = (
    "Pooled over seeds with 95% intervals; – was not measured. Random, permuted "
    "and shuffled adapters are combined by mean."
)
_Section: TypeAlias = tuple[str, list[tuple[str, list[Reading]]]]
_ASKED = (Split.TWO_HOP, Split.WRITTEN, Split.CONTEXT)
_COLUMNS = (
    *("cell", "library", "method", "split", "coverage", "status", "value", "lo", "hi"),
    *("hop1", "hop1_lo", "hop1_hi", "hop2", "hop2_lo", "hop2_hi", "chance", "n"),
)


def main_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns one line per cell, library, method and split, pooled over seeds.

    Columns: cell, library, method, split, coverage, status, value, lo, hi (the two-hop
    accuracy), hop1, hop1_lo, hop1_hi, hop2, hop2_lo, hop2_hi (what the same model keeps
    of each hop), chance, n.

    Args:
      rows: as ``schema.COLUMNS``.
    """
    rows = readings.tidy(rows)
    shares: Sequence[float | None] = readings.coverages(rows) or [None]
    lines = [line for share in shares for line in _lines(rows, share)]
    return pd.DataFrame(lines, columns=list(_COLUMNS))


def _lines(rows: pd.DataFrame, coverage: float | None) -> Iterator[dict[str, Any]]:
    book = readings.book(rows, coverage)
    # Every combination that could exist, so that lines are always in one order.
    asked = itertools.product(readings.cells(rows), Arm, Method, _ASKED)
    for cell, library, method, split in asked:
        line = Line("", library, method, split)
        reading = readings.read(book, cell, line)
        if reading.status == readings.ABSENT:
            continue
        yield {
            "cell": cell.value,
            "library": library.value,
            "method": method.value,
            "split": split.value,
            "coverage": coverage,
            "status": reading.status,
            **_ends("", reading),
            **_ends("hop1", _hop(book, cell, line, Split.HOP1)),
            **_ends("hop2", _hop(book, cell, line, Split.HOP2)),
            "chance": readings.chance(book, cell, line).value,
            "n": reading.n,
        }


def _ends(name: str, reading: Reading) -> dict[str, float | None]:
    lo, hi = (f"{name}_{end}" if name else end for end in ("lo", "hi"))
    return {name or "value": reading.value, lo: reading.lo, hi: reading.hi}


def _hop(book: readings.Book, cell: str, line: Line, split: Split) -> Reading:
    return readings.read(book, cell, line._replace(split=split))


def closing_grid(rows: pd.DataFrame, *, short: bool = False) -> Grid:
    """Returns the table that ends a run: libraries and methods down, cells across.

    Args:
      rows: as ``schema.COLUMNS``.
      short: 11 characters a value, so that six cells fit 100 columns.
    """
    rows = readings.tidy(rows)
    book, cells = readings.book(rows), readings.cells(rows)
    body: list[tuple[str, ...]] = []
    for heading, lines in _sections(book, cells):
        body.append((heading,))
        for label, values in lines:
            words = (r.short() if short else r.text() for r in values)
            body.append((label, *words))
    counts = (readings.read(book, cell, _MEAN).n for cell in cells)
    body.append(("n", *(str(n or "–") for n in counts)))
    shares = readings.coverages(rows)
    at = f" Coverage {shares[-1]:g}." if len(shares) > 1 else ""
    header = ("", *(cell.value for cell in cells))
    return Grid("Two-hop accuracy", header, tuple(body), _CLOSING_NOTE + at, True)


def _sections(book: readings.Book, cells: Sequence[str]) -> Iterator[_Section]:
    """Yields a heading and its lines: a label, and a reading for each cell."""

    def read(line: Line, metric: Metric = Metric.ACCURACY) -> list[Reading]:
        return [readings.read(book, cell, line, metric) for cell in cells]

    for heading, lines in SECTIONS:
        yield heading, [(line.label, read(line)) for line in lines]
    hops = (Split.HOP1, Split.HOP2)
    yield (
        "Kept by the mean of 2",
        [(hop.value, read(_MEAN._replace(split=hop))) for hop in hops],
    )
    chance = ("chance", [readings.chance(book, cell) for cell in cells])
    guesses = (Metric.ONE_OF_N, Metric.MAJORITY)
    base = Line("", Arm.BASE)
    yield "Scale", [chance, *((m.value, read(base, m)) for m in guesses)]


def difference_grid(rows: pd.DataFrame) -> Grid:
    """Returns paired differences and the pull of counterfactual experts, pooled.

    Args:
      rows: as ``schema.COLUMNS``.
    """
    frame = readings.at(rows)
    wanted = (Metric.DIFFERENCE.value, Metric.COUNTERFACTUAL.value)
    chosen = frame[(frame["seed"] == "all") & frame["metric"].isin(wanted)]
    body = tuple(_difference(row) for row in chosen.itertuples())
    header = ("cell", "library", "measured", "condition", "value", "n")
    return Grid("Paired differences and counterfactual experts", header, body)


def _difference(row: Any) -> tuple[str, ...]:
    use = outcome.library_title(row.library, row.method)
    value = readings.to_reading(row).text()
    words = row.metric, _plain(row.condition), value
    return (row.cell or "–", use, *words, f"{row.n:.0f}")


def terminal(rows: pd.DataFrame, results: Mapping[str, Any]) -> Group:
    """Returns what a run prints at its end, the finding first, in 100 columns.

    Args:
      rows: as ``schema.COLUMNS``.
      results: as in results.json.
    """
    first, *others = (Text(arrows(x)) for x in outcome.headline(results))
    first.stylize("bold")
    grids = (
        overview.grid(rows, results, short=True),
        closing_grid(rows, short=True),
        outcome.verdict_grid(results, short=True),
        outcome.prediction_grid(results),
        outcome.criteria_grid(results),
    )
    parts = [part for grid in grids for part in (rich_table(grid), Text())]
    return Group(first, *others, Text(), *parts)


def to_markdown(rows: pd.DataFrame, results: Mapping[str, Any], level: int = 2) -> str:
    """Returns the same tables, with full intervals and reasons, for a README.

    Args:
      rows: as ``schema.COLUMNS``.
      results: as in results.json.
      level: of the headings, 1 to 6.
    """
    chosen = (routing.routing_grid(rows), routing.routers_grid(rows))
    grids = (
        closing_grid(rows),
        *(grid for grid in chosen if grid.body),
        outcome.reason_grid(results),
        outcome.criteria_grid(results),
        outcome.prediction_grid(results),
    )
    parts = [" ".join(outcome.headline(results))]
    for grid in grids:
        parts += [f"{'#' * level} {grid.title}", markdown_table(grid), grid.note]
    return arrows("\n\n".join(part for part in parts if part)) + "\n"


def _plain(condition: str) -> str:
    items = json.loads(condition or "{}").items()
    return ", ".join(f"{key} {value}" for key, value in items) or "–"
