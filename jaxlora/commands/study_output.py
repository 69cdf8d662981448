"""What studies write and print when they are done."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from jaxlora import stopping
from jaxlora.commands import talk
from jaxlora.commands.flags import outputs
from jaxlora.files import write_text
from jaxlora.report import figures, page, tables
from jaxlora.studies.harness import share as shares
from jaxlora.studies.harness.store import OccupiedError

R = TypeVar("R")


def console(width: int = 100) -> Console:
    """Standard output, as wide as the terminal.

    Args:
      width: columns where there is no terminal.
    """
    return Console(width=None if Console().is_terminal else width)


def claimed(out: Path, force: bool, work: Callable[[], R]) -> R:
    """Runs a study; with force, in the place of another run.

    The same run goes on where it stopped, with force too.

    Args:
      out: its folder.
      force: may results of another run be removed from the folder?
      work: claims the folder before anything else, and runs the study.

    Raises:
      ValueError: if another run, or something else, is in the folder.
    """
    try:
        return work()
    except OccupiedError as error:
        if not force:
            text = str(error).removesuffix(".")
            hint = ", or --force to replace what is there"
            forced = hint if outputs.is_of(out, outputs.STUDY) else ""
            raise ValueError(f"{text}{forced}.") from None
    if talk.current().writes:
        outputs.remove(out, outputs.STUDY)
    return work()


def write(
    console: Console,
    results: Any,
    out: Path,
    *,
    closing: str = "",
) -> Path:
    """Draws a two-hop study, writes its page and its tables, and prints these.

    Args:
      console: where to.
      results: rows and summary of the study.
      out: its folder.
      closing: Markdown after the tables of tables.md.

    Returns:
      The page.
    """
    check_stopped()
    figures.save_all(results.rows, out)
    check_stopped()
    written = page.write(results.rows, results.summary, out)
    markdown = tables.to_markdown(results.rows, results.summary)
    write_text(out / "tables.md", markdown + closing)
    console.print(tables.terminal(results.rows, results.summary))
    return written


def check_stopped() -> None:
    """Stops here if a signal has asked for it: a study is asked, but not drawn.

    Raises:
      Stop: after a signal.
    """
    stopping.check("all rows are saved, and not all figures and pages")


def cache(usual: Path, out: Path, share: str) -> Path:
    """Where bases and experts go: those of a share beside its blocks, to be joined.

    Args:
      usual: for a complete study.
      out: folder of the study.
      share: empty for a complete study.
    """
    return out / shares.CACHE if share else usual


def shared(console: Console, share: str, out: Path) -> int:
    """Says that a share is done, and what is to be done with it; the exit code.

    Args:
      console: where to.
      share: as it was given.
      out: its folder.
    """
    console.print(
        f"Share {share} is done, in {out}. When all are: jaxlora report SHARE... --out "
        f"DIR, with the folders of all shares.",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def warned(
    console: Console, sentences: Sequence[str], move: Callable[..., None]
) -> Callable[..., None]:
    """A function that reports progress, and first says what cannot be decided.

    A study that is refused never moves, and is not warned of; one that starts moves
    before it trains.

    Args:
      console: where to.
      sentences: one for each number of questions that is too small.
      move: reports progress.
    """
    left = [f"Too few to decide: {sentence}" for sentence in sentences]

    def first(*given: Any) -> None:
        while left:
            console.print(left.pop(0), style="yellow", markup=False)
        move(*given)

    return first


def took(console: Console, results: Any, written: Path) -> None:
    """Prints how long a study took, and where its page is.

    Args:
      console: where to.
      results: rows and summary of the study.
      written: the page.
    """
    seconds = results.summary["timings"]["total_s"]
    console.print(f"Took {seconds:.0f} s. Page: {written}")
