"""A command as one of the processes of a run: its words, and who watches over it.

``--processes``, ``--process``, ``--coordinator`` and ``--wait`` belong to every command
that takes a mesh. The command then runs in a child of this process, because JAX ends a
process from within C++, in the midst and with a stack trace, when it loses another one:
somebody has to be left who says so in a sentence. This process imports no JAX.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxlora import stopping
from jaxlora.commands import process_loss, talk

CHILD = "JAXLORA_CHILD"
"""Set in the child: the descriptor that closes when its parent ends."""
WORDS = {
    "--coordinator": "JAX_COORDINATOR_ADDRESS",
    "--processes": "JAX_NUM_PROCESSES",
    "--process": "JAX_PROCESS_ID",
}
"""The flags that say who takes part, and the variables that stand for them."""
WAIT = "--wait"
USUAL_WAIT = 300.0
AGAIN = 75
"""Exit code of a run that others ended: the same command goes on."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the words say of the processes of a run; None is for JAX to find out."""

    coordinator: str | None
    processes: int | None
    process: int | None
    wait: float


def split(
    words: Sequence[str], environment: Mapping[str, str]
) -> tuple[list[str], Asked | None]:
    """Takes the words on processes out of a command line; None if there are none.

    Args:
      words: of the command line.
      environment: may have the three variables instead.

    Raises:
      ValueError: if some of the three are given and others are not.

    >>> split(["train", "--processes", "auto"], {})[1].processes is None
    True
    >>> split(["train", "--processes", "2"], {"JAX_PROCESS_ID": "1"})
    Traceback (most recent call last):
        ...
    ValueError: Got --processes and JAX_PROCESS_ID without --coordinator (or ...
    """
    rest, given = _taken(words)
    wait = _number(WAIT, given.pop(WAIT, str(USUAL_WAIT)), float)
    if given.get("--processes") == "auto":
        if "--process" in given:
            raise ValueError(
                "Got --process beside `--processes auto`, which finds it out; give "
                "the number of processes, or leave --process out."
            )
        return rest, Asked(given.get("--coordinator"), None, None, wait)
    names = {flag: flag for flag in given}
    for flag, variable in WORDS.items():
        if flag not in given and environment.get(variable):
            given[flag], names[flag] = environment[variable], variable
    if not given:
        return rest, None
    lacking = [flag for flag in WORDS if flag not in given]
    if lacking:
        shown = " and ".join(f"{flag} (or {WORDS[flag]})" for flag in lacking)
        have = " and ".join(names[flag] for flag in WORDS if flag in given)
        raise ValueError(
            f"Got {have} without {shown}: give all three, or `--processes auto` on "
            f"Cloud TPU, GKE, Slurm or MPI."
        )
    processes = _number(names["--processes"], given["--processes"], int)
    process = _number(names["--process"], given["--process"], int)
    if processes < 1:
        raise ValueError(f"{names['--processes']} is 0, expected 1 or more.")
    if not 0 <= process < processes:
        raise ValueError(
            f"{names['--process']} is {process}, expected 0 to {processes - 1}, as "
            f"{names['--processes']} is {processes}."
        )
    return rest, Asked(given["--coordinator"], processes, process, wait)


def is_asked(words: Sequence[str]) -> bool:
    """Do words of a command line say who takes part in a run?

    Args:
      words: of the command line.

    >>> is_asked(["plan", "train", "--processes=2"]), is_asked(["plan", "train"])
    (True, False)
    """
    return any(word.partition("=")[0] in (*WORDS, WAIT) for word in words)


def is_child() -> bool:
    """Is this the child that does the work?"""
    return CHILD in os.environ


def part() -> None:
    """Waits for the other processes, which may be about to end with the same error."""
    module = sys.modules.get("jaxlora.parallel.processes")
    if is_child() and module is not None:  # else there is no run yet
        module.part()


def watch(words: Sequence[str], asked: stopping.Asked) -> int:
    """Runs the command line in a child, and says in a sentence how it ended.

    Args:
      words: of the whole command line.
      asked: the signals of this process, which are passed on.

    Returns:
      Its exit code.
    """
    read, write = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "jaxlora.cli", *words],
        env={**os.environ, CHILD: str(read)},
        pass_fds=[read],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is passed on by us, once
    )
    os.close(read)
    streams = process_loss.Streams()
    outputs = (
        (child.stdout, sys.stdout, True),
        (child.stderr, talk.terminal(), False),
    )
    threads = [
        threading.Thread(target=streams.pass_on, args=pair, daemon=True)
        for pair in outputs
    ]
    for thread in threads:
        thread.start()
    try:
        code = _ended(child, asked)
    finally:
        os.close(write)  # whatever ends us ends the child
    for thread in threads:
        thread.join(timeout=5)
    if asked.number is not None and code == AGAIN:
        return stopping.CODES[signal.Signals(asked.number)]
    if streams.fatal:
        text = process_loss.lost(streams.fatal, streams.here, shown=False)
        print(f"jaxlora: {text}", file=sys.stderr)
        return AGAIN
    if code < 0:
        name = signal.Signals(-code).name
        print(f"jaxlora: The process of this run was ended by {name}.", file=sys.stderr)
        return 128 - code
    return code


@contextlib.contextmanager
def entered(asked: Asked, *, resumes: bool) -> Iterator[None]:
    """Joins the run in this block; only the first process writes and prints.

    Args:
      asked: what the words say.
      resumes: does the command look out for a signal to all processes?

    Raises:
      ValueError: naming who did not come, or if JAX sees no cluster.
    """
    import jax

    from jaxlora.parallel import processes

    if not resumes:  # then a signal is for this process, and ends the others with it
        jax.config.update("jax_enable_preemption_service", False)
    _end_with_parent(int(os.environ[CHILD]))
    who = (asked.coordinator, asked.processes, asked.process)
    group = processes.start(processes.Group(*who), asked.wait)
    label(group.process or 0, group.processes or 1)
    if processes.first():
        yield
        return
    talk.current().level, talk.current().writes = -1, False
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        yield


def label(process: int, processes: int) -> None:
    """Begins every line of stderr with the number of the process.

    Args:
      process: from 0.
      processes: how many there are.
    """
    if processes > 1:
        # For the parent, and not for the log.
        print(
            f"{process_loss.LABEL}{process}/{processes}",
            file=talk.terminal(),
            flush=True,
        )


def _ended(child: subprocess.Popen, asked: stopping.Asked) -> int:
    passed = False
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(timeout=0.1)
        if asked.number is not None and not passed:
            # JAX tells the other processes of SIGTERM, and of nothing else.
            child.send_signal(signal.SIGTERM)
            passed = True


def _end_with_parent(descriptor: int) -> None:
    def wait() -> None:
        os.read(descriptor, 1)
        os._exit(AGAIN)

    threading.Thread(target=wait, daemon=True).start()


def _taken(words: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    rest, given, flag = [], {}, ""
    for word in words:
        name, equals, value = word.partition("=")
        if flag:
            given[flag], flag = word, ""
        elif name not in (*WORDS, WAIT):
            rest.append(word)
        elif equals:
            given[name] = value
        else:
            flag = name
    if flag:
        raise ValueError(f"{flag} has no value, expected one after it.")
    return rest, given


def _number(name: str, text: str, kind: Callable[[str], float]) -> Any:
    try:
        number = kind(text)
    except ValueError:
        number = -1
    if not 0 <= number < 1e9:
        expected = "seconds" if kind is float else "a number, or auto for --processes"
        raise ValueError(f"{name} is {text!r}, expected {expected}.")
    return number
