"""Numbers of a run as they come: rows of a CSV file, and scalars for TensorBoard."""

import contextlib
import csv
import importlib
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jaxlora.commands import bars, talk
from jaxlora.files import write_text

LOSSES = "losses.csv"
HEADS = ("adapter", "update", "loss", "gradient_norm")
STAGES = "progress.csv"
BOARD = "tensorboard"
Add: TypeAlias = Callable[[str, float, int], None]
"""``add(name, value, step)``."""


def check() -> None:
    """Refuses ``--tensorboard``, before anything is done, where its library is missing.

    Raises:
      ValueError: saying how to install it.
    """
    if talk.current().board:
        try:
            importlib.import_module("tensorboardX")
        except ImportError:
            raise ValueError(
                "--tensorboard needs the package tensorboardX, which is not installed; "
                "`pip install 'jaxlora[tensorboard]'` does, and the same numbers are "
                "in the CSV files of --out without it."
            ) from None


@contextlib.contextmanager
def board(folder: Path) -> Iterator[Add]:
    """Gives a function that adds a scalar for TensorBoard, if they are wanted.

    Args:
      folder: of the run; nothing is written before the first scalar.
    """
    talk.current().boarded = True
    if not talk.current().board or not talk.current().writes:
        yield lambda *_: None
        return
    writers: list[Any] = []

    def add(name: str, value: float, step: int) -> None:
        if not writers:
            library = importlib.import_module("tensorboardX")
            writers.append(library.SummaryWriter(str(folder / BOARD), flush_secs=10))
        writers[0].add_scalar(name, value, step)

    try:
        yield add
    finally:
        for writer in writers:
            writer.close()


class Losses:
    """The losses of a training, appended to a file after each chunk of updates.

    A run that goes on drops the rows of updates that it repeats.
    """

    def __init__(self, folder: Path, totals: Mapping[str, int], add: Add):
        self._path, self._totals, self._add = folder / LOSSES, totals, add
        self._begun = False

    def __call__(self, done: int, total: int, recent: np.ndarray) -> None:
        """Appends the losses and norms [2, E, K] of the updates that end at ``done``.

        Args:
          done: updates so far, without those that only fill a chunk.
          total: in all.
          recent: of the chunk; its first update is what ``done`` and K say.
        """
        if not talk.current().writes:
            return
        length = recent.shape[2]
        start = (done - 1) // length * length
        if not self._begun:
            _cut(self._path, start)
            self._begun = True
        rows = list(self._rows(start, recent))
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        for name, update, loss, norm in rows:
            self._add(f"loss/{name}", float(loss), update)
            self._add(f"gradient_norm/{name}", float(norm), update)

    def _rows(self, start: int, recent: np.ndarray) -> Iterator[tuple]:
        for k in range(recent.shape[2]):
            for e, (name, total) in enumerate(self._totals.items()):
                if start + k < total:  # an adapter that has ended only waits
                    values = (f"{value:.6g}" for value in recent[:, e, k])
                    yield name, start + k, *values


def mean(recent: np.ndarray) -> float:
    """Mean of the finite losses in [2, E, K] losses and norms.

    >>> mean(np.ones((2, 1, 4)))
    1.0
    """
    return float(np.nanmean(recent[0]))


def scalars(text: str) -> dict[str, float]:
    """Numbers that the words of a report end with.

    >>> scalars("seed 0, R-II: loss 0.250"), scalars("seed 0 done")
    ({'loss': 0.25}, {})
    """
    match = re.search(r"([a-z][a-z -]*) (-?\d+\.\d+)$", text)
    return {match[1].strip(): float(match[2])} if match else {}


@contextlib.contextmanager
def stages(names: Mapping[str, str], folder: Path) -> Iterator[bars.MoveStage]:
    """As :func:`jaxlora.commands.bars.stages`; each report is also a row of a file.

    Args:
      names: what stands before the bar of each stage.
      folder: of the study; files of it are begun when a bar first moves.
    """
    if not talk.current().writes:  # of many processes the first one does
        yield lambda *_: None
        return
    start = time.monotonic()
    check()
    with board(folder) as add, bars.stages(names, folder) as show:

        def move(stage: str, done: int, total: int, text: str) -> None:
            seconds = f"{time.monotonic() - start:.1f}"
            _append(folder / STAGES, (seconds, stage, done, total, text))
            for name, value in scalars(text).items():
                add(f"{stage}/{name}", value, done)
            show(stage, done, total, text)

        yield move


def _append(path: Path, row: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        if fresh:
            out.writerow(("seconds", "stage", "done", "total", "text"))
        out.writerow(row)


def _cut(path: Path, start: int) -> None:
    """Keeps the rows of a file before an update, if there are any, and the heads."""
    kept: list[Sequence[str]] = []
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError, ValueError):
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
        # A killed run may have left half a row at the end.
        complete = [row for row in rows[1:] if len(row) == len(HEADS)]
        kept = [row for row in complete if int(row[1]) < start]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([HEADS, *kept])
    write_text(path, out.getvalue())
