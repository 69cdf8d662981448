"""Strict from day one: 8 virtual devices, no silent promotion of dtype or rank.

Compiled programs are kept in `.cache/jax` from one run to the next, for every worker,
every Python and every child process: most of the time of this suite is compilation. A
key of that cache is the program with the compiler's options and version, so a changed
program is compiled anew. Tests of "does not compile again" count traces, which are not
kept; remove the folder, or set JAX_ENABLE_COMPILATION_CACHE=0, to compile everything.
"""

import gc
import os
import pathlib
import shutil
import signal
import subprocess
import sys

os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ.get(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".cache/jax")
)
# Small programs too. models/generate_test.py takes 51 s of CPU time without a cache, 24
# where it holds what took 0.1 s to compile, and 18 where it holds all (4 MB).
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest

# Reads all builtins when it is first imported; a doctest leaves its last value there.
import tyro  # noqa: F401

# A run in the background ignores Ctrl-C, and so would all processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CACHE = pathlib.Path(__file__).parents[1] / ".cache/jax"
CACHE_BYTES = 512 * 2**20

# Tracing makes millions of small objects that live on: looking through them 30 times
# less often takes 0.4 s of two modules of 25 s in place of 2.3 s.
gc.set_threshold(20_000, 20, 20)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """Drops the oldest programs of our own cache once, before any worker starts.

    JAX can bound a cache itself, but then it lists all files at every write.
    """
    if hasattr(config, "workerinput") or not CACHE.is_dir():
        return
    entries = sorted((path.stat().st_mtime, path) for path in CACHE.iterdir())
    size = sum(path.stat().st_size for _, path in entries)
    for _, path in entries:
        if size <= CACHE_BYTES:
            break
        size -= path.stat().st_size
        path.unlink()


@pytest.fixture(scope="module")
def compile_quickly():
    """Most of the time of many modules is LLVM's; the values hardly depend on it.

    Caches are emptied on both sides: a program that was compiled the other way rounds
    otherwise, and a test of bit-equality must not meet one of each.
    """
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


@pytest.fixture(scope="module")
def optax_promotes():
    """Optax itself mixes floats and integer counts, which is an error elsewhere."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount a tiny disk")
    words = [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no tiny disk can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=True)


@pytest.fixture(scope="session")
def starts_lightly():
    """A function of words: do they end, in a new process, without JAX and pandas?"""

    def run(words):
        code = (
            f"import sys; from jaxlora.cli import main; main({list(map(str, words))}); "
            "print('jax' in sys.modules, 'pandas' in sys.modules)"
        )
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1] == "False False"

    return run
