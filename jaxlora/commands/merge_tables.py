"""What ``jaxlora merge`` says: the methods there are, and what came out of one."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxlora import merge
from jaxlora.io import peft
from jaxlora.io.collection import Collection
from jaxlora.merge import LAWS, Merge
from jaxlora.merge.groups import Totals
from jaxlora.report.fidelity import short

SEES = {"free": "data-free", "own": "own data", "target": "target data"}
"""What a method must see besides the adapters, in words."""

WIDE = 140
"""Columns of a terminal from which each thing has a column of its own."""

NEEDS = {
    "regmean": "mean of x x^T over the inputs x of each module, [in, in]",
    "fisher": "importance of each entry of the dense update, [in, out]",
    "cat": "one learned number",
    "lorahub": "one number that was searched for",
    "lorahub[original]": "one number that was searched for",
}
"""What ``--data`` holds for each adapter and module."""

_LETTERS = {law: law[0] for law in LAWS} | {"padding": "d"}
_RATIOS = "error", "norm", "cross", "outside"


def every(console: Console) -> None:
    """Prints all methods."""
    wide = console.width >= WIDE
    columns = ("sees", "draws", "source") if wide else ()
    table = plain("method", "space", "keeps", "what it is", *columns)
    for name in merge.names():
        entry = merge.describe(name)
        made = entry.make()
        sees = "" if made.data == "free" else SEES[made.data]
        more = SEES[made.data], "yes" if entry.needs_key else "", entry.source
        words = entry.summary
        if not wide:
            words += "; draws" if entry.needs_key else ""
            words += f"; needs {sees}" if sees else ""
        cells = name, made.space, letters(made), words, *(more if wide else ())
        table.add_row(*map(Text, cells))
    console.print(table)
    laws = ", ".join(f"{_LETTERS[law]} {law}" for law in LAWS)
    line(
        console,
        f"keeps, at the defaults: {laws}\n"
        f"`jaxlora merge --list NAME` says what they mean, and which fields there are",
    )


def one(console: Console, name: str, fields: Mapping[str, Any]) -> None:
    """Prints what there is to say of one method."""
    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    rows = {"method": name}
    laws: frozenset[str] = frozenset()
    if ":" not in name:
        entry = merge.describe(name)
        made = entry.make()
        laws = made.laws
        rows |= {
            "what it is": entry.summary,
            "source": entry.source,
            "sees": SEES[made.data],
            "space": made.space,
            "draws": "yes, by --seed" if entry.needs_key else "no",
        }
    if name in NEEDS:
        rows["--data"] = f"for each adapter and module: {NEEDS[name]}"
    for key, text in rows.items():
        table.add_row(key, Text(text))
    for field, default in fields.items():
        flag = f"--{field.replace('_', '-')}"
        table.add_row("field", Text(f"{flag}, by default {default}"))
    if not fields:
        table.add_row("field", "none")
    for law, says in LAWS.items():
        if law in laws:
            table.add_row("keeps", Text(f"{law}: {says}"))
    console.print(table)


def letters(made: Merge) -> str:
    """The laws that a merge keeps, a letter each, in the order of ``LAWS``.

    >>> letters(merge.preset("factor-mean"))
    'ip··zd'
    """
    return "".join(_LETTERS[law] if law in made.laws else "·" for law in LAWS)


def summary(
    console: Console,
    out: Path,
    method: str,
    found: Collection,
    weights: Sequence[float],
    totals: Totals,
) -> None:
    """Prints what went into a merge and what came out."""
    written = peft.open_folder(out).modules.values()
    rank = span(module.rank for module in written)
    table = plain("adapter", "weight", "rank", "norm", "coefficient")
    for i, name in enumerate(found.names):
        ranks = np.concatenate([ranks[i] for ranks in found.ranks.values()])
        table.add_row(
            Text(name),
            f"{weights[i]:g}",
            span(ranks[ranks > 0]),
            number(totals.norms[i]) if weights[i] else "left out",
            number(totals.coefficients[i]),
        )
    line(console, f"{out}: {method} of {_count(len(weights), 'adapter')}, ", end="")
    line(
        console,
        f"rank {rank} in {_count(len(written), 'module')}, norm {totals.merged:.4g}",
    )
    console.print(table)
    line(
        console,
        f"against the exact weighted sum: relative error {number(totals.error)}, norm "
        f"ratio {number(totals.merged / totals.exact if totals.exact else math.nan)}, "
        f"cosine {number(totals.cosine)}",
    )


def fidelity(console: Console, table: pd.DataFrame) -> None:
    """Prints a fidelity table, a line for each group."""
    experts = [str(name).partition(": ")[2] for name in table.columns[len(_RATIOS) :]]
    shown = plain("group", *_RATIOS, *experts)
    sites = short([str(name) for name in table.index[:-1]])
    for name, (_, row) in zip([*sites, "total"], table.iterrows(), strict=True):
        shown.add_row(Text(name), *(number(float(value)) for value in row))
    console.print(shown)
    line(
        console,
        "error, norm: against the exact weighted sum; cross, outside: shares of the "
        "result's energy\nbetween experts, and outside of their span; then the "
        "effective coefficient of each expert",
    )


def console() -> Console:
    """Standard output; of any width where no terminal bounds it."""
    found = Console()
    return found if found.is_terminal else Console(width=200)


def plain(*heads: str) -> Table:
    """A table of text on the left and numbers beside it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, head in enumerate(heads):
        table.add_column(head, no_wrap=i == 0)
    return table


def span(values: Iterable[float]) -> str:
    """One number, or the least and the largest.

    >>> span([4, 8, 4])
    '4-8'
    """
    found = sorted(set(values))
    if not found:
        return "none"
    ends = (found[0],) if len(found) == 1 else (found[0], found[-1])
    return "-".join(f"{value:.4g}" for value in ends)


def number(value: float) -> str:
    """Three digits; what is below rounding is 0, and what is undefined a dash.

    >>> number(0.41234), number(3e-8), number(math.nan)
    ('0.412', '0.000', '-')
    """
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if abs(value) >= 1000 else f"{value:.3f}"


def line(console: Console, text: str, end: str = "\n") -> None:
    """Prints words as they are, and does not wrap paths."""
    console.print(text, markup=False, highlight=False, soft_wrap=True, end=end)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"
