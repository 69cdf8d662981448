"""One writer at a time: locks that die with their owner.

A lock is a file that its owner keeps locked by ``flock``. The system frees it when the
process ends, however it ends, so that neither a killed run nor a process id that was
given to another program ever blocks anybody. What the file says (process, host, since)
is for messages only. Where the system knows no such locks, everybody is let in.
"""

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from jaxlora import stopping

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

KNOWN = fcntl is not None
"""Whether there are locks on this system."""
NAME = ".lock"
"""Of the lock within a folder."""
AGAIN = 0.2
"""Seconds between two looks whether another process has made an entry."""


class BusyError(ValueError):
    """Another process is writing there.

    Args:
      what: is written.
      holder: the process, in words.
    """

    def __init__(self, what: Path, holder: str):
        super().__init__(what, holder)
        self.holder = holder

    def __str__(self) -> str:
        return (
            f"{self.args[0]} is being written by another run ({self.holder}); wait for "
            f"it to end, or choose another output."
        )


@contextlib.contextmanager
def held(path: Path, what: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a lock for the time of a block, and removes its file.

    Args:
      path: of the lock's file; its folder is made if it is missing.
      what: is written while the lock is held, for the message.
      wait: until it is free; otherwise a lock of another process is an error.

    Raises:
      BusyError: naming who holds it and since when.
    """
    descriptor = _taken(path, what, wait)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _owner(), 0)
        yield
    finally:
        # While it is held: whoever waits for it sees that its file is gone.
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def folder(path: Path) -> Iterator[None]:
    """Holds a folder as its only writer; if it was made here and stays empty, it goes.

    Args:
      path: the folder.

    Raises:
      ValueError: if it is a file.
      BusyError: naming who writes there and since when.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, expected a folder to write into.")
    new = not path.exists()
    try:
        with held(path / NAME, path):
            yield
    finally:
        if new:
            with contextlib.suppress(OSError):  # it holds something, as it should
                path.rmdir()


@contextlib.contextmanager
def making(*folders: Path) -> Iterator[None]:
    """Holds entries of a cache while they are looked for and made, to make them once.

    Whoever comes second says in a line for whom it waits, and then finds the entry; if
    the first was killed, the second goes on from what it had saved. Entries that are
    not ours to write are not held.

    Args:
      *folders: the entries.

    Raises:
      Stop: after a signal, while it waits.
    """
    with contextlib.ExitStack() as stack:
        # In one order, or two processes would wait for each other.
        for path in sorted(set(folders)):
            if writable(path.parent):
                stack.enter_context(_awaited(path))
        yield


def writable(folder: Path) -> bool:
    """Whether a folder may be written into, or be made.

    Args:
      folder: of a cache, which others may read.
    """
    return not folder.is_dir() or os.access(folder, os.W_OK)


def lock(descriptor: int, *, wait: bool) -> bool | None:
    """Locks an open file or folder until it is closed.

    Args:
      descriptor: of the file.
      wait: until it is free.

    Returns:
      Whether it is ours now; None where there are no such locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of a name.

    Args:
      descriptor: of the file.
      path: the name.
    """
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _awaited(folder: Path) -> Iterator[None]:
    """Holds an entry, by a lock beside it, once no other process does."""
    path, last = folder.with_name(f".{folder.name}{NAME}"), ""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(path, folder))
                break
            except BusyError as busy:
                if busy.holder != last:
                    what = f"{folder} is made by another run ({busy.holder})"
                    print(f"jaxlora: {what}; this one waits for it.", file=sys.stderr)
                last = busy.holder
            stopping.check()
            time.sleep(AGAIN)
        yield


def _taken(path: Path, what: Path, wait: bool) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if lock(descriptor, wait=wait) is False:
            holder = _holder(os.pread(descriptor, 1000, 0))
            os.close(descriptor)
            raise BusyError(what, holder)
        # Its last owner may have removed the file before we locked it.
        if is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _owner() -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    owner = {"pid": os.getpid(), "host": platform.node(), "since": since}
    return json.dumps(owner).encode()


def _holder(text: bytes) -> str:
    """Who holds a lock, in words; another host may have written anything there."""
    try:
        owner = json.loads(text)
        pid, host, since = (str(owner[key])[:80] for key in ("pid", "host", "since"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return "which has not said who it is"
    return f"process {pid} on {host!r}, since {since}"
