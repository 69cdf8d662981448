"""``jaxlora inspect``: what adapters are, and how alike; no base model is needed."""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from jaxlora import files, spectra
from jaxlora.commands import bars, flags, printing
from jaxlora.commands.flags import outputs
from jaxlora.commands.printing import line, number, span, table
from jaxlora.io import (
    adapter_folders,
    collection,
    collection_about,
    collection_beside,
)
from jaxlora.io.collection import Collection
from jaxlora.report import formats, spectra_figure, spectra_numbers
from jaxlora.report.fidelity import short
from jaxlora.spectra import Group

PROG = "jaxlora inspect"
DESCRIPTION = """\
Shows what adapters are: shapes, ranks, scales, norms, spectra, pairs' cosines.

Modules of one kind (q_proj of every layer) make a group. Everything is of the delta,
scale * A B, and does not depend on how it is split into A and B. A stable or effective
rank far below the rank says that a lower rank would do; a cosine near 0 that adapters
hardly meet, near 1 that they are the same, below 0 that their sum cancels. `top` is
the largest singular value of any layer; `spectrum` and `leading` are of root mean
squares over layers, `stable` (energy / top^2) and `effective` (by entropy) are means.

examples:
  jaxlora inspect ADAPTER
  jaxlora inspect A B C
  jaxlora inspect A B C --table numbers.json --figure spectra.svg
"""
WIDE = 110
"""Columns of a terminal from which the spectra are shown."""

SHOWN, LEADING = 8, 4
"""Pairs, and singular values, that a table shows one by one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Shows what adapters are, and how alike."""

    adapters: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="ADAPTER...")
    ] = ()
    """Folders of PEFT adapters, or of libraries of several."""
    table: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write every number of each module, with all singular values, as .csv or .md; as
    .json also of groups, and cosines."""
    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Draw the spectra of each group, and the cosines, as .png, .svg or .pdf."""
    force: flags.Force = False


def run(arguments: Sequence[str]) -> int:
    """Reads, measures and shows."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    if not given.adapters:
        raise ValueError(
            f"Got no adapter to inspect; the command is `{PROG} ADAPTER...`."
        )
    folders = adapter_folders.expand(given.adapters)
    names = collection_about.names(folders)
    outputs.check_files(given.force, given.table, given.figure)
    formats.check(given.table, formats.TABLES, "table")
    formats.check(given.figure, formats.FIGURES, "figure")
    printing.say(adapter_folders.notes(given.adapters))
    with bars.bar("inspecting") as move:
        library = collection.open_folders(folders, names=names)
        groups = spectra.measure(library.library, library.ranks, move)
    console = printing.console()
    _show(console, library, groups)
    if given.table is not None:
        _write(given.table, library, groups)
        line(console, f"{given.table}: every number")
    if given.figure is not None:
        formats.draw(spectra_figure.chart(groups, library.names), given.figure)
        line(console, f"{given.figure}: spectra and cosines")
    return 0


def _write(path: Path, library: Collection, groups: Mapping[str, Group]) -> None:
    if path.suffix.lower() != ".json":
        formats.tabulate(spectra_numbers.rows(library, groups), path)
        return
    numbers = spectra_numbers.plain(library, groups)
    text = json.dumps(numbers, indent=1, allow_nan=False)
    files.write_text(path, f"{text}\n")


def _show(console: Console, library: Collection, groups: Mapping[str, Group]) -> None:
    _adapters(console, library, groups)
    heads = ("group", "in>out", "rank", "scale", "norm", "top", "stable", "effective")
    if console.width >= WIDE:
        heads += ("modules", "spectrum", "leading")
    shown = dict(zip(short(list(groups)), groups.values(), strict=True))
    for i, adapter in enumerate(library.names):
        if len(library.names) > 1:
            line(console, adapter)
        there = {name: group for name, group in shown.items() if group.ranks[i].any()}
        rows = [(name, *_group(group, i)) for name, group in there.items()]
        table(console, heads, [row[: len(heads)] for row in rows])
    if len(library.names) > 1:
        _cosines(console, library.names, shown)
    squares = {name: group.energy for name, group in groups.items()}
    beside = collection_beside.notes(library.names, library.files)
    for note in (*collection_about.notes(library), *beside):
        line(console, note)
    for note in collection_about.nothing(library, squares):
        line(console, note)


def _adapters(
    console: Console, library: Collection, groups: Mapping[str, Group]
) -> None:
    norms = np.sqrt(np.diagonal(spectra.total(groups)))
    ranks = np.concatenate([group.ranks for group in groups.values()], axis=1)
    rows = [
        (
            name,
            library.base_names[i] or "not said",
            str((ranks[i] > 0).sum()),
            span(ranks[i][ranks[i] > 0]),
            f"{spectra.parameters(groups, i):,}",
            number(norms[i]),
        )
        for i, name in enumerate(library.names)
    ]
    heads = ("adapter", "base", "modules", "rank", "parameters", "norm")
    table(console, heads, rows)


def _group(group: Group, expert: int) -> tuple[str, ...]:
    """What is shown of one adapter in one group; the last three if there is room."""
    ranks = group.ranks[expert]
    values = group.spectrum[expert][: ranks.max()]
    return (
        ">".join(map(str, group.shape)),
        span(ranks[ranks > 0]),
        span(group.scales[expert][ranks > 0]),
        number(group.norms[expert]),
        number(group.singular[expert, :, 0].max()),
        f"{_summed_up(group.stable_rank[expert])[1]:.1f}",
        f"{_summed_up(group.effective_rank[expert])[1]:.1f}",
        str((ranks > 0).sum()),
        spectra_figure.sparkline(values),
        " ".join(map(number, values[:LEADING])),
    )


def _cosines(
    console: Console, experts: Sequence[str], groups: Mapping[str, Group]
) -> None:
    """Prints cosines of whole adapters and of each group; many pairs are summed up."""
    matrix = spectra.cosines(spectra.total(groups))
    rows = zip(experts, matrix, strict=True)
    table(console, ("cosine", *experts), [(x, *map(number, row)) for x, row in rows])
    i, j = np.triu_indices(len(experts), 1)
    pairs = {name: spectra.cosines(group.gram)[i, j] for name, group in groups.items()}
    heads = [f"{x}, {y}" for x, y in itertools.combinations(experts, 2)]
    if len(heads) > SHOWN:
        heads = ["least", "mean", "largest"]
        pairs = {name: _summed_up(values) for name, values in pairs.items()}
    rows = [(name, *map(number, values)) for name, values in pairs.items()]
    table(console, ("cosine", *heads), rows)


def _summed_up(values: np.ndarray) -> tuple[float, float, float]:
    """Least, mean and largest of the values that are numbers."""
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan, math.nan, math.nan
    return known.min(), known.mean(), known.max()
