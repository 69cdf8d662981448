"""``jaxlora merge --list``: which merges to try first, and when. Imports no JAX."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxlora.commands import printing


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


def run(_: Sequence[str] = ()) -> int:
    """Prints the choices."""
    console = printing.console()
    heads = ("method", "take it when", "needs", "written", "layers", "kept")
    rows = [
        (x.name, x.when, x.needs, *(f"{v:.2f}" for v in (x.written, x.layers, x.kept)))
        for x in CHOICES
    ]
    printing.table(console, heads, rows)
    printing.line(console, NOTE.rstrip())
    return 0
