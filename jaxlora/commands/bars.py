"""Progress bars on a terminal, and a line now and then elsewhere."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from jaxlora.strangers.text import visible

Move: TypeAlias = Callable[[str, int, int], None]
"""``move(text, done, total)``."""
MoveStage: TypeAlias = Callable[[str, int, int, str], None]
"""``move(stage, done, total, text)``."""

EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


@contextlib.contextmanager
def bar(name: str) -> Iterator[Move]:
    """Gives a function that moves a bar to ``done`` of ``total``, with some words.

    It is on stderr, so that what a command prints can be piped.

    Args:
      name: stands before the bar.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with _progress(console, TaskProgressColumn(), transient=True) as progress:
            task = progress.add_task(name, total=None, text="")
            yield lambda text, done, total: progress.update(
                task, completed=done, total=total, text=escape(visible(text))
            )
    else:
        lines = _Lines(console, time.monotonic())
        yield lambda text, done, total: lines.show(
            f"{name} {100 * done // max(total, 1)}%  {text}"
        )


@contextlib.contextmanager
def stages(console: Console, names: Mapping[str, str]) -> Iterator[MoveStage]:
    """Gives a function that moves the bar of a stage; it appears when it first moves.

    Args:
      console: where the bars are.
      names: what stands before the bar of each stage.
    """
    if not console.is_terminal:
        lines = _Lines(console, -math.inf)
        yield lambda stage, done, total, text: lines.show(
            f"{names[stage]} {done}/{total}  {text}"
        )
        return
    with _progress(console, MofNCompleteColumn()) as progress:
        tasks = {}

        def move(stage: str, done: int, total: int, text: str) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(names[stage], total=total, text="")
            progress.update(
                tasks[stage], completed=done, total=total, text=escape(visible(text))
            )

        yield move


def _progress(console: Console, count, transient: bool = False) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<10}"),
        BarColumn(),
        count,
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
        console=console,
        transient=transient,
    )


class _Lines:
    """Lines that are at least ``EVERY`` seconds apart."""

    def __init__(self, console: Console, last: float):
        self._console, self._last = console, last

    def show(self, line: str) -> None:
        if time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self._console.print(visible(line), markup=False)  # ties[peft] is a name
