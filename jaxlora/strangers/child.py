"""A process of its own for the work that a stranger's file asks for.

A chat template, a tokenizer and a regular expression can each be written to fill
memory or to run for years, and no check beforehand catches them all. So the work is
done in a child process whose address space and processor time the operating system
limits; here is the side that asks, and :mod:`.serve` is the side that answers.
Requests and replies are JSON, each behind its length.
"""

import contextlib
import functools
import os
import select
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

from jaxlora.strangers.messages import packed, unpacked

MEMORY = 2**29
"""Bytes of address space: Python and the tokenizers take a fifth of it."""
PATIENCE = 20.0
"""Wall-clock time per second of processor time: the machine may be busy."""
_START = "import sys; sys.path += sys.argv[2:]; from jaxlora.strangers import serve; "
_START += "serve.main(int(sys.argv[1]))"
_REPLY_BYTES = 2**29
_ONE_THREAD = {
    # Arenas and thread stacks count as address space without being used.
    "MALLOC_ARENA_MAX": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class LimitError(ValueError):
    """The work took more than it may, or broke what does it: a clause, no sentence."""


class Child:
    """A limited process, started when it is first asked, and again after it died.

    It ends with this object, and with the process that owns it.

    Args:
      memory: bytes of address space.
    """

    def __init__(self, memory: int = MEMORY):
        self._memory = memory
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize | None = None

    def ask(self, operation: str, seconds: float, **arguments: Any) -> Any:
        """Returns what an operation of :mod:`.serve` gives.

        Args:
          operation: its name.
          seconds: of processor time that it may take.
          **arguments: of the operation, as JSON.

        Raises:
          ValueError: as the operation raises it.
          LimitError: if it needs more time or memory, or breaks down otherwise.
        """
        with self._lock:
            try:
                process = self._process or self._started()
                reply = _exchange(process, seconds, [operation, seconds, arguments])
            except BaseException as error:
                # An answer that is not waited for would be read as the next one's.
                ended = self._close()
                if not isinstance(error, OSError | EOFError):
                    raise
                raise LimitError(_cause(ended)) from None
        if "error" in reply:
            raise (LimitError if reply["broken"] else ValueError)(reply["error"])
        return reply["value"]

    def _started(self) -> subprocess.Popen[bytes]:
        # The folders are ours: a module in the current one must not be imported.
        here = str(Path(__file__).parents[2])
        paths = [here, *(path for path in sys.path if path)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, str(self._memory), *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | _ONE_THREAD,
            start_new_session=True,  # Ctrl-C is for the owner, who decides what ends
        )
        self._end = weakref.finalize(self, _end, self._process)
        return self._process

    def _close(self) -> int:
        """Ends the process; returns its exit code."""
        process, self._process = self._process, None
        if process is None or self._end is None:
            return 0
        self._end()
        return process.returncode


@functools.cache
def shared() -> Child:
    """The process of all requests of which none relies on another."""
    return Child()


def _exchange(process: subprocess.Popen[bytes], seconds: float, request: Any) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    data = packed(request)
    process.stdin.write(data)
    process.stdin.flush()
    # Its own clock ends it sooner, unless it waits without working.
    if (
        os.name == "posix"
        and not select.select([process.stdout], [], [], PATIENCE * (1 + seconds))[0]
    ):
        raise EOFError
    return unpacked(process.stdout, _REPLY_BYTES)


def _end(process: subprocess.Popen[bytes]) -> None:
    # Gives one that is ending of itself the time to say by its code of what.
    with contextlib.suppress(OSError):
        assert process.stdin is not None
        process.stdin.close()
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _cause(code: int) -> str:
    """Says of what a process ended.

    >>> _cause(-27), _cause(-6)
    ('it needs more time than is allowed', 'it needs more memory than is allowed')
    """
    # SIGPROF (27) is its clock, SIGKILL (9) ours; others are the library's, which
    # gives up so where memory or the stack ends.
    timed = code in (-27, -9, 1)
    return f"it needs more {'time' if timed else 'memory'} than is allowed"
