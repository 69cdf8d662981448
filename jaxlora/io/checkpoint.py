"""Checkpoints and caches: steps of a run, written whole, checked when read.

A cache entry is a folder named by the hash of everything that made it. A step is
written under a temporary name, sealed with the hashes of its files and renamed, so that
a killed run leaves the last whole steps; two are kept, and a damaged one is never used.

Of many processes the first one reads and writes, and all take part: arrays are gathered
before, and sent after. So processes need no folder that all of them see, and a run goes
on with any number of them, on any mesh.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from jaxlora import files, locks
from jaxlora.io import checkpoint_arrays as arrays
from jaxlora.io import checkpoint_facts as facts_of
from jaxlora.io import trust
from jaxlora.io.trust import DamagedError
from jaxlora.parallel import processes
from jaxlora.tree import Tree

KEPT = 2
"""Steps of an entry: should the newest be damaged, the one before it is used."""
STATE, FACTS = "state", "facts.json"


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Hash of a JSON-able description; equal parts, equal hash.

    Args:
      parts: facts by name; what JSON does not know counts as its text.

    >>> fingerprint({"seed": 0})[:8]
    'de7d7744'
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def save(folder: Path, step: int, tree: Tree, meta: Mapping[str, Any]) -> None:
    """Writes ``tree`` and ``meta`` as ``folder/step``, and drops all but two steps.

    Args:
      folder: the cache entry; other processes may save and restore it, too.
      step: number of the step, from 0.
      tree: arrays; PRNG keys as key data. With many processes, all call this.
      meta: JSON-able facts that travel with the arrays.

    Raises:
      OSError: if the disk is full or the folder cannot be written; the last whole step
        is left as it was.
    """
    if processes.count() > 1:
        tree = processes.host(tree)
    if processes.first():
        _write(folder, step, tree, meta)


class Saver:
    """Saves steps of a run that goes on meanwhile; leaving it waits for the last one.

    >>> with Saver(None) as saver:  # nowhere
    ...     saver.save(1, {}, {})
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self.saves = folder is not None
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._last: Future[None] | None = None

    def save(self, step: int, tree: Tree, meta: Mapping[str, Any]) -> None:
        """As :func:`save`, but returns as soon as the arrays are copied to the host.

        Args:
          step: number of the step, from 0.
          tree: arrays, which may be donated afterwards.
          meta: JSON-able facts that travel with the arrays.

        Raises:
          OSError: if the save before this one failed.
        """
        if self._folder is None:
            return
        self.wait()
        # Copies: on a CPU an array of NumPy may be a view of what is donated next.
        copied = jax.tree.map(np.array, processes.host(tree))
        if processes.first():
            self._last = self._thread.submit(_write, self._folder, step, copied, meta)

    def wait(self) -> None:
        """Returns when the last save is done; with many processes, in all of them.

        JAX ends a process when another one leaves, the first while it writes, too.

        Raises:
          OSError: if it failed.
        """
        if self._folder is not None:
            processes.agreed(self._wait)

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self.wait()
            # Of two errors, the one that ended the run counts. Of many processes it may
            # be in one only, which must not wait for the others.
            with suppress(OSError):
                self._wait()
        finally:
            self._thread.shutdown()


def _write(folder: Path, step: int, tree: Tree, meta: Mapping[str, Any]) -> None:
    # Shapes and types are stored as text, so that they can be compared before reading.
    facts = {"meta": dict(meta), "leaves": facts_of.leaves(tree)}
    path = folder / str(step)
    with arrays.system_errors(folder), _turn(folder):
        files.sweep(folder)
        with files.new_folder(path) as new:
            arrays.write(new / STATE, tree)
            (new / FACTS).write_text(json.dumps(facts, default=str), encoding="utf-8")
            trust.seal(new, _key(path))
            files.remove(path)  # of another process, which made the same
        for old in _steps(folder)[:-KEPT]:
            files.remove(old)


def restore(
    folder: Path, target: Tree, made_by: Mapping[str, Any] | None = None
) -> tuple[int, Tree, dict[str, Any]] | None:
    """Reads the newest step that is not damaged, or None if there is none.

    A damaged step is removed, in one line that names the file.

    Args:
      folder: the cache entry.
      target: abstract arrays (``jax.eval_shape``), with shardings where wanted.
      made_by: what ``meta`` must be, if the name of the folder does not say it.

    Returns:
      Step, tree and meta. With many processes, all call this, and leaves without a
      sharding are arrays of NumPy.

    Raises:
      ValueError: if it was made by something else, or a stored leaf has another shape
        or type than ``target``; orbax would cast a wrong type silently.
    """
    if processes.count() == 1:
        return _read(folder, arrays.placed(target), made_by)
    trees: list[Tree] = []

    def read() -> list[Any] | None:
        stored = _read(folder, arrays.placed(target, here=True), made_by)
        if stored is None:
            return None
        trees.append(processes.host(stored[1]))
        return [stored[0], stored[2]]

    about = processes.agreed(read)
    if about is None:
        return None
    tree = processes.shared(trees[0] if trees else None, target)
    return about[0], jax.tree.map(arrays.on_devices, tree, target), about[1]


def _read(
    folder: Path, target: Tree, made_by: Mapping[str, Any] | None
) -> tuple[int, Tree, dict[str, Any]] | None:
    if not folder.is_dir():
        return None
    with _turn(folder):
        steps = _steps(folder)
        while steps:
            path = steps.pop()
            try:
                trust.check(path, _key(path))  # orbax reads nothing that is damaged
            except DamagedError as error:
                instead = (
                    f"step {steps[-1].name} is used" if steps else "it is made again"
                )
                trust.say(f"{error}; step {path.name} is dropped, and {instead}.")
                with suppress(OSError):  # of a cache that is not ours to write
                    files.remove(path)
            else:
                return _read_step(path, target, made_by)
    return None


def _read_step(path: Path, target: Tree, made_by: Mapping[str, Any] | None):
    """Step, tree and meta of a step that is not damaged."""
    facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
    # Facts first: they say whether the arrays can be read into ``target``.
    if made_by is not None:
        facts_of.check_made_by(path.parent, facts["meta"], made_by)
    facts_of.check_leaves(path.parent, facts["leaves"], facts_of.leaves(target))
    state = arrays.read(path / STATE, target)
    return int(path.name), state, facts["meta"]


def _steps(folder: Path) -> list[Path]:
    """Steps of an entry, the newest last."""
    steps = (path for path in folder.iterdir() if path.name.isdecimal())
    return sorted(steps, key=lambda path: int(path.name))


def _key(step: Path) -> str:
    """Of an entry and step, so that none passes for another one."""
    return "/".join(step.absolute().parts[-2:])


def _turn(folder: Path) -> AbstractContextManager[None]:
    """The lock of an entry, for the time of a save or a restore."""
    if not locks.writable(folder):
        return nullcontext()
    return locks.held(folder / locks.NAME, folder, wait=True)
