"""A command as several processes, each with four devices of a CPU."""

import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "4",
    # Most of the time of a short run is compilation.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start(
    words: list[str], port: int, processes: int = 2, only: tuple[int, ...] = ()
) -> list[subprocess.Popen[str]]:
    """Starts ``jaxlora WORDS`` as so many processes, or some of them."""
    more = ["--coordinator", f"localhost:{port}", "--processes", str(processes)]
    numbers = only or range(processes)
    return [alone([*words, *more, "--process", str(i)]) for i in numbers]


def alone(words: list[str]) -> subprocess.Popen[str]:
    """Starts ``jaxlora WORDS``, with four devices of the CPU."""
    return _started("-m", "jaxlora.cli", *words)


def script(path: str, *words: str) -> subprocess.Popen[str]:
    """Starts a file of Python as a process with four devices of the CPU."""
    return _started(path, *words)


def _started(*words: str) -> subprocess.Popen[str]:
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | ENVIRONMENT
    return subprocess.Popen(
        [sys.executable, *words],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def worker(pid: int) -> int:
    """The child in which a command does its work."""
    text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return int(text.split()[0])


def until(
    check: Callable[[], object],
    children: list[subprocess.Popen[str]],
    seconds: float = 180,
) -> None:
    """Waits until something is so; fails if it is not in time, or a child ends."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() < end and all(child.poll() is None for child in children):
            time.sleep(0.05)
            continue
        for child in children:
            child.kill()
        raise AssertionError([child.communicate() for child in children])


def ended(
    children: list[subprocess.Popen[str]], seconds: float = 300
) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each, when all have ended."""
    try:
        pairs = [child.communicate(timeout=seconds) for child in children]
    finally:
        for child in children:
            child.kill()
    return [(c.returncode, *pair) for c, pair in zip(children, pairs, strict=True)]
