"""``jaxlora study two-hop``: runs the study, draws it, and prints what it found."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from jaxlora.commands import options
from jaxlora.evaluate.schema import USUAL
from jaxlora.io.files import write_text
from jaxlora.report import figures, leaderboard, page, tables
from jaxlora.report.grid import rich_table
from jaxlora.studies.two_hop import protocol
from jaxlora.studies.two_hop.config import TwoHopConfig

STAGES = {"pretrain": "base", "experts": "experts", "questions": "questions"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Two experts, A->B and B->C: does a combination of them answer A->C?

    Trains small bases that can compose, experts on new facts, every control, and judges
    each combination. Interrupted, the same command goes on where it stopped.
    """

    preset: options.Preset = "quick"
    from_: options.From = None
    out: Path = Path("results/two-hop")
    """Folder for tables, figures and the page; one configuration a folder."""
    cache_dir: Path = dataclasses.field(default_factory=options.cache_dir)
    """Folder of trained bases and experts, shared between runs."""
    config: options.Config = dataclasses.field(default_factory=TwoHopConfig)


def run(arguments: Sequence[str]) -> int:
    """Runs the study; 0 if every base passed its gates, else 1."""
    preset, path, config = options.starting_point(arguments)
    default = Arguments(preset=preset, from_=path, config=config)
    given = options.parse(Arguments, "jaxlora study two-hop", arguments, default)
    console = Console(width=None if Console().is_terminal else 100)
    with _Bars(console) as tell:
        results = protocol.run(given.config, given.out, given.cache_dir, tell)
    drawn = figures.save_all(results.rows, given.out)
    drawn += leaderboard.save(results.summary, given.out)
    written = page.write(results.rows, results.summary, given.out, images=drawn)
    write_text(
        given.out / "tables.md", tables.to_markdown(results.rows, results.summary)
    )
    console.print(tables.terminal(results.rows, results.summary))
    if set(given.config.methods) - set(map(str, USUAL)):
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
            "Few seeds say little: `jaxlora study two-hop --preset standard "
            "--out results/two-hop-standard` runs three, with pooled intervals."
        )


class _Bars:
    """Three progress bars on a terminal; a line at most every ten seconds elsewhere."""

    def __init__(self, console: Console):
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._console, self._said = console, 0.0

    def __enter__(self):
        self._progress.start()
        return self.tell

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, stage: str, done: int, total: int, text: str) -> None:
        """Moves one bar."""
        if not self._console.is_terminal:
            self._line(stage, done, total, text)
            return
        if stage not in self._tasks:
            task = self._progress.add_task(
                STAGES[stage], total=total, text=escape(text)
            )
            self._tasks[stage] = task
        self._progress.update(
            self._tasks[stage], completed=done, total=total, text=escape(text)
        )

    def _line(self, stage: str, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if now - self._said >= 10:
            self._said = now
            line = f"{STAGES[stage]} {done}/{total}  {text}"
            self._console.print(line, markup=False)  # ties[peft] is a name
