"""``jaxlora study two-hop``: runs the study, draws it, and prints what it found."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jaxlora.commands import scalars, study_output
from jaxlora.commands.flags import Force
from jaxlora.commands.flags import study as flags
from jaxlora.commands.flags.outputs import Share
from jaxlora.evaluate.schema import USUAL
from jaxlora.report import leaderboard
from jaxlora.report.grid import rich_table
from jaxlora.studies.two_hop.symbols import deciding, protocol
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig

STAGES = {"pretrain": "base", "experts": "experts", "questions": "questions"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Two experts, A→B and B→C: does a combination of them answer A→C?

    Trains small bases that can compose, experts on new facts, every control, and judges
    each combination. Interrupted, the same command goes on where it stopped.

    With --model DIR (a Hugging Face checkpoint) the same study asks a language
    model; `jaxlora study two-hop --model DIR --help` lists the flags of that.
    """

    preset: flags.Preset = "quick"
    from_: flags.From = None
    out: Path = Path("results/two-hop")
    """Folder for tables, figures and the page; one configuration a folder."""
    force: Force = False
    share: Share = ""
    cache_dir: Path = dataclasses.field(default_factory=flags.cache_dir)
    """Folder of trained bases and experts, shared between runs."""
    config: flags.Config = dataclasses.field(default_factory=TwoHopConfig)


def run(arguments: Sequence[str]) -> int:
    """Runs the study; 0 if every base met its criteria, else 1."""
    given = flags.parse_config(Arguments, "jaxlora study two-hop", arguments)
    console = study_output.console()
    people = protocol.own_people(given.config)
    few = deciding.warnings(given.config, people)
    with scalars.stages(STAGES, given.out) as move:
        progress = study_output.warned(console, few, move)
        cache = study_output.cache(given.cache_dir, given.out, given.share)
        how = (given.config, given.out, cache, progress, given.share)
        work = functools.partial(protocol.run, *how)
        results = study_output.claimed(given.out, given.force, work)
    if given.share:
        return study_output.shared(console, given.share, given.out)
    study_output.check_stopped()
    leaderboard.save(results.summary, given.out)
    written = study_output.write(console, results, given.out)
    if set(given.config.all_methods) - set(map(str, USUAL)):
        console.print(rich_table(leaderboard.grid(results.summary, short=True)))
    _close(console, given, written, results.summary["timings"])
    return 1 if results.failed else 0


def _close(console: Console, given: Arguments, written: Path, timings) -> None:
    parts = ", ".join(
        f"{name.removesuffix('_s')} {seconds:.0f} s"
        for name, seconds in timings.items()
        if name.endswith("_s") and name != "total_s"
    )
    console.print(f"\nTook {timings['total_s']:.0f} s ({parts}).")
    console.print(f"Page: {written}   rows: {given.out / 'results.csv'}")
    if given.config.seeds < 3:
        console.print(
            "One base may be an odd one: `jaxlora study two-hop --preset standard "
            "--out results/two-hop-standard` runs three, with pooled intervals."
        )
