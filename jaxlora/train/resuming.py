"""Where a run is saved, what of it, and how it goes on from there."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.io import checkpoint
from jaxlora.io.checkpoint import Saver
from jaxlora.parallel import processes
from jaxlora.train.packed import Run
from jaxlora.tree import Tree


class Checkpoints(NamedTuple):
    """Where a run is saved, and what else makes it what it is."""

    folder: Path | None = None
    """Of the checkpoints; without one, a killed run starts again."""
    made_by: Mapping[str, Any] = MappingProxyType({})
    """What the arguments do not say (base, files), to refuse to resume another run."""
    chunk: int = 8
    """Updates between two looks at the clock, at most; compiled once."""


def state(run: Run, history: Any) -> Tree:
    """What is saved of a run.

    Args:
      run: without copies of experts.
      history: losses and norms, [2, E, updates].
    """
    return {"run": run, "history": history}


def resume(
    folder: Path | None, run: Run, history: np.ndarray, facts: Mapping[str, Any]
) -> tuple[Run, np.ndarray]:
    """The last state that was saved; that of the start if there is none.

    Args:
      folder: of the checkpoints, or None.
      run: at its start.
      history: at its start, [2, E, updates].
      facts: what must be equal for the run to go on.

    Raises:
      ValueError: if the folder holds another run, naming what differs.
    """
    if folder is None:
        return run, history
    target = jax.eval_shape(lambda: state(run, jnp.asarray(history)))
    stored = checkpoint.restore(folder, target, made_by=facts)
    if stored is None:
        return run, history
    return stored[1]["run"], np.array(stored[1]["history"])


@contextlib.contextmanager
def saved_if_stopped(
    saver: Saver, save: Callable[[], None], done: int, total: int
) -> Iterator[None]:
    """Saves a run whose report was answered by an interruption, and notes it there.

    Args:
      saver: of the run.
      save: saves the state that the run is in.
      done: updates.
      total: updates of the run.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        if not processes.stops_together():  # all save together, and the others go on
            raise
        save()
        saver.wait()
        if saver.saves:
            stop.add_note(f"update {done} of {total} is saved")
        raise
