"""One self-contained HTML page of a study: figures inside, no request to anywhere.

The words come from ``results`` and are escaped by the template; a content security
policy in the page forbids scripts and anything that is not in the file.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from jaxlora.files import write_whole
from jaxlora.report import (
    figures,
    leaderboard,
    outcome,
    overview,
    readings,
    routing,
    svg,
    tables,
)
from jaxlora.report.grid import Grid
from jaxlora.report.templates import template

NAME = "report.html"
_PARTS = {
    "compile_s": "compilation",
    "pretrain_s": "pretraining",
    "experts_s": "experts",
    "evaluate_s": "evaluation",
}


def write(
    rows: pd.DataFrame,
    results: Mapping[str, Any],
    out_dir: str | os.PathLike[str],
) -> Path:
    """Writes report.html, whole or not at all, and returns its path.

    Args:
      rows: as ``schema.COLUMNS``.
      results: as in results.json.
      out_dir: the folder of the run.
    """
    charts = figures.charts(rows) | leaderboard.charts(results)
    page = render(rows, results, svg.pictures(charts))
    return write_whole(Path(out_dir) / NAME, page.encode("utf-8"))


def render(
    rows: pd.DataFrame, results: Mapping[str, Any], pictures: Mapping[str, str]
) -> str:
    """Returns the page.

    Args:
      rows: as ``schema.COLUMNS``.
      results: as in results.json.
      pictures: ``{file name: SVG}``, from ``svg.pictures``.
    """
    rows = readings.tidy(rows)
    # There is always one sentence, even if nothing was measured.
    first, *others = outcome.headline(results)
    study = str(results.get("study", ""))
    order = (*figures.FIGURES, leaderboard.FIGURE)
    return template("page.html.jinja").render(
        study=study,
        headline=first,
        others=others,
        failed=list(results.get("failed_seeds", [])),
        meanings=outcome.meanings(results),
        # Inside the page, so that it can be sent as one file.
        figures={name: pictures[name] for name in order if name in pictures},
        config=json.dumps(results.get("config", {}), indent=2, sort_keys=True),
        repeat=results.get("repeat", f"jaxlora study {study} --from results.json"),
        left_out=results.get("left_out", []),
        roles=results.get("roles"),
        **_grids(rows, results),
    )


def _grids(rows: pd.DataFrame, results: Mapping[str, Any]) -> dict[str, Grid]:
    """The tables of the page, by the name that the template gives them."""
    return {
        "overview": overview.grid(rows, results),
        "criteria": outcome.criteria_grid(results),
        "closing": tables.closing_grid(rows),
        "leaderboard": leaderboard.grid(results),
        "routing": routing.routing_grid(rows),
        "routers": routing.routers_grid(rows),
        "lines": line_grid(rows),
        "differences": tables.difference_grid(rows),
        "predictions": outcome.prediction_grid(results),
        "verdicts": outcome.verdict_grid(results),
        "reasons": outcome.reason_grid(results),
        "machine": machine_grid(results),
        "timings": timing_grid(results),
    }


def line_grid(rows: pd.DataFrame) -> Grid:
    """Returns ``tables.main_table`` in words, with what each line keeps of the hops.

    Args:
      rows: as ``schema.COLUMNS``.
    """
    frame = tables.main_table(rows)
    body = tuple(_line(row) for row in frame.itertuples())
    header = ("cell", "coverage", "library", "asked", "accuracy", "hop 1", "hop 2")
    return Grid("Every library and method", (*header, "chance", "n"), body)


def _line(row: Any) -> tuple[str, ...]:
    def words(*names: str) -> str:
        value, lo, hi = (
            None if pd.isna(x) else float(x) for x in (getattr(row, n) for n in names)
        )
        return readings.Reading(value, lo, hi, status=row.status).text()

    return (
        row.cell,
        "–" if pd.isna(row.coverage) else f"{row.coverage:g}",
        outcome.library_title(row.library, row.method),
        row.split,
        words("value", "lo", "hi"),
        words("hop1", "hop1_lo", "hop1_hi"),
        words("hop2", "hop2_lo", "hop2_hi"),
        "–" if pd.isna(row.chance) else f"{row.chance:.2f}",
        str(row.n),
    )


def machine_grid(results: Mapping[str, Any]) -> Grid:
    """Returns versions, device and git revision.

    Args:
      results: as in results.json.
    """
    versions = results.get("versions", {})
    body = [(str(name), str(version)) for name, version in versions.items()]
    body += [
        ("device", str(results.get("device") or "–")),
        ("git revision", str(results.get("git_revision") or "–")),
    ]
    return Grid("Versions and device", ("", ""), tuple(body))


def timing_grid(results: Mapping[str, Any]) -> Grid:
    """Returns where the time went; what no part claims is ``other``.

    Args:
      results: as in results.json.
    """
    timings = results.get("timings", {})
    total = float(timings.get("total_s") or 0.0)
    parts = {word: float(timings.get(key) or 0.0) for key, word in _PARTS.items()}
    # Clocks of parts overlap a little; a negative rest would be nonsense.
    parts["other"] = max(0.0, total - sum(parts.values()))
    body = [
        (word, f"{seconds:.1f}", f"{seconds / total:.0%}" if total else "–")
        for word, seconds in (*parts.items(), ("total", total))
    ]
    return Grid("Time", ("", "seconds", "share"), tuple(body), "", True)
