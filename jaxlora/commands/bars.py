"""A progress bar on a terminal, and a line now and then elsewhere; always on stderr.

Standard output is left to what a command says, so that it can be piped.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

Move: TypeAlias = Callable[[str, int, int], None]
"""``move(text, done, total)``."""

EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


@contextlib.contextmanager
def bar(name: str) -> Iterator[Move]:
    """Gives a function that moves a bar to ``done`` of ``total``, with some words."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console, name)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=None, text="")
        yield lambda text, done, total: progress.update(
            task, completed=done, total=total, text=escape(text)
        )


def _lines(console: Console, name: str) -> Move:
    said = time.monotonic()

    def move(text: str, done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= EVERY:
            said = time.monotonic()
            share = 100 * done // max(total, 1)
            console.print(f"{name} {share}%  {text}", markup=False)

    return move
