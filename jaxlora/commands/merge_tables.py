"""What ``jaxlora merge`` says: the methods there are, and what came out of one."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxlora import merge
from jaxlora.commands.flags.merge_fields import flag_of
from jaxlora.commands.printing import line, number, plain, span
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
        method = entry.default
        sees = "" if entry.data == "free" else SEES[entry.data]
        more = SEES[entry.data], "yes" if entry.needs_key else "", entry.source
        words = entry.summary
        if not wide:
            words += "; draws" if entry.needs_key else ""
            words += f"; needs {sees}" if sees else ""
        cells = name, method.space, letters(method), words, *(more if wide else ())
        table.add_row(*map(Text, cells))
    console.print(table)
    laws = ", ".join(f"{_LETTERS[law]} {law}" for law in LAWS)
    line(
        console,
        f"keeps, at the defaults: {laws}\n"
        f"`jaxlora merge --list NAME` says what they mean, and which fields there are",
    )


def describe(console: Console, name: str, fields: Mapping[str, Any]) -> None:
    """Prints what there is to say of one method.

    Args:
      console: where to.
      name: of the method, or ``module:attribute``.
      fields: of the method, and their defaults.
    """
    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    rows = {"method": name}
    laws: frozenset[str] = frozenset()
    if ":" not in name:
        entry = merge.describe(name)
        laws = entry.default.laws
        rows |= {
            "what it is": entry.summary,
            "source": entry.source,
            "sees": SEES[entry.data],
            "space": entry.default.space,
            "draws": "yes, by --seed" if entry.needs_key else "no",
        }
    if name in NEEDS:
        rows["--data"] = f"for each adapter and module: {NEEDS[name]}"
    for key, text in rows.items():
        table.add_row(key, Text(text))
    for field, default in fields.items():
        table.add_row("field", Text(f"{flag_of(field)}, by default {default}"))
    if not fields:
        table.add_row("field", "none")
    for law, says in LAWS.items():
        if law in laws:
            table.add_row("keeps", Text(f"{law}: {says}"))
    console.print(table)


def letters(method: Merge) -> str:
    """The laws that a merge keeps, a letter each, in the order of ``LAWS``.

    Args:
      method: the merge.

    >>> letters(merge.preset("factor-mean"))
    'ip··zd'
    """
    return "".join(_LETTERS[law] if law in method.laws else "·" for law in LAWS)


def summary(
    console: Console,
    out: Path,
    method: str,
    library: Collection,
    weights: Sequence[float],
    totals: Totals,
) -> None:
    """Prints what went into a merge and what came out.

    Args:
      console: where to.
      out: the folder that was written.
      method: by its name.
      library: the adapters that were merged.
      weights: one for each of them.
      totals: the merge beside them.
    """
    modules = peft.open_folder(out).modules.values()
    table = plain("adapter", "weight", "rank", "norm", "coefficient")
    for i, name in enumerate(library.names):
        ranks = np.concatenate([ranks[i] for ranks in library.ranks.values()])
        table.add_row(
            Text(name),
            f"{weights[i]:g}",
            span(ranks[ranks > 0]),
            number(totals.norms[i]) if weights[i] else "left out",
            number(totals.coefficients[i]),
        )
    line(
        console,
        f"{out}: {method} of {_count(len(weights), 'adapter')}, rank "
        f"{span(module.rank for module in modules)} in "
        f"{_count(len(modules), 'module')}, norm {totals.merged:.4g}",
    )
    console.print(table)
    ratio = totals.merged / totals.exact if totals.exact else math.nan
    line(
        console,
        f"against the exact weighted sum: relative error {number(totals.error)}, norm "
        f"ratio {number(ratio)}, cosine {number(totals.cosine)}",
    )


def fidelity(console: Console, table: pd.DataFrame) -> None:
    """Prints a fidelity table, a line for each group.

    Args:
      console: where to.
      table: as ``report.fidelity.table`` makes it.
    """
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


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"
