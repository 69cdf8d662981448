"""How commands print: tables of text, numbers, and lines that are not wrapped."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxlora.commands import talk
from jaxlora.strangers.text import visible


def console() -> Console:
    """Standard output; of any width where no terminal bounds it."""
    return Console(width=None if Console().is_terminal else 200)


def table(
    console: Console, heads: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Prints a table of text on the left and numbers beside it.

    Args:
      console: where to.
      heads: of the columns.
      rows: cells, which may hold [brackets].
    """
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, head in enumerate(heads):
        out.add_column(head, no_wrap=i == 0)
    for row in rows:
        out.add_row(*(Text(visible(cell)) for cell in row))
    console.print(out)


def facts(rows: Mapping[str, str]) -> None:
    """Prints names and values.

    Args:
      rows: value by name; values may hold [brackets].
    """
    out = Table(show_header=False, box=None)
    for name, value in rows.items():
        out.add_row(visible(name), Text(visible(value)))
    Console().print(out)


def span(values: Iterable[float]) -> str:
    """One number, or the least and the largest.

    >>> span([4, 8, 4])
    '4-8'
    """
    different = sorted(set(values))
    ends = different[:1] + different[1:][-1:]
    return "-".join(f"{value:.4g}" for value in ends) or "none"


def number(value: float) -> str:
    """Three digits; what is below rounding is 0, and what is undefined a dash.

    >>> number(0.41234), number(3e-8), number(math.nan)
    ('0.412', '0.000', '-')
    """
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if abs(value) >= 1000 else f"{value:.3f}"


def line(console: Console, text: str) -> None:
    """Prints words as they are, and does not wrap paths.

    Args:
      console: where to.
      text: the words.
    """
    console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


def say(notes: Iterable[str]) -> None:
    """Prints sentences on stderr, where they are in the way of no pipe; not with -q.

    Args:
      notes: the sentences.
    """
    for note in notes:
        line = f"jaxlora: {visible(note)}"
        if talk.current().level < 0:
            talk.current().note(line)
        else:
            print(line, file=sys.stderr)
