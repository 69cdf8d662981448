"""``jaxlora study boundary``: where merged experts compose, where not, and why."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.text import Text

from jaxlora.commands import scalars, study_output
from jaxlora.commands.flags import Force
from jaxlora.commands.flags import study as flags
from jaxlora.report import regimes, regimes_readings, regimes_tables
from jaxlora.report.grid import rich_table
from jaxlora.studies.boundary import design, protocol
from jaxlora.studies.boundary.config import PRESETS, STUDY, BoundaryConfig
from jaxlora.studies.two_hop import ExpertsConfig
from jaxlora.studies.two_hop.symbols import check
from jaxlora.tasks.two_hop import arrows, world

PROG = "jaxlora study boundary"
STAGES = {
    "pretrain": "base",
    "experts": "experts",
    "questions": "questions",
    "statistics": "statistics",
}
SOURCE = flags.Source(STUDY, BoundaryConfig, PRESETS)
OF_REGIMES = ("first", "second", "first_layers", "second_layers")
"""Fields of the experts' training that every regime sets."""
Preset = Annotated[
    str,
    tyro.conf.arg(
        metavar="{" + "|".join(PRESETS) + "}",
        help="quick: one base. standard: four and the map. full: more of both.",
    ),
]
Config = Annotated[BoundaryConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Where do merged experts compose new facts, where not, and why?

    Trains bases, experts whose rows and layers differ from regime to regime, and every
    control; asks directly and with the bridge written, and judges each combination.
    Interrupted, the same command goes on where it stopped.
    """

    preset: Preset = "quick"
    from_: flags.From = None
    out: Path = Path("results/boundary")
    """Folder for tables, figures and the page; one configuration a folder."""
    force: Force = False
    cache_dir: Path = dataclasses.field(default_factory=flags.cache_dir)
    """Folder of trained bases and experts, shared between runs."""
    config: Config = dataclasses.field(default_factory=BoundaryConfig)


def run(arguments: Sequence[str]) -> int:
    """Runs the study; 0 if every base met its criteria, else 1."""
    given = flags.parse_config(Arguments, PROG, arguments, SOURCE)
    refuse(given.config)
    console = study_output.console()
    with scalars.stages(STAGES, given.out) as move:
        how = (given.config, given.out, given.cache_dir, move)
        work = functools.partial(protocol.run, *how)
        results = study_output.claimed(given.out, given.force, work)
    study_output.check_stopped()
    files = regimes.save(results.rows, results.summary, given.out)
    book = regimes_readings.book(results.rows, results.summary)
    for sentence in regimes_tables.finding(book):
        console.print(Text(arrows(sentence), "bold"))
    console.print(rich_table(regimes_tables.regime_grid(book, short=True)))
    console.print(Text(regimes_tables.endings(results.summary)))
    _close(console, files[-1], given.out, results.summary)
    return 1 if results.failed else 0


def refuse(config: BoundaryConfig) -> None:
    """Refuses, before anything is trained, what no base or expert could be made of.

    Args:
      config: of the study.

    Raises:
      ValueError: naming what does not fit.
    """
    usual = ExpertsConfig()
    for name in OF_REGIMES:
        if getattr(config.experts, name) != getattr(usual, name):
            flag = name.replace("_", "-")
            raise ValueError(
                f"Got --experts.{flag}, but rows and layers of experts are those of "
                f"the regimes; --rhos, --axes and --no-placements choose among them."
            )
    for point in design.points(config):
        protocol.check(point)
    # One world of each size is enough to know what an adapter must fit.
    of_map = (config.map_world, config.map_seeds)
    for sizes, seeds in ((config.world, config.seeds), of_map):
        if seeds:
            people = world.generate(sizes, config.first_seed)
            check.world(people)
            check.adapters(people, config.model, config.lora)


def _close(
    console: Console, written: Path, out: Path, summary: Mapping[str, Any]
) -> None:
    if summary["failed_seeds"]:
        console.print(f"Bases that failed: {', '.join(summary['failed_seeds'])}.")
    seconds = summary["timings"]["total_s"]
    console.print(f"\nTook {seconds:.0f} s.")
    console.print(f"Page: {written}   rows: {out / 'results.csv'}")
