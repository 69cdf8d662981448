"""``jaxlora merge --list``: which merges to try first, and when. Imports no JAX."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from jaxlora.commands import printing

EVERY = Path(__file__).parent / "merge_list.json"
"""Rows of all methods, as `python -m jaxlora.commands.pages` writes them."""
WIDE = 140
"""Columns of a terminal from which each thing has a column of its own."""
FREE = "data-free"


class Choice(NamedTuple):
    """A merge to try, with what it measured where there is headroom."""

    name: str
    when: str
    needs: str
    written: float
    """Accuracy on new two-hop questions: experts that practise, the bridge written."""
    layers: float
    """The same of experts in low and in high layers, asked directly."""
    kept: float
    """Accuracy on familiar questions, with the experts of ``written``."""


CHOICES = (
    Choice(
        "mean",
        "first: none of 68 others joins such experts measurably better, and few spare "
        "the base as much; but each of E experts acts at 1/E",
        "-",
        0.89,
        0.10,
        0.93,
    ),
    Choice(
        "sum",
        "an expert at a part of its strength fails: experts of different layers, or "
        "skills that must act in full; costs what the base knew",
        "-",
        0.86,
        0.29,
        0.60,
    ),
    Choice(
        "svd",
        "as sum, in a file of the experts' rank",
        "-",
        0.83,
        0.29,
        0.65,
    ),
    Choice(
        "tsv",
        "as sum, where experts overlap: their singular vectors are made orthogonal",
        "-",
        0.89,
        0.29,
        0.65,
    ),
    Choice(
        "regmean",
        "inputs of each expert's training are at hand: keeps what each expert says on "
        "them",
        "--statistics",
        0.90,
        0.16,
        0.83,
    ),
)
JOINT = (0.94, 0.08)
"""One LoRA on both fact sets, in the place of ``written`` and ``layers``."""
PEOPLE = 63
"""Questions behind each of these numbers."""
NOTE = f"""\
written, layers: accuracy on new two-hop questions of experts that practise and write
the bridge (one LoRA on both: {JOINT[0]}), and of one expert in low and one in high
layers ({JOINT[1]}); kept: on familiar ones, beside "written". Of {PEOPLE} questions, so
that less than 0.15 says little (experiments/boundary/leaderboard.md).

`jaxlora merge --list --all` shows every method, controls and other programs' forms too;
`jaxlora merge --list NAME` the fields of one, and what it promises.
"""


def run(words: Sequence[str] = ()) -> int:
    """Prints the choices, or with ``--all`` every method."""
    console = printing.console()
    if "--all" in words:
        return _every(console)
    heads = ("method", "take it when", "needs", "written", "layers", "kept")
    rows = [
        (x.name, x.when, x.needs, *(f"{v:.2f}" for v in (x.written, x.layers, x.kept)))
        for x in CHOICES
    ]
    printing.table(console, heads, rows)
    printing.line(console, NOTE.rstrip())
    return 0


def _every(console: Console) -> int:
    rows = json.loads(EVERY.read_text(encoding="utf-8"))
    wide = console.width >= WIDE
    columns = ("sees", "draws", "source") if wide else ()
    heads = ("method", "space", "keeps", "what it is", *columns)
    printing.table(console, heads, [_cells(row, wide) for row in rows])
    printing.line(
        console,
        "keeps: the laws that hold at the defaults; `jaxlora merge --list NAME` says "
        "what they mean,\nand which fields there are",
    )
    return 0


def _cells(row: dict[str, Any], wide: bool) -> tuple[str, ...]:
    cells = row["method"], row["space"], row["keeps"]
    if wide:
        draws = "yes" * row["draws"]
        return *cells, row["what it is"], row["sees"], draws, row["source"]
    draws = "; draws" * row["draws"]
    sees = "" if row["sees"] == FREE else f"; needs {row['sees']}"
    return *cells, f"{row['what it is']}{draws}{sees}"
