"""Checkpoints and caches: the only module that knows orbax.

A cache entry is a folder named by the hash of everything that made it. A step is
written under a temporary name, sealed with the hashes of its files and renamed, so that
a killed run leaves the last whole steps; two are kept, and a damaged one is never used.

Of many processes the first one reads and writes, and all take part: arrays are gathered
before, and sent after. So processes need no folder that all of them see, and a run goes
on with any number of them, on any mesh.
"""

import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxlora import files, locks
from jaxlora import tree as named
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
    facts = {"meta": dict(meta), "leaves": _leaves(tree)}
    path = folder / str(step)
    with _system_errors(folder), _turn(folder):
        files.sweep(folder)
        with files.new_folder(path) as new, _orbax() as writer:
            # Absolute: tensorstore knows no other paths.
            writer.save((new / STATE).absolute(), args=ocp.args.StandardSave(tree))
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
        return _read(folder, _placed(target), made_by)
    trees: list[Tree] = []

    def read() -> list[Any] | None:
        stored = _read(folder, _placed(target, here=True), made_by)
        if stored is None:
            return None
        trees.append(processes.host(stored[1]))
        return [stored[0], stored[2]]

    about = processes.agreed(read)
    if about is None:
        return None
    tree = processes.shared(trees[0] if trees else None, target)
    return about[0], jax.tree.map(_on_devices, tree, target), about[1]


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
                with trust.checking(path, _key(path)):
                    return _read_step(path, target, made_by)
            except DamagedError as error:
                instead = (
                    f"step {steps[-1].name} is used" if steps else "it is made again"
                )
                trust.say(f"{error}; step {path.name} is dropped, and {instead}.")
                with suppress(OSError):  # of a cache that is not ours to write
                    files.remove(path)
    return None


def _read_step(path: Path, target: Tree, made_by: Mapping[str, Any] | None):
    """Step, tree and meta of a step, whose files are being checked meanwhile."""
    facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
    # Facts first: they say whether the arrays can be read into ``target``.
    if made_by is not None:
        _check_made_by(path.parent, facts["meta"], made_by)
    _check(path.parent, facts["leaves"], _leaves(target))
    wanted = ocp.args.StandardRestore(target)
    with _orbax() as reader:
        state = reader.restore((path / STATE).absolute(), args=wanted)
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


def _check_made_by(
    folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    if fingerprint(stored) != fingerprint(wanted):
        names = sorted(stored.keys() | wanted.keys())
        none = object()
        pairs = ((x, stored.get(x, none), wanted.get(x, none)) for x in names)
        differ = [x for x, a, b in pairs if fingerprint({x: a}) != fingerprint({x: b})]
        raise ValueError(
            f"{folder} holds the checkpoint of another run: {', '.join(differ)} "
            f"changed since; give another folder, or remove this one to start again."
        )


@contextmanager
def _system_errors(folder: Path) -> Iterator[None]:
    """Makes an OSError that names ``folder`` of whatever the system refuses.

    Arrays are written by tensorstore, whose system errors are ValueErrors. Orbax logs
    the traceback of what a thread of it raises, and raises it again: one is enough.
    """
    # Orbax logs a traceback for what is raised again below as one sentence.
    log = logging.getLogger("absl")
    log.addFilter(_is_news)
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(folder)) from error
    except ValueError as error:
        text = str(error)
        # tensorstore puts the number of the system error into the text of its message.
        code = re.search(r"os_error_code='(\d+)'", text)
        full = "RESOURCE_EXHAUSTED" in text or "No space left" in text
        if code is None and not full:
            raise
        # Not only a full disk: too many open files is RESOURCE_EXHAUSTED, too.
        number = int(code[1]) if code else errno.ENOSPC
        raise OSError(number, os.strerror(number), str(folder)) from error
    finally:
        log.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "run() raised an exception" not in record.getMessage()


def _leaves(tree: Tree) -> dict[str, str]:
    """What each leaf is, for example ``{"head": "float32[128, 98]"}``."""
    return {
        name: f"{jax.numpy.dtype(leaf.dtype).name}{list(leaf.shape)}"
        for name, leaf in named.flatten(tree).items()
    }


def _check(folder: Path, stored: dict[str, str], wanted: dict[str, str]) -> None:
    # Orbax casts a wrong type silently, and resizes nothing: compare before reading.
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise ValueError(
                f"Checkpoint {folder} holds {name!r} as {stored.get(name, 'nothing')}, "
                f"expected {wanted.get(name, 'nothing')}; it was written by another "
                f"configuration, so delete the folder or use another one."
            )


def _placed(target: Tree, *, here: bool = False) -> Tree:
    """Gives every abstract leaf a sharding: by default the first device.

    Args:
      target: abstract arrays.
      here: on a device of this process, whatever their shardings are.
    """
    # Orbax restores onto the devices that the arrays were saved from, which may be
    # gone.
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def on_device(leaf: Any) -> jax.ShapeDtypeStruct:
        where = None if here else getattr(leaf, "sharding", None)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where or device)

    return jax.tree.map(on_device, target)


def _on_devices(values: np.ndarray, leaf: Any) -> Any:
    where = getattr(leaf, "sharding", None)
    if where is None:
        return values
    return jax.make_array_from_callback(values.shape, where, lambda at: values[at])


def _orbax() -> ocp.Checkpointer:
    options: dict[str, Any] = {}
    if processes.count() > 1:  # the others neither write nor wait
        only = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
        )
        options["multiprocessing_options"] = only
    return ocp.Checkpointer(ocp.StandardCheckpointHandler(**options), **options)
