"""``jaxlora study theory``: the theory of one and two layers, measured."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from jaxlora.commands import bars, flags, study_output
from jaxlora.commands.flags.study import cache_dir
from jaxlora.report import theory
from jaxlora.report.grid import rich_table
from jaxlora.studies.theory import protocol
from jaxlora.studies.theory.config import TheoryConfig

PROG = "jaxlora study theory"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(TheoryConfig):
    """Do models of one and two layers compose two edits, and where does a claim stop?

    Every claim of the theory with its predicted interval and its measurement, over
    random worlds. The predictions were written down before the runs.
    """

    out: Path = Path("results/theory")
    """Folder for tables, figures and the page; one configuration a folder."""
    force: flags.Force = False
    cache_dir: Path = dataclasses.field(default_factory=cache_dir)
    """Folder of trained bases; those of `jaxlora study two-hop` are looked at."""


def run(arguments: Sequence[str]) -> int:
    """Runs the study; 0 if every prediction on closed-form models held, else 1."""
    given = flags.parse(Arguments, PROG, arguments, default=Arguments())
    fields = [f.name for f in dataclasses.fields(TheoryConfig)]
    config = TheoryConfig(**{name: getattr(given, name) for name in fields})
    console = study_output.console(120)
    with bars.bar("theory", log=given.out) as move:
        how = (config, given.out, given.cache_dir, move)
        work = functools.partial(protocol.run, *how)
        results = study_output.claimed(given.out, given.force, work)
    study_output.check_stopped()
    theory.save(results.summary, given.out)
    written = theory.write(results.summary, given.out)
    console.print(Text(theory.headline(results.summary), "bold"))
    console.print(rich_table(theory.claim_grid(results.summary)))
    console.print(rich_table(theory.decoder_grid(results.summary)))
    study_output.took(console, results, written)
    return 1 if results.failed else 0
