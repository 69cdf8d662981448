"""The boundary study as figures, tables.md and one page; all of a folder in one call.

``make("results/boundary")`` reads results.csv and results.json and writes the rest.
"""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from jaxlora.files import write_text, write_whole
from jaxlora.report import (
    draw,
    figures,
    outcome,
    page,
    regimes_axes,
    regimes_figure,
    regimes_maps,
    regimes_readings,
    regimes_tables,
    svg,
)
from jaxlora.report.grid import markdown_table
from jaxlora.report.regimes_readings import Book
from jaxlora.report.templates import template
from jaxlora.strangers import data
from jaxlora.studies.harness.results import rows_file
from jaxlora.tasks.two_hop import arrows

FIGURES: dict[str, Callable[[Book], Figure]] = {
    "figure-regimes.png": regimes_figure.regimes,
    "figure-phase.png": regimes_maps.phase,
    "figure-placement.png": regimes_maps.placement,
    "figure-variants.png": regimes_figure.variants,
    "figure-axes.png": regimes_axes.axes,
}


def make(
    folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Draws figures, tables.md and report.html of a run that is finished.

    Args:
      folder: with results.csv (or results.csv.gz) and results.json.
      out: where to; by default the same folder.

    Returns:
      The files that were written.

    Raises:
      FileNotFoundError: if the folder holds no results.
      ValueError: if one of them was changed since it was written.
    """
    source, target = Path(folder), Path(folder if out is None else out)
    rows = pd.read_csv(rows_file(source))
    results = data.read(source / "results.json", finite=False)
    return save(rows, results, target)


def save(
    rows: pd.DataFrame, results: Mapping[str, Any], out: str | os.PathLike[str]
) -> list[Path]:
    """Writes every figure that the rows can fill, tables.md and report.html.

    Args:
      rows: as ``schema.COLUMNS``.
      results: as in results.json.
      out: the folder of the run.

    Returns:
      The files, the page last.
    """
    book, folder = regimes_readings.book(rows, results), Path(out)
    drawn = charts(book)
    images = [write_whole(folder / n, figures.png(chart)) for n, chart in drawn.items()]
    tables = write_text(folder / "tables.md", to_markdown(book, results))
    html = to_html(book, results, svg.pictures(drawn))
    return [*images, tables, write_text(folder / page.NAME, html)]


def charts(book: Book) -> dict[str, Figure]:
    """Returns every figure that there is something to show in, by its file name.

    Args:
      book: of a run.
    """
    out = {}
    for name, make_figure in FIGURES.items():
        # A small run has no map, or no axes; its other figures are drawn.
        with contextlib.suppress(draw.NothingToShowError):
            out[name] = make_figure(book)
    return out


def to_markdown(book: Book, results: Mapping[str, Any]) -> str:
    """Returns the tables, and the finding before them.

    Args:
      book: of a run.
      results: as in results.json.
    """
    grids = (
        regimes_tables.regime_grid(book),
        regimes_tables.cell_grid(book),
        regimes_tables.place_grid(book),
        regimes_tables.verdict_grid(results),
        regimes_tables.criteria_grid(results),
        outcome.prediction_grid(results),
    )
    parts = [" ".join(regimes_tables.finding(book)), regimes_tables.endings(results)]
    for grid in grids:
        parts += [f"## {grid.title}", markdown_table(grid), grid.note]
    return arrows("\n\n".join(part for part in parts if part)) + "\n"


def to_html(book: Book, results: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """Returns the page, with its figures inside.

    Args:
      book: of a run.
      results: as in results.json.
      pictures: the figures, from ``svg.pictures``.
    """
    study = str(results.get("study", ""))
    return template("regimes.html.jinja").render(
        study=study,
        finding=regimes_tables.finding(book),
        endings=regimes_tables.endings(results),
        failed=list(results.get("failed_seeds", [])),
        meanings=outcome.MEANINGS,
        figures=pictures,
        regimes=regimes_tables.regime_grid(book),
        cells=regimes_tables.cell_grid(book),
        places=regimes_tables.place_grid(book),
        verdicts=regimes_tables.verdict_grid(results),
        every_verdict=regimes_tables.verdict_grid(results, pooled=False),
        criteria=regimes_tables.criteria_grid(results),
        predictions=outcome.prediction_grid(results),
        machine=page.machine_grid(results),
        timings=page.timing_grid(results),
        config=json.dumps(results.get("config", {}), indent=2, sort_keys=True),
        repeat=results.get("repeat", f"jaxlora study {study} --from results.json"),
    )
