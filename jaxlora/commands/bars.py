"""Progress: bars on a terminal, a line now and then elsewhere, and a log of both.

Each report is also where a signal is read: between compiled chunks, and nowhere else.
"""

import contextlib
import contextvars
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
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

from jaxlora import stopping
from jaxlora.commands import talk
from jaxlora.strangers.text import visible

Move: TypeAlias = Callable[[str, int, int], None]
"""``move(text, done, total)``."""
MoveStage: TypeAlias = Callable[[str, int, int, str], None]
"""``move(stage, done, total, text)``."""

EVERY = 10.0
"""Seconds between two lines where there is no terminal, and in the log."""
BEAT = 60.0
"""Seconds without a report after which a line says that the run is alive."""
READING = ("loading", "packing")
"""Stages that no profile is made of."""
COMPILING = "compiling ..."
"""What a bar says until the first call of a program has ended."""


@contextlib.contextmanager
def bar(name: str, *, first: str = "", log: Path | None = None) -> Iterator[Move]:
    """Gives a function that moves a bar to ``done`` of ``total``, with some words.

    It is on stderr, so that what a command prints can be piped.

    Args:
      name: stands before the bar.
      first: words until it moves, such as :data:`COMPILING`.
      log: folder of the log, which is begun when the bar first moves.

    Raises:
      Stop: by a move, after a signal.
    """
    console = Console(file=talk.terminal())
    with _shown(console, {name: name}, log, percent=True) as move:
        if first:
            move(name, 0, 0, first)
        yield lambda text, done, total: move(name, done, total, text)


@contextlib.contextmanager
def stages(names: Mapping[str, str], log: Path | None = None) -> Iterator[MoveStage]:
    """Gives a function that moves the bar of a stage; it appears when it first moves.

    Args:
      names: what stands before the bar of each stage.
      log: folder of the log, which is begun when a bar first moves.

    Raises:
      Stop: by a move, after a signal.
    """
    console = Console(file=talk.terminal())
    with _shown(console, names, log, percent=False) as move:
        yield move


def time_left(begun: tuple[float, int], now: float, done: int, total: int) -> str:
    """How long the rest takes at the pace so far; empty before there is one.

    Args:
      begun: when a stage first moved, and how much was done then.
      now: seconds of the same clock.
      done: by now.
      total: in all.

    >>> time_left((0.0, 10), 60.0, 40, 100), time_left((0.0, 10), 0.0, 10, 100)
    ('2:00 left', '')
    """
    since, before = begun
    if done <= before or done >= total:
        return ""
    seconds = round((now - since) / (done - before) * (total - done))
    hours, minutes = divmod(seconds // 60, 60)
    clock = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{clock}:{seconds % 60:02d} left"


@contextlib.contextmanager
def _shown(
    console: Console, names: Mapping[str, str], log: Path | None, *, percent: bool
) -> Iterator[MoveStage]:
    """Bars, lines, or nothing, as the terminal and ``-q`` and ``-v`` have it."""
    level = talk.current().level
    lines = _Lines(console, names, percent)
    lines.silent = level < 0
    if level or not console.is_terminal:
        lines.every = 0.0 if level > 0 else EVERY
        with _heartbeat(lines):
            yield _checked(lines.show, log)
        return
    lines.silent = True
    count = TaskProgressColumn() if percent else MofNCompleteColumn()
    with _progress(console, count, transient=percent) as progress:
        tasks = {}

        def move(stage: str, done: int, total: int, text: str) -> None:
            lines.show(stage, done, total, text)
            if stage not in tasks:
                tasks[stage] = progress.add_task(names[stage], total=None, text="")
            words = ", ".join(filter(None, (lines.left(stage), text)))
            words = escape(visible(words))
            known = total or None
            progress.update(tasks[stage], completed=done, total=known, text=words)

        yield _checked(move, log)


@contextlib.contextmanager
def _heartbeat(lines: "_Lines") -> Iterator[None]:
    """Says now and then that a run is alive, while it compiles or computes for long."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT / 4):
            lines.beat()

    # The log is a variable of the context.
    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(beat,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _checked(show: MoveStage, log: Path | None) -> MoveStage:
    def move(stage: str, done: int, total: int, text: str) -> None:
        if log is not None and total:
            talk.current().keep(log)
        show(stage, done, total, text)
        if done and stage not in READING and talk.current().traced is not None:
            talk.current().traced.report()
        stopping.check()

    return move


def _progress(console: Console, count, transient: bool) -> Progress:
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
    """Lines of each stage that are some seconds apart, printed or only noted."""

    def __init__(self, console: Console, names: Mapping[str, str], percent: bool):
        self._console, self._names, self._percent = console, names, percent
        # A bar of its own may be over at once: it is worth no line in the beginning.
        start = time.monotonic() if percent else -math.inf
        self._last = dict.fromkeys(names, start)
        self._begun: dict[str, tuple[float, int]] = {}
        self._now: dict[str, tuple[int, int]] = {}
        self._heard, self._printed = ("", ""), time.monotonic()
        self._reported = self._printed
        self.every, self.silent = EVERY, False

    def left(self, stage: str) -> str:
        """The time that the rest of a stage takes."""
        if stage not in self._begun or stage not in self._now:
            return ""
        return time_left(self._begun[stage], time.monotonic(), *self._now[stage])

    def show(self, stage: str, done: int, total: int, text: str) -> None:
        """Prints, or notes, where a stage is, if its last line is old enough."""
        now = time.monotonic()
        self._heard, self._reported = (stage, text), now
        if done < self._now.get(stage, (0, 0))[0] or stage not in self._begun:
            self._begun[stage] = (now, done)  # also of the next base, or group
        if total == 0:  # it has not begun, and says so once
            del self._begun[stage]
            self._say(f"{self._names[stage]}: {text}")
            return
        self._now[stage] = (done, total)
        if now - self._last[stage] >= self.every:
            self._last[stage] = now
            share = f"{100 * done // total}%" if self._percent else f"{done}/{total}"
            words = filter(None, (text, self.left(stage)))
            self._say(f"{self._names[stage]} {share}  {', '.join(words)}")

    def beat(self) -> None:
        """Says what the last report was, if there was no line for long."""
        now, (stage, text) = time.monotonic(), self._heard
        if stage and now - self._printed >= BEAT:
            minutes, seconds = divmod(round(now - self._reported), 60)
            silent = f"no report for {minutes}:{seconds:02d}"
            self._say(f"{self._names[stage]}: {text} ({silent}; still at work)")

    def _say(self, line: str) -> None:
        self._printed = time.monotonic()
        line = visible(line)
        talk.current().note(line)
        if not self.silent:
            self._console.print(line, markup=False, soft_wrap=True)
