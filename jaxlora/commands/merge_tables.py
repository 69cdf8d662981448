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
from jaxlora.commands import merge_choice, merge_sentence, printing
from jaxlora.commands.flags import merge_fields
from jaxlora.commands.flags.merge_fields import flag_of
from jaxlora.commands.printing import line, number, span, table
from jaxlora.io import peft
from jaxlora.io.collection import Collection
from jaxlora.merge import LAWS, Merge
from jaxlora.merge.groups import Totals
from jaxlora.report.fidelity import short

SEES = {"free": "data-free", "own": "own data", "target": "target data"}
"""What a method must see besides the adapters, in words."""

NEEDS = {
    "regmean": "mean of x x^T over the inputs x of each module, [in, in]",
    "fisher": "importance of each entry of the dense update, [in, out]",
    "cat": "one learned number",
    "lorahub": "one number that was searched for",
    "lorahub[original]": "one number that was searched for",
}
"""What ``--statistics`` holds for each adapter and module."""

_RATIOS = "error", "norm", "cross", "outside"


def rows() -> list[dict[str, Any]]:
    """What ``jaxlora merge --list --all`` shows of each method, as it is now."""
    entries = [(name, merge.describe(name)) for name in merge.names()]
    return [
        {
            "method": name,
            "space": entry.default.space,
            "keeps": kept(entry.default),
            "what it is": entry.summary,
            "sees": SEES[entry.data],
            "draws": entry.needs_key,
            "source": entry.source,
        }
        for name, entry in entries
    ]


def listed(words: Sequence[str], prog: str) -> int:
    """Prints what ``--list`` asks for: methods to try first, all, or some by name.

    Args:
      words: after the flag.
      prog: name of the command.

    Returns:
      0, the exit code.

    Raises:
      ValueError: if a word is no name of a method.
    """
    if list(words) == ["--all"]:
        return merge_choice.run(["--list", "--all"])
    odd = [word for word in words if word.startswith("-")]
    if odd:
        raise ValueError(
            f"`{prog} --list` takes names of methods only, got {odd[0]}; as in "
            f"`{prog} --list ties`."
        )
    if not words:
        return merge_choice.run()
    console = printing.console()
    for name in words:
        describe(console, name, merge_fields.fields(name))
    return 0


def describe(console: Console, name: str, fields: Mapping[str, Any]) -> None:
    """Prints what there is to say of one method.

    Args:
      console: where to.
      name: of the method, or ``module:attribute``.
      fields: of the method, and their defaults.
    """
    rows = [("method", name)]
    laws: frozenset[str] = frozenset()
    if ":" not in name:
        entry = merge.describe(name)
        laws = entry.default.laws
        rows += [
            ("what it is", entry.summary),
            ("source", entry.source),
            ("sees", SEES[entry.data]),
            ("space", entry.default.space),
            ("draws", "yes, by --seed" if entry.needs_key else "no"),
        ]
    if name in NEEDS:
        rows.append(("--statistics", f"for each adapter and module: {NEEDS[name]}"))
    shown = {x: "none" if fields[x] == () else fields[x] for x in fields}
    defaults = [f"{flag_of(x)}, by default {shown[x]}" for x in fields] or ["none"]
    rows += [("field", text) for text in defaults]
    rows += [("keeps", f"{law}: {LAWS[law]}") for law in LAWS if law in laws]
    facts = Table(show_header=False, box=None)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for key, text in rows:
        facts.add_row(key, Text(text))
    console.print(facts)


def kept(method: Merge) -> str:
    """The laws that a merge keeps, in words; those that it breaks, if they are fewer.

    Args:
      method: the merge.

    >>> kept(merge.preset("mean")), kept(merge.preset("factor-mean"))
    ('all', 'all but gauge, linearity')
    >>> kept(merge.preset("dare"))
    'gauge'
    """
    held = [law for law in LAWS if law in method.laws]
    broken = [law for law in LAWS if law not in method.laws]
    if not broken:
        return "all"
    if len(broken) < len(held):
        return f"all but {_words(broken)}"
    return _words(held) or "none"


def _words(laws: Sequence[str]) -> str:
    return ", ".join(law.replace("_", " ") for law in laws)


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
    rank = span(module.rank for module in modules)
    line(
        console,
        f"{out}: {method} of {_count(len(weights), 'adapter')}, rank {rank} in "
        f"{_count(len(modules), 'module')}, norm {totals.merged:.4g}",
    )
    ranks = np.concatenate(list(library.ranks.values()), axis=1)
    rows = [
        (
            name,
            f"{weights[i]:g}",
            span(ranks[i][ranks[i] > 0]),
            number(totals.norms[i]) if weights[i] else "left out",
            number(totals.coefficients[i]),
        )
        for i, name in enumerate(library.names)
    ]
    table(console, ("adapter", "weight", "rank", "norm", "coefficient"), rows)
    line(console, merge_sentence.sentence(method, library.names, weights, totals))
    ratio = totals.merged / totals.exact if totals.exact else math.nan
    line(
        console,
        f"against the exact weighted sum: relative error {number(totals.error)}, norm "
        f"ratio {number(ratio)}, cosine {number(totals.cosine)}",
    )


def fidelity(console: Console, measured: pd.DataFrame) -> None:
    """Prints a fidelity table, a line for each group.

    Args:
      console: where to.
      measured: as ``report.fidelity.table`` makes it.
    """
    columns = [str(name) for name in measured.columns[len(_RATIOS) :]]
    experts = [name.partition(": ")[2] for name in columns]
    sites = [*short([str(name) for name in measured.index[:-1]]), "total"]
    rows = zip(sites, measured.to_numpy(float), strict=True)
    table(
        console,
        ("group", *_RATIOS, *experts),
        [(site, *map(number, row)) for site, row in rows],
    )
    line(
        console,
        "error, norm: against the exact weighted sum; cross, outside: shares of the "
        "result's energy\nbetween experts, and outside of their span; then the "
        "effective coefficient of each expert",
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"
