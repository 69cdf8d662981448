"""A command as several processes, each with four devices of a CPU."""

import os
import socket
import subprocess
import sys

ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"}


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
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | ENVIRONMENT
    return subprocess.Popen(
        [sys.executable, "-m", "jaxlora.cli", *words],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


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
