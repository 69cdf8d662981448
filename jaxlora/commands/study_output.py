"""What studies write and print when they are done."""

from pathlib import Path
from typing import Any

from rich.console import Console

from jaxlora.files import write_text
from jaxlora.report import figures, page, tables


def console(width: int = 100) -> Console:
    """Standard output, as wide as the terminal.

    Args:
      width: columns where there is no terminal.
    """
    return Console(width=None if Console().is_terminal else width)


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
    figures.save_all(results.rows, out)
    written = page.write(results.rows, results.summary, out)
    markdown = tables.to_markdown(results.rows, results.summary)
    write_text(out / "tables.md", markdown + closing)
    console.print(tables.terminal(results.rows, results.summary))
    return written


def warn(console: Console, sentences: Sequence[str]) -> None:
    """Says, before anything is trained, what this study cannot decide.

    Args:
      console: where to.
      sentences: one for each number of questions that is too small.
    """
    for sentence in sentences:
        console.print(f"Too few to decide: {sentence}", style="yellow", markup=False)


def took(console: Console, results: Any, written: Path) -> None:
    """Prints how long a study took, and where its page is.

    Args:
      console: where to.
      results: rows and summary of the study.
      written: the page.
    """
    seconds = results.summary["timings"]["total_s"]
    console.print(f"Took {seconds:.0f} s. Page: {written}")
