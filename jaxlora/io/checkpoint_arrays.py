"""Arrays of a checkpoint on the disk: the only module that knows orbax."""

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxlora.parallel import processes
from jaxlora.tree import Tree


def write(folder: Path, tree: Tree) -> None:
    """Writes arrays as a new folder.

    Args:
      folder: absent.
      tree: arrays.
    """
    with _orbax() as writer:
        # Absolute: tensorstore knows no other paths.
        writer.save(folder.absolute(), args=ocp.args.StandardSave(tree))


def read(folder: Path, target: Tree) -> Tree:
    """Reads arrays of a folder.

    Args:
      folder: that :func:`write` wrote.
      target: abstract arrays of the stored shapes and types, each with a sharding.
    """
    with _orbax() as reader:
        wanted = ocp.args.StandardRestore(target)
        return reader.restore(folder.absolute(), args=wanted)


@contextmanager
def system_errors(folder: Path) -> Iterator[None]:
    """Makes an OSError that names ``folder`` of whatever the system refuses.

    Arrays are written by tensorstore, whose system errors are ValueErrors. Orbax logs
    the traceback of what a thread of it raises, and raises it again: one is enough.

    Args:
      folder: for the message.
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


def placed(target: Tree, *, here: bool = False) -> Tree:
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


def on_devices(values: np.ndarray, leaf: Any) -> Any:
    """Puts complete values where an abstract leaf says; without that they stay.

    Args:
      values: the same in every process.
      leaf: abstract, perhaps with a sharding.
    """
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
