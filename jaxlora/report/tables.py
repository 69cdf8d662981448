"""Tables of a study: what it measured, for the terminal, a README and a program.

``main_table`` is a data frame; ``closing_grid`` is what a run ends with, libraries and
methods down and cells across. ``terminal`` and ``to_markdown`` add gates, verdicts and
predictions.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Group
from rich.text import Text

from jaxlora.evaluate.schema import Library, Method, Metric, Split
from jaxlora.report import outcome, readings, routing
from jaxlora.report.grid import Grid, markdown_table, rich_table
from jaxlora.report.readings import Line, Reading

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
    """
    rows = readings.tidy(rows)
    levels: Sequence[float | None] = readings.coverages(rows) or [None]
    lines = [line for level in levels for line in _lines(rows, level)]
    return pd.DataFrame(lines, columns=list(_COLUMNS))


def _lines(rows: pd.DataFrame, coverage: float | None) -> Iterable[dict[str, Any]]:
    found = readings.book(rows, coverage)
    for cell in readings.cells(rows):
        for library in Library:
            for method in Method:
                for split in _ASKED:
                    line = Line("", library, method, split)
                    reading = readings.read(found, cell, line)
                    if reading.status != readings.ABSENT:
                        yield {
                            "cell": cell.value,
                            "library": library.value,
                            "method": method.value,
                            "split": split.value,
                            "coverage": coverage,
                            "status": reading.status,
                            **_ends("", reading),
                            **_ends("hop1", _hop(found, cell, line, Split.HOP1)),
                            **_ends("hop2", _hop(found, cell, line, Split.HOP2)),
                            "chance": readings.chance(found, cell, line).value,
                            "n": reading.n,
                        }


def _ends(name: str, reading: Reading) -> dict[str, float | None]:
    lo, hi = (f"{name}_{end}" if name else end for end in ("lo", "hi"))
    return {name or "value": reading.value, lo: reading.lo, hi: reading.hi}


def _hop(found: readings.Book, cell: str, line: Line, split: Split) -> Reading:
    return readings.read(found, cell, line._replace(split=split))


def closing_grid(rows: pd.DataFrame, *, short: bool = False) -> Grid:
    """Returns the table that ends a run: libraries and methods down, cells across.

    Args:
      rows: as ``schema.COLUMNS``.
      short: 11 characters a value, so that six cells fit 100 columns.
    """
    rows = readings.tidy(rows)
    found, cells = readings.book(rows), readings.cells(rows)

    def words(label: str, values: Iterable[Reading]) -> tuple[str, ...]:
        return (label, *(r.short() if short else r.text() for r in values))

    body: list[tuple[str, ...]] = []
    for group, lines in readings.GROUPS:
        body.append((group,))
        for line in lines:
            body.append(
                words(line.label, (readings.read(found, c, line) for c in cells))
            )
    mean = Line("", Library.PAIR, Method.MEAN)
    body.append(("Kept by the mean of 2",))
    for hop in (Split.HOP1, Split.HOP2):
        body.append(words(hop.value, (_hop(found, c, mean, hop) for c in cells)))
    body.append(("Scale",))
    body.append(words("chance", (readings.chance(found, c) for c in cells)))
    for metric in (Metric.ONE_OF_N, Metric.MAJORITY):
        guess = (readings.read(found, c, Line("", Library.BASE), metric) for c in cells)
        body.append(words(metric.value, guess))
    body.append(("n", *(str(readings.read(found, c, mean).n or "–") for c in cells)))
    levels = readings.coverages(rows)
    at = f" Coverage {levels[-1]:g}." if len(levels) > 1 else ""
    return Grid(
        "Two-hop accuracy",
        ("", *(cell.value for cell in cells)),
        tuple(body),
        "Pooled over seeds with 95% intervals; – was not measured. Random, permuted "
        "and shuffled adapters are combined by mean." + at,
        numeric=True,
    )


def difference_grid(rows: pd.DataFrame) -> Grid:
    """Returns paired differences and the pull of counterfactual experts, pooled."""
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
    """Returns what a run prints at its end, for a terminal of 100 columns."""
    grids = (
        outcome.gate_grid(results),
        closing_grid(rows, short=True),
        outcome.verdict_grid(results, short=True),
        outcome.prediction_grid(results),
    )
    parts = [part for grid in grids for part in (rich_table(grid), Text())]
    words = [Text(sentence) for sentence in outcome.headline(results)]
    return Group(*parts, Text("In words", "bold"), *words)


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
        outcome.gate_grid(results),
        outcome.prediction_grid(results),
    )
    parts = [" ".join(outcome.headline(results))]
    for grid in grids:
        parts += [f"{'#' * level} {grid.title}", markdown_table(grid), grid.note]
    return "\n\n".join(part for part in parts if part) + "\n"


def _plain(condition: str) -> str:
    items = json.loads(condition or "{}").items()
    return ", ".join(f"{key} {value}" for key, value in items) or "–"
