"""Where numbers come from: versions, device, revision, compile time, memory."""

import dataclasses
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import jaxlora
from jaxlora.io import library
from jaxlora.tree import Tree

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")


@dataclasses.dataclass
class Seconds:
    """A running total."""

    seconds: float = 0.0


@contextmanager
def compile_time() -> Iterator[Seconds]:
    """Counts the seconds that JAX spends tracing, lowering and compiling."""
    total = Seconds()
    counting = True

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if counting and event.startswith("/jax/core/compile/"):
            total.seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield total
    finally:
        # JAX has no public way to take a listener back; this one goes silent.
        counting = False


def here() -> dict[str, Any]:
    """Versions, device and revision of this process."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        "versions": {
            "jaxlora": jaxlora.__version__,
            "python": platform.python_version(),
            **versions,
        },
        "device": device(),
        "git_revision": revision_of(Path(jaxlora.__file__).parent),
    }


def program() -> dict[str, Any]:
    """What decides, beside its code and inputs, what a program computes."""
    versions = [metadata.version(name) for name in ("jax", "flax", "optax")]
    # A part of cache keys, as platforms round differently; nothing is chosen by it.
    return {"versions": versions, "backend": jax.default_backend()}


def base(params: Tree, config: Any) -> dict[str, Any]:
    """What a run on a base must find again to go on: its bytes, not its place.

    Args:
      params: of the base.
      config: of the decoder.
    """
    facts = dataclasses.asdict(config)
    if facts.get("attention") in ("cudnn", "splash"):  # of the place
        facts["attention"] = "auto"
    return {
        "weights of the base": library.base_identity(params),
        "configuration of the base": facts,
        "version of jaxlora": jaxlora.__version__,
    }


def device() -> str:
    """The accelerator, or the number of CPU cores, in words."""
    first, count = jax.devices()[0], jax.device_count()
    if first.platform == "cpu":
        return f"CPU, {_cores()} cores, {platform.machine()}"
    return f"{count} x {first.device_kind}"


def _cores() -> int | str:
    """Cores that this process may use; all of them where the system cannot say."""
    if hasattr(os, "sched_getaffinity"):  # Linux; not macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or "unknown"


def revision_of(path: Path) -> str | None:
    """The last commit that changed ``path``; None if uncommitted or outside git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(path.parent), *words, "--", path.name],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        if git("status", "--porcelain"):
            return None
        return git("log", "-1", "--format=%H") or None
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory_gib() -> float:
    """The largest resident size of this process so far; NaN if unknown (Windows).

    In a results.json, NaN is null.
    """
    try:
        import resource  # the standard library has it on Unix only
    except ImportError:
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
