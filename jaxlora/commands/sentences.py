"""What a user reads of an error or an interruption, in one sentence."""

import errno
import importlib
import re

from jaxlora.commands import process_loss
from jaxlora.commands.catalog import Entry


def stopped(entry: Entry, stop: KeyboardInterrupt) -> str:
    """What is left of a run that was stopped; who stopped it noted what it saved.

    Args:
      entry: of the command.
      stop: with notes.

    >>> stop = KeyboardInterrupt()
    >>> stopped(Entry("", resumes=True), stop)
    'Stopped: nothing was saved yet; a new start begins at the beginning.'
    >>> stop.add_note("update 8 of 20 is saved")
    >>> stopped(Entry("", resumes=True), stop)
    'Stopped: update 8 of 20 is saved; the same command goes on from there.'
    """
    if not entry.resumes:
        return "Stopped; nothing half-written is left."
    saved = ", ".join(getattr(stop, "__notes__", ()))
    if not saved:
        return "Stopped: nothing was saved yet; a new start begins at the beginning."
    return f"Stopped: {saved}; the same command goes on from there."


def of_error(entry: Entry, error: Exception) -> str | None:
    """What a user reads of an error; None if it is ours, and needs its traceback.

    Args:
      entry: of the command.
      error: that it raised.

    >>> of_error(Entry("merge"), OSError(errno.ENOSPC, "No space left", "OUT"))[:40]
    'No room left on the disk (OUT); free som'
    >>> of_error(Entry("merge"), RuntimeError("Symlink loop from 'OUT'"))
    "Cannot use 'OUT': a link that leads to itself."
    """
    text = str(error)
    if isinstance(error, ValueError):
        return text if text.strip() else None  # no one can mend what says nothing
    if isinstance(error, PermissionError):
        return f"No permission for {error.filename}; choose another folder."
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _full(entry, error)
        if error.filename is None:
            return None
        return f"Cannot use {error.filename}: {error.strerror or error}."
    if text.startswith("Symlink loop"):  # of pathlib: a RuntimeError
        return f"Cannot use {text.partition(' from ')[2]}: a link that leads to itself."
    # The runtime's own error of memory is a RuntimeError.
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return _out_of_memory(entry, text)
    return None


def of_loss(error: Exception) -> str:
    """The sentence for an error that says that another process is gone, else empty.

    Args:
      error: that a process of the run raised.
    """
    module = importlib.import_module("jaxlora.parallel.processes")
    if not module.is_loss(error):
        return ""
    here = process_loss.Place(module.number(), module.count())
    return process_loss.lost(str(error), here)


def _full(entry: Entry, error: OSError) -> str:
    where = error.filename or "while writing"
    if not entry.resumes:
        return (
            f"No room left on the disk ({where}); free some, or choose another --out: "
            f"nothing half-written is left."
        )
    return (
        f"No room left on the disk ({where}); free some, or choose another --out or "
        f"--cache-dir, and run the same command: what was saved before is kept."
    )


def _out_of_memory(entry: Entry, text: str) -> str:
    """What to do, and how much was asked for, if the error says so.

    >>> _out_of_memory(Entry("forward", "--batch"), "5368709120 bytes")
    'Out of memory (for 5.0 GiB more); lower --batch, or use --dtype bfloat16, a ...'
    """
    asked = re.search(r"(\d+) bytes", text)
    more = f" (for {int(asked[1]) / 2**30:.1f} GiB more)" if asked else ""
    lower = f"lower {entry.lower}, or " if entry.lower else ""
    return (
        f"Out of memory{more}; {lower}use --dtype bfloat16, a smaller model, or a "
        f"larger machine."
    )
