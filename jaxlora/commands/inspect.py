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
from rich.text import Text

from jaxlora import files, spectra
from jaxlora.commands import (
    bars,
    flags,
    inspect_figure,
    inspect_json,
    loading,
    printing,
)
from jaxlora.commands.printing import line, number, plain, span
from jaxlora.io.collection import Collection
from jaxlora.report.fidelity import short
from jaxlora.report.figures import png
from jaxlora.spectra import Group

PROG = "jaxlora inspect"
DESCRIPTION = """\
Shows what adapters are: shapes, ranks, scales, norms and spectra, and cosines of pairs.

Modules of one kind (q_proj of every layer) make a group. Everything is of the delta,
scale * A B, and does not depend on how it is split into A and B. A stable or effective
rank far below the rank says that a lower rank would do; a cosine near 0 that adapters
hardly meet, near 1 that they are the same, below 0 that their sum cancels. `top` is
the largest singular value of any layer; `spectrum` and `leading` are of root mean
squares over layers, `stable` (energy / top^2) and `effective` (by entropy) are means.

examples:
  jaxlora inspect ADAPTER
  jaxlora inspect A B C
  jaxlora inspect A B C --json numbers.json --figure spectra.png
"""
BARS = " ▁▂▃▄▅▆▇█"
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
    """Folders of PEFT adapters."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Write every number: of each module, with all singular values."""
    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Draw the spectra of each group, and the cosines."""


def run(arguments: Sequence[str]) -> int:
    """Reads, measures and shows."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    if not given.adapters:
        raise ValueError(
            f"Got no adapter to inspect; the command is `{PROG} ADAPTER...`."
        )
    loading.names(given.adapters)
    for path in filter(None, (given.json, given.figure)):
        flags.check_out(path)
    with bars.bar("inspecting") as move:
        library = loading.collect(given.adapters, move)
        groups = spectra.measure(library.library, library.ranks, move)
    console = printing.console()
    _show(console, library, groups)
    if given.json is not None:
        plain = inspect_json.plain(library, groups)
        files.write_text(
            given.json, json.dumps(plain, indent=1, allow_nan=False) + "\n"
        )
        line(console, f"{given.json}: every number")
    if given.figure is not None:
        chart = inspect_figure.chart(groups, library.names)
        files.write_whole(given.figure, png(chart))
        line(console, f"{given.figure}: spectra and cosines")
    return 0


def _show(console: Console, library: Collection, groups: Mapping[str, Group]) -> None:
    _adapters(console, library, groups)
    for i, name in enumerate(library.names):
        if len(library.names) > 1:
            line(console, name)
        _groups(console, groups, i)
    if len(library.names) > 1:
        _cosines(console, library.names, groups)
    for note in loading.notes(library):
        line(console, note)


def _adapters(
    console: Console, library: Collection, groups: Mapping[str, Group]
) -> None:
    table = plain("adapter", "base", "modules", "rank", "parameters", "norm")
    norms = np.sqrt(np.diagonal(spectra.total(groups)))
    for i, name in enumerate(library.names):
        ranks = np.concatenate([group.ranks[i] for group in groups.values()])
        table.add_row(
            Text(name),
            Text(library.base_names[i] or "not said"),
            str((ranks > 0).sum()),
            span(ranks[ranks > 0]),
            f"{spectra.parameters(groups, i):,}",
            number(norms[i]),
        )
    console.print(table)


def _groups(console: Console, groups: Mapping[str, Group], expert: int) -> None:
    wide = console.width >= WIDE
    more = ("modules", "spectrum", "leading") if wide else ()
    heads = "group", "in>out", "rank", "scale", "norm", "top", "stable", "effective"
    table = plain(*heads, *more)
    for name, group in zip(short(list(groups)), groups.values(), strict=True):
        there = group.ranks[expert] > 0
        if not there.any():
            continue
        values = group.spectrum[expert][: group.ranks[expert].max()]
        cells = (
            ">".join(map(str, group.shape)),
            span(group.ranks[expert][there]),
            span(group.scales[expert][there]),
            number(group.norms[expert]),
            number(group.singular[expert, :, 0].max()),
            f"{_mean(group.stable_rank[expert]):.1f}",
            f"{_mean(group.effective_rank[expert]):.1f}",
        )
        leading = " ".join(map(number, values[:LEADING]))
        last = (str(there.sum()), sparkline(values), leading) if wide else ()
        table.add_row(Text(name), *cells, *last)
    console.print(table)


def _cosines(
    console: Console, experts: Sequence[str], groups: Mapping[str, Group]
) -> None:
    matrix = spectra.cosines(spectra.total(groups))
    table = plain("cosine", *experts)
    for i, name in enumerate(experts):
        table.add_row(Text(name), *(number(x) for x in matrix[i]))
    console.print(table)
    pairs = list(itertools.combinations(range(len(experts)), 2))
    few = len(pairs) <= SHOWN
    heads = [f"{experts[i]}, {experts[j]}" for i, j in pairs]
    table = plain("cosine", *(heads if few else ("least", "mean", "largest")))
    for name, group in zip(short(list(groups)), groups.values(), strict=True):
        cosines = spectra.cosines(group.gram)
        values = np.asarray([cosines[i, j] for i, j in pairs])
        if not few:
            known = values[~np.isnan(values)]
            ends = (known.min(), known.mean(), known.max()) if len(known) else ()
            values = np.asarray(ends or (math.nan,) * 3)
        table.add_row(Text(name), *map(number, values))
    console.print(table)


def sparkline(values: np.ndarray) -> str:
    """Values from 0, as bars of eight heights; at most 16, which are means of runs.

    >>> sparkline(np.asarray([8.0, 4.0, 1.0]))
    '█▄▁'
    """
    parts = [run.mean() for run in np.array_split(values, min(16, len(values)))]
    top = max(parts, default=0.0)
    if not top > 0:
        return ""
    return "".join(BARS[math.ceil(round(8 * x / top, 6))] for x in parts)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
