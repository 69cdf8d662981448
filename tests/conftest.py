"""Strict from day one: 8 virtual devices, no silent promotion of dtype or rank.

Compiled programs are kept in `.cache/jax` from one run to the next, for every worker,
every Python and every child process: most of the time of this suite is compilation. A
key of that cache is the program with the compiler's options and version, so a changed
program is compiled anew. Tests of "does not compile again" count traces, which are not
kept; remove the folder, or set JAX_ENABLE_COMPILATION_CACHE=0, to compile everything.
"""

import functools
import gc
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

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

# Rewritten tests too are kept: a process takes 5 s to rewrite all of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

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
# Most of the time of many modules would be LLVM's; the values hardly depend on it. For
# all modules alike: a program that was compiled the other way rounds otherwise.
jax.config.update("jax_disable_most_optimizations", True)


def _share_contexts(programs: int = 200) -> None:
    """Lets programs of a thread be written in one MLIR context, a new one now and then.

    JAX makes one for every program and loads ten dialects into it: 3 to 4 ms each, of
    10 to 15 ms for a program of one operation, and the suite has 24,000 programs. A
    context keeps the constants of its programs, so it must not live forever.
    """
    from jax._src.interpreters import mlir

    make = getattr(mlir, "make_ir_context", None)
    if make is None:  # another JAX: slower, and nothing else
        return
    used = threading.local()

    def shared():
        if getattr(used, "left", 0) == 0:
            used.context, used.left = make(), programs
        used.left -= 1
        return used.context

    mlir.make_ir_context = shared


_share_contexts()


def _keep_sources_of_flags() -> None:
    """Lets what a class of flags says of its fields be read once in a process.

    tyro forgets it before every command, and takes a quarter of the time of a command
    that ends with its flags to read it again.
    """
    from tyro import _docstrings

    kind = getattr(_docstrings, "_ClassTokenization", None)
    if kind is None:  # another tyro: slower, and nothing else
        return
    kind.make = staticmethod(functools.cache(kind.make))


_keep_sources_of_flags()


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


MAPS = pathlib.Path("/proc/self/maps")
MAPS_AT_MOST = 30_000
MODULES = itertools.count(1)


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Forgets compiled programs before there are too many to map.

    Each takes several pieces of memory, of which Linux gives a process 65,530: the next
    program ends it with a segmentation fault. Every fourth module is enough: to list
    them takes 20 ms, and a module adds 4,300 at most.
    """
    yield
    if next(MODULES) % 4:
        return
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MAPS_AT_MOST:
        jax.clear_caches()
        gc.collect()


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
