"""``jaxlora report``: one study of the shares that several machines did."""

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from jaxlora import locks
from jaxlora.commands import flags
from jaxlora.commands.flags import outputs
from jaxlora.strangers import data
from jaxlora.studies.harness import share
from jaxlora.studies.two_hop.symbols import config as symbols
from jaxlora.studies.two_hop.text import config as text

PROG = "jaxlora report"
DESCRIPTION = """\
Joins the shares of a two-hop study, sums it up, and writes tables and a page.

Machines that did a share each (--share 0/4, 1/4, ...) left blocks of answers, bases and
experts. They are copied into OUT, and the study goes on there: what is complete is only
summed up, and what a share lacks is made now.

examples:
  jaxlora report part-0 part-1 part-2 part-3 --out results/two-hop
"""


class Command(NamedTuple):
    """What goes on with a study."""

    module: str
    option: str
    """The flag that reads its configuration."""
    free: tuple[str, ...]
    """Fields in which its shares may differ."""
    words: tuple[str, ...] = ()
    """What is otherwise here than on the machines of the shares."""


COMMANDS = {
    symbols.STUDY: Command("study", "--from", symbols.FREE),
    # Their devices are not those of this machine.
    text.STUDY: Command("study_text", "--config", text.FREE, ("--mesh", "")),
}
"""By the study's name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Joins the shares of a study."""

    shares: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="SHARE...")
    ] = ()
    """Folders, each the --out of one share."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the joined study; new, or of an earlier join."""
    force: flags.Force = False


def run(arguments: Sequence[str]) -> int:
    """Joins, and lets the study's command go on; its exit code."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    if not given.shares:
        raise ValueError(
            f"Got no share to join; the command is `{PROG} SHARE... --out DIR`."
        )
    going = COMMANDS[_study(given.shares[0])]
    with locks.folder(given.out):
        if given.force and (given.out / "study.json").exists():
            outputs.remove(given.out, outputs.STUDY)
        share.join(given.shares, given.out, going.free)
    command = importlib.import_module(f"jaxlora.commands.{going.module}")
    words = [going.option, str(given.out / "study.json"), *going.words]
    words += ["--out", str(given.out), "--cache-dir", str(given.out / share.CACHE)]
    return command.run(words)


def _study(folder: Path) -> str:
    path = folder / "study.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no study.json, expected the --out of a share."
        )
    stored = data.read(path, what="what a run has written")
    name = stored.get("study") if isinstance(stored, dict) else None
    if not isinstance(name, str):
        raise ValueError(
            f"{path} names no study, expected what a run has written; is {folder} the "
            f"--out of a share?"
        )
    if name not in COMMANDS:
        raise ValueError(
            f"{folder} is of the study {name!r}, which has no shares; those that have "
            f"are {' and '.join(COMMANDS)}."
        )
    return name
