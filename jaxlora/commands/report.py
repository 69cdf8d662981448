"""``jaxlora report``: one study of the shares that several machines did."""

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from jaxlora import locks
from jaxlora.commands import flags
from jaxlora.commands.flags import outputs
from jaxlora.strangers import data
from jaxlora.studies.harness import share
from jaxlora.studies.two_hop.symbols.config import STUDY as SYMBOLS
from jaxlora.studies.two_hop.text.config import STUDY as TEXT

PROG = "jaxlora report"
DESCRIPTION = """\
Joins the shares of a two-hop study, sums it up, and writes its tables and its page.

Machines that did a share each (--share 0/4, 1/4, ...) left blocks of answers, bases and
experts. They are copied into OUT, and the study goes on there: what is complete is only
summed up, and what a share lacks is made now.

examples:
  jaxlora report part-0 part-1 part-2 part-3 --out results/two-hop
"""
MODULES = {SYMBOLS: ("study", "--from"), TEXT: ("study_text", "--config")}
"""By the study's name, its command, and the flag that reads its configuration."""


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
    module, option = MODULES[_study(given.shares[0])]
    with locks.folder(given.out):
        if given.force and (given.out / "study.json").exists():
            outputs.remove(given.out, outputs.STUDY)
        share.join(given.shares, given.out)
    command = importlib.import_module(f"jaxlora.commands.{module}")
    words = [option, str(given.out / "study.json"), "--out", str(given.out)]
    return command.run([*words, "--cache-dir", str(given.out / share.CACHE)])


def _study(folder: Path) -> str:
    path = folder / "study.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no study.json, expected the --out of a share."
        )
    name = data.read(path, what="what a run has written").get("study")
    if name not in MODULES:
        raise ValueError(
            f"{folder} is of the study {name!r}, which has no shares; those that have "
            f"are {' and '.join(MODULES)}."
        )
    return name
