"""What is said when a process of a run ends because of another one, and of which.

JAX ends a process from within C++ when it loses another one, with a stack trace, or an
error of a collective is raised in Python; either text may name who is gone. Imports no
JAX: the parent of a process says it, too.
"""

import dataclasses
import re
import threading
from typing import IO

LABEL = "jaxlora-process "
"""Begins the line in which a child says its number to its parent."""
_FATAL = "JAX distributed service detected fatal errors"
# As JAX names processes that are gone: each by a path, or all by numbers in lines.
_TASK = re.compile(r"/task:(\d+)\b")
_SILENT = re.compile(r"stopped sending heartbeats\):((?:\s*\d+\n)+)")
# What it says where process 0, which holds the service, does not answer any more.
_NO_SERVICE = re.compile(r"leader task|to coordination service|Socket closed")
# What C++ libraries print of themselves, on either stream; lines of threads may run
# into each other.
_GLOO = re.compile(r".*\[Gloo\] |.* peer ranks")
# And what they log, with the stack when they end a process.
_LOG = re.compile(
    r"\*\*\* Check failure stack|\s+@ +0x|[A-Z]\d{4} \d\d:\d\d|\d*$|"
    r"The tasks have crashed|RPC: /xla"
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Which process of a run this is."""

    process: int = 0
    """From 0."""
    processes: int = 0
    """How many there are; 0 if that is not known."""


def lost(reason: str, here: Place, *, shown: bool = True) -> str:
    """The sentence of a process that ends because of another one.

    Args:
      reason: what JAX raised or printed.
      here: which process says it.
      shown: is the beginning of the reason part of the sentence?

    >>> lost("Gloo: Connection closed by peer [::1]:20617", Place(0, 2))[:70]
    'Process 1 of this run ended, or its host was lost (Gloo: Connection cl'
    """
    why = f" ({reason.splitlines()[0][:150]})" if shown and reason else ""
    return (
        f"{gone(reason, here)} of this run ended, or its host was lost{why}, so this "
        f"one ends, too; what was saved before is kept: the same command, on all "
        f"hosts, goes on from there."
    )


def gone(text: str, here: Place) -> str:
    """Who ended, as far as this can be known: of two, the other one.

    Args:
      text: what JAX raised or printed.
      here: which process asks.

    >>> gone("/job:jax_worker/replica:0/task:5 heartbeat timeout", Place(1, 8))
    'Process 5'
    >>> gone("Gloo: Connection closed by peer [::1]:20617", Place(1, 8))
    'Another process'
    """
    if here.processes == 2:
        return f"Process {1 - here.process}"
    silent = " ".join(_SILENT.findall(text)).split()
    tasks = {int(number) for number in (*_TASK.findall(text), *silent)}
    tasks -= {here.process}
    if not tasks and here.process and _NO_SERVICE.search(text):
        tasks = {0}
    if not tasks:
        return "Another process"
    names = ", ".join(map(str, sorted(tasks)))
    return f"Process{'es' * (len(tasks) > 1)} {names}"


class Streams:
    """Passes on what a child prints, but for stack traces of C++."""

    def __init__(self) -> None:
        self.here = Place()
        """What the child said of itself."""
        self.fatal = ""
        """What JAX printed when it ended the child, if it did."""
        self._lock = threading.Lock()

    def pass_on(self, source: IO[str], to: IO[str], results: bool) -> None:
        """Reads a stream of the child to its end.

        Args:
          source: what the child prints.
          to: where it goes.
          results: is it its standard output, which is that of process 0 alone?
        """
        head = ""
        for line in source:
            if line.startswith(LABEL):
                process, _, count = line.removeprefix(LABEL).strip().partition("/")
                self.here = Place(int(process), int(count))
                head = f"[{process}/{count}] "
                continue
            with self._lock:
                if _FATAL in line or self.fatal:
                    self.fatal += line
            others = results and self.here.process > 0
            noise = _GLOO.match(line) or (not results and _LOG.match(line))
            # Of a fatal end its parent says what is to be said.
            if not others and not self.fatal and not noise:
                to.write(f"{head}{line}")
                to.flush()
