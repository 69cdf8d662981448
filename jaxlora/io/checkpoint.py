"""Checkpoints and caches: the only module that knows orbax.

A cache entry is a folder named by the hash of everything that made it. Orbax writes
each step under a temporary name and renames it, so a killed run leaves the last whole
step and nothing else.
"""

import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxlora import tree as named
from jaxlora.tree import Tree


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
    """Writes ``tree`` and ``meta`` as ``folder/step``, and drops older steps.

    Args:
      folder: the cache entry.
      step: number of the step, from 0.
      tree: arrays; PRNG keys as key data.
      meta: JSON-able facts that travel with the arrays.

    Raises:
      OSError: if the disk is full or the folder cannot be written; the last whole step
        is left as it was.
    """
    # Shapes and types are stored as text, so that they can be compared before reading.
    facts = {"meta": dict(meta), "leaves": _leaves(tree)}
    with _system_errors(folder), _manager(folder) as manager:
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(tree), facts=ocp.args.JsonSave(facts)
            ),
        )


def restore(folder: Path, target: Tree) -> tuple[int, Tree, dict[str, Any]] | None:
    """Reads the newest whole step, or None if there is none.

    Args:
      folder: the cache entry.
      target: abstract arrays (``jax.eval_shape``), with shardings where wanted.

    Returns:
      Step, tree and meta.

    Raises:
      ValueError: if a stored leaf has another shape or type than ``target``; orbax
        would cast a wrong type silently.
    """
    if not folder.is_dir():
        return None
    with _manager(folder) as manager:
        # A step that was being written when the process died is not listed.
        step = manager.latest_step()
        if step is None:
            return None
        # Facts first: they say whether the arrays can be read into ``target``.
        only_facts = ocp.args.Composite(facts=ocp.args.JsonRestore())
        facts = manager.restore(step, args=only_facts)["facts"]
        _check(folder, facts["leaves"], _leaves(target))
        wanted = ocp.args.StandardRestore(_placed(target))
        restored = manager.restore(step, args=ocp.args.Composite(state=wanted))
    return step, restored["state"], facts["meta"]


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
        if error.errno is None or error.filename is not None:
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


def _placed(target: Tree) -> Tree:
    """Gives every abstract leaf a sharding: by default the first device."""
    # Orbax restores onto the devices that the arrays were saved from, which may be
    # gone.
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def on_device(leaf: Any) -> jax.ShapeDtypeStruct:
        where = getattr(leaf, "sharding", None) or here
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree.map(on_device, target)


def _manager(folder: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        # One step is enough to resume; caches of many bases would fill the disk.
        max_to_keep=1,
        enable_async_checkpointing=False,
        create=True,
    )
    return ocp.CheckpointManager(folder.absolute(), options=options)
