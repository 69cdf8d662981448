"""A grid of words and its two drawings: a terminal table and a Markdown table."""

import html
from typing import NamedTuple

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxlora.tasks.two_hop import arrows

_STYLES = {
    "failed": "bold red",
    "invalid": "bold red",
    "degrades": "red",
    "no transfer": "yellow",
    "no gain": "yellow",
    "held": "green",
    "composes": "bold green",
    "composes with the base": "bold green",
    "likelihood transfer": "cyan",
    "retrieves": "cyan",
    "preserved": "green",
    "unavailable": "dim",
}


class Grid(NamedTuple):
    """A table of words; a line of ``body`` with a single entry is a heading."""

    title: str
    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    note: str = ""
    numeric: bool = False


def rich_table(grid: Grid) -> Group:
    """Returns title, table and note for a terminal; words are never taken as markup.

    Args:
      grid: the words.
    """
    title, note = Text(arrows(grid.title), "bold"), Text(arrows(grid.note), "dim")
    return Group(*([title, _lines(grid)] if grid.body else [title]), note)


def _lines(grid: Grid) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False
    )
    grouped = any(len(line) == 1 for line in grid.body)
    for i, name in enumerate(grid.header):
        table.add_column(
            Text(arrows(name)),
            justify="right" if i and grid.numeric else "left",
            max_width=60,
        )
    for line in grid.body:
        if len(line) == 1:
            table.add_row(Text(arrows(line[0]), "bold"))
        else:
            first = f"  {line[0]}" if grouped else line[0]
            table.add_row(_styled(first), *(_styled(word) for word in line[1:]))
    return table


def markdown_table(grid: Grid) -> str:
    r"""Returns the grid as a GitHub table; bars and HTML in the words are escaped.

    Args:
      grid: the words.

    >>> print(markdown_table(Grid("Criteria", ("copy", "seed 0"), (("a|b", "0.99"),))))
    | copy | seed 0 |
    |:--|:--|
    | a\|b | 0.99 |
    """
    width = len(grid.header)
    lines = [grid.header, *grid.body]
    if not width:
        return ""
    rule = "".join("--:|" if i and grid.numeric else ":--|" for i in range(width))
    texts = [_markdown_line(line, width) for line in lines]
    return "\n".join([texts[0], f"|{rule}", *texts[1:]])


def _markdown_line(line: tuple[str, ...], width: int) -> str:
    words = [_escaped(word) for word in line]
    if len(words) == 1 and width > 1:
        words = [f"**{words[0]}**", *[""] * (width - 1)]
    return f"| {' | '.join(words)} |"


def _escaped(word: str) -> str:
    # Words come from users and files: a bar or a tag must not break the table.
    plain = html.escape(" ".join(arrows(word).split()), quote=False)
    return plain.replace("\\", "\\\\").replace("|", "\\|")


def _styled(word: str) -> Text:
    # A value may stand before the word, and a cause below it.
    key = "failed" if word.endswith(" failed") else word.split("\n", 1)[0]
    return Text(arrows(word), _STYLES.get(key, ""))
