"""``jaxlora study word-problems``: where merged experts solve what needs them both."""

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
from jaxlora.report import (
    regimes_tables,
    word_problems,
    word_problems_facts,
    word_problems_finding,
    word_problems_readings,
    word_problems_tables,
)
from jaxlora.report.grid import rich_table
from jaxlora.studies.two_hop.config import METHODS, check_lora
from jaxlora.studies.word_problems import bases, design, protocol, worlds
from jaxlora.studies.word_problems.config import PRESETS, STUDY, WordProblemsConfig
from jaxlora.studies.word_problems.kinds import LEVELS

PROG = "jaxlora study word-problems"
STAGES = {
    "pretrain": "base",
    "experts": "experts",
    "questions": "questions",
    "statistics": "statistics",
}
WRITING = tuple(x for x in METHODS if x != "oracle")
"""What ``all`` stands for: a text that is being written has no labels to route by."""
SOURCE = flags.Source(STUDY, WordProblemsConfig, PRESETS, WRITING)
Preset = Annotated[
    str,
    tyro.conf.arg(
        metavar="{" + "|".join(PRESETS) + "}",
        help="quick: one base, two ends of the dial. standard: all. full: more bases.",
    ),
]
Config = Annotated[
    WordProblemsConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Do merged experts solve problems that need both, and where does that stop?

    Trains bases that solve word problems step by step, experts of one new operation
    each, and every control; merges experts whose rows share a solution template or do
    not, asks problems that need both, and judges each combination. With `--model DIR`,
    on a language model. Interrupted, the same command goes on where it stopped.
    """

    preset: Preset = "quick"
    from_: flags.From = None
    out: Path = Path("results/word-problems")
    """Folder for tables, figures and the page; one configuration a folder."""
    force: Force = False
    cache_dir: Path = dataclasses.field(default_factory=flags.cache_dir)
    """Folder of trained bases and experts, shared between runs."""
    two_hop: Path | None = None
    """Folder of results of `jaxlora study boundary`, to show beside written steps."""
    config: Config = dataclasses.field(default_factory=WordProblemsConfig)


def run(arguments: Sequence[str]) -> int:
    """Runs the study; 0 if every base met its criteria, else 1."""
    given = flags.parse_config(Arguments, PROG, arguments, SOURCE)
    refuse(given.config)
    facts = word_problems_facts.read(given.two_hop)
    console = study_output.console()
    with scalars.stages(STAGES, given.out) as move:
        how = (given.config, given.out, given.cache_dir, move)
        work = functools.partial(protocol.run, *how)
        results = study_output.claimed(given.out, given.force, work)
    study_output.check_stopped()
    files = word_problems.save(results.rows, results.summary, given.out, facts)
    _print(console, results)
    _close(console, files[-1], given.out, results.summary)
    return 1 if results.failed else 0


def refuse(config: WordProblemsConfig) -> None:
    """Refuses, before anything is trained, what no base or expert could be made of.

    Args:
      config: of the study.

    Raises:
      ValueError: naming what does not fit.
    """
    protocol.claimed(config)
    if config.world.levels < max(LEVELS):
        raise ValueError(
            f"world.levels is {config.world.levels}, expected at least {max(LEVELS)}: "
            f"experts learn their operation in problems of up to {max(LEVELS)}."
        )
    for point in design.points(config):
        world = worlds.generate(point.world, point.seeds[0])
        check_lora(bases.decoder(config.model, world), config.lora)


def _print(console: Console, results: Any) -> None:
    """The finding in sentences, then the tables behind it."""
    book = word_problems_readings.book(results.rows, results.summary)
    for sentence in word_problems_finding.sentences(book):
        console.print(Text(sentence, "bold"))
    console.print()
    for grid in word_problems_tables.terminal(book):
        console.print(rich_table(grid))
        console.print()
    console.print(Text(regimes_tables.endings(results.summary)))


def _close(
    console: Console, written: Path, out: Path, summary: Mapping[str, Any]
) -> None:
    if summary["failed_seeds"]:
        console.print(f"Bases that failed: {', '.join(summary['failed_seeds'])}.")
    seconds = summary["timings"]["total_s"]
    console.print(f"\nTook {seconds:.0f} s.")
    console.print(f"Page: {written}   rows: {out / 'results.csv'}")
