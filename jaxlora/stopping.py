"""Signals: SIGINT and SIGTERM set a flag, which is read where it is safe to stop.

An exception in the midst of a compiled program, a callback of XLA or a thread that
writes is lost or ends the process, so a signal raises none. Only :func:`check` does,
which is called between compiled chunks. Imports nothing beyond the standard library, so
that it is at work before JAX is imported.
"""

import contextlib
import contextvars
import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}
"""Exit codes: 128 + 2 as shells have it, and EX_TEMPFAIL, "try again"."""
TWICE = 0.05
"""Seconds in which two SIGINTs count once: some wrappers pass on what both received."""


class Stop(KeyboardInterrupt):
    """Raised by :func:`check` after a signal; its notes say what is saved."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclasses.dataclass
class Asked:
    """What the signals of this process have asked for."""

    number: int | None = None
    """The first signal, if there was one."""
    since: float = 0.0
    at_once: bool = True
    """Does a first signal end the process, because there is nothing to save?"""


_ASKED: contextvars.ContextVar[Asked | None] = contextvars.ContextVar(
    "asked", default=None
)


@contextlib.contextmanager
def handled() -> Iterator[Asked]:
    """Handles SIGINT and SIGTERM in this block; elsewhere than in the main thread, not.

    Signals are written to a pipe by the system's handler, and read by a thread, which
    is not kept waiting by a compilation as a handler of Python would be.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    # A process started with nohup, or in the background, ignores signals on purpose.
    mine = [n for n in CODES if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _noted) for number in mine}
    old = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(read, asked), daemon=True)
    thread.start()
    token = _ASKED.set(asked)
    try:
        yield asked
    finally:
        _ASKED.reset(token)
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(write)  # ends the thread
        thread.join()
        os.close(read)


def check(saved: str = "") -> None:
    """Stops here if a signal has asked for it.

    Args:
      saved: what is on the disk by now, which becomes a note of the error.

    Raises:
      Stop: after a first SIGINT or SIGTERM in a block of :func:`handled`.

    >>> check()
    """
    asked = _ASKED.get()
    if asked is not None and asked.number is not None:
        stop = Stop(asked.number)
        if saved:
            stop.add_note(saved)
        raise stop


def code_of(error: KeyboardInterrupt) -> int:
    """The exit code of an interruption.

    >>> code_of(Stop(signal.SIGTERM)), code_of(KeyboardInterrupt())
    (75, 130)
    """
    return CODES[getattr(error, "number", signal.SIGINT)]


def leave(code: int, *, at_once: bool = False) -> NoReturn:
    """Ends the process with a code; after a signal without the interpreter's end.

    Threads of XLA that still run while the interpreter is taken down end in a
    segmentation fault.

    Args:
      code: of the exit.
      at_once: without the interpreter's end, whatever the code: other processes of a
        run then learn of it, instead of being waited for.
    """
    for number in CODES:
        signal.signal(number, signal.SIG_IGN)  # all is done; nothing is left to stop
    if at_once or code in CODES.values():
        _flush()
        os._exit(code)
    sys.exit(code)


def _noted(*_: Any) -> None:
    """Handles a signal in Python, where nothing is to be done: the pipe has it."""


def _listen(read: int, asked: Asked) -> None:
    while data := os.read(read, 1):
        number = data[0]
        if number not in CODES:
            continue
        if asked.at_once:
            text = "Stopped before anything was begun; what was saved before is kept."
            _end(CODES[signal.Signals(number)], text)
        if asked.number is None:
            asked.number, asked.since = number, time.monotonic()
            again = " Ctrl-C once more ends at once." * (number == signal.SIGINT)
            _write(f"Stopping after the step that runs now.{again}")
        elif number == signal.SIGINT and time.monotonic() - asked.since > TWICE:
            _end(CODES[signal.SIGINT], "Ended at once; what was saved before is kept.")


def _end(code: int, text: str) -> NoReturn:
    _write(text)
    os._exit(code)


def _write(text: str) -> None:
    """Writes to stderr beside the main thread, over a bar and its hidden cursor."""
    clear = "\r\x1b[K\x1b[?25h" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{clear}jaxlora: {text}\n".encode())


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a pipe without a reader
            stream.flush()
