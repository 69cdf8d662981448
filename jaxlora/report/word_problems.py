"""The word-problem study as figures, tables.md and one page, of a folder in one call.

``make("results/word-problems")`` reads results.csv and results.json and writes the
rest.
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
    regimes_tables,
    svg,
    word_problems_facts,
    word_problems_figure,
    word_problems_finding,
    word_problems_judged,
    word_problems_law_figure,
    word_problems_laws,
    word_problems_levels,
    word_problems_maps,
    word_problems_ranked,
    word_problems_readings,
    word_problems_tables,
)
from jaxlora.report.grid import Grid, markdown_table
from jaxlora.report.templates import template
from jaxlora.report.word_problems_facts import Forms
from jaxlora.report.word_problems_readings import Book
from jaxlora.strangers import data

FIGURES: dict[str, Callable[[Book], Figure]] = {
    "overlap.png": word_problems_figure.overlap,
    "law.png": word_problems_law_figure.law,
    "levels.png": word_problems_maps.easy_to_hard,
}
ANSWERS = "answers.png"
"""The figure that two-hop facts may stand in as well."""


def make(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    two_hop: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Draws figures, tables.md and report.html of a run that is finished.

    Args:
      folder: with results.csv (or results.csv.gz) and results.json.
      out: where to; by default the same folder.
      two_hop: folder of a boundary study's results, to show beside.

    Returns:
      The files that were written.

    Raises:
      FileNotFoundError: if the folder holds no results.
      ValueError: if ``two_hop`` holds none of a boundary study.
    """
    source, target = Path(folder), Path(folder if out is None else out)
    packed = source / "results.csv.gz"
    rows = pd.read_csv(packed if packed.exists() else source / "results.csv")
    results = data.read(source / "results.json", finite=False)
    facts = word_problems_facts.read(None if two_hop is None else Path(two_hop))
    return save(rows, results, target, facts)


def save(
    rows: pd.DataFrame,
    results: Mapping[str, Any],
    out: str | os.PathLike[str],
    facts: tuple[Forms, ...] = (),
) -> list[Path]:
    """Writes every figure that the rows can fill, tables.md and report.html.

    Args:
      rows: as ``schema.COLUMNS``.
      results: as in results.json.
      out: the folder of the run.
      facts: of a boundary study, from ``word_problems_facts.read``.

    Returns:
      The files, the page last.
    """
    book, folder = word_problems_readings.book(rows, results), Path(out)
    drawn = charts(book, facts)
    images = [write_whole(folder / n, figures.png(chart)) for n, chart in drawn.items()]
    tables = write_text(folder / "tables.md", to_markdown(book, results, facts))
    html = to_html(book, results, svg.pictures(drawn), facts)
    return [*images, tables, write_text(folder / page.NAME, html)]


def charts(book: Book, facts: tuple[Forms, ...] = ()) -> dict[str, Figure]:
    """Returns every figure that there is something to show in, by its file name.

    Args:
      book: of a run.
      facts: of a boundary study.
    """
    every = FIGURES | {ANSWERS: lambda x: word_problems_maps.answers(x, facts)}
    out = {}
    for name, make_figure in every.items():
        # A small run has no levels, or no law; its other figures are drawn.
        with contextlib.suppress(draw.NothingToShowError):
            out[name] = make_figure(book)
    return out


def grids(book: Book, facts: tuple[Forms, ...] = ()) -> list[Grid]:
    """Returns the tables that there is something to show in, in reading order.

    Args:
      book: of a run.
      facts: of a boundary study.
    """
    every = (
        word_problems_tables.overlap_grid(book),
        word_problems_laws.law_grid(book),
        word_problems_tables.template_grid(book),
        word_problems_levels.level_grid(book),
        word_problems_tables.size_grid(book),
        word_problems_tables.coverage_grid(book),
        word_problems_ranked.leaderboard_grid(book),
        word_problems_laws.error_grid(book),
        word_problems_facts.answer_grid(book, facts),
        word_problems_tables.control_grid(book),
    )
    return [x for x in every if x.body]


def checks(results: Mapping[str, Any]) -> list[Grid]:
    """Returns predictions and criteria.

    Args:
      results: as in results.json.
    """
    every = (
        outcome.prediction_grid(results),
        word_problems_judged.criteria_grid(results),
        word_problems_judged.expert_grid(results),
    )
    return [x for x in every if x.body]


def details(book: Book, results: Mapping[str, Any]) -> list[Grid]:
    """Returns the long tables, which the page folds.

    Args:
      book: of a run.
      results: as in results.json.
    """
    every = (
        word_problems_judged.verdict_grid(results),
        word_problems_judged.verdict_grid(results, answers=True),
        word_problems_laws.every_law_grid(book),
    )
    return [x for x in every if x.body]


def to_markdown(
    book: Book, results: Mapping[str, Any], facts: tuple[Forms, ...] = ()
) -> str:
    """Returns the tables, and the finding before them.

    Args:
      book: of a run.
      results: as in results.json.
      facts: of a boundary study.
    """
    parts = [*word_problems_finding.sentences(book), regimes_tables.endings(results)]
    shown = (*grids(book, facts), *checks(results), *details(book, results)[:1])
    for grid in shown:
        parts += [f"## {grid.title}", markdown_table(grid), grid.note]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html(
    book: Book,
    results: Mapping[str, Any],
    pictures: Mapping[str, str],
    facts: tuple[Forms, ...] = (),
) -> str:
    """Returns the page, with its figures inside.

    Args:
      book: of a run.
      results: as in results.json.
      pictures: the figures, from ``svg.pictures``.
      facts: of a boundary study.
    """
    return template("word_problems.html.jinja").render(
        study=str(results.get("study", "")),
        finding=word_problems_finding.sentences(book),
        endings=regimes_tables.endings(results),
        failed=list(results.get("failed_seeds", [])),
        meanings=outcome.meanings(results),
        figures=pictures,
        tables=grids(book, facts),
        checks=checks(results),
        details=details(book, results),
        machine=page.machine_grid(results),
        timings=page.timing_grid(results),
        config=json.dumps(results.get("config", {}), indent=2, sort_keys=True),
        repeat="jaxlora study word-problems --from results.json",
    )
