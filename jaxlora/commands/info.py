"""``jaxlora info``: versions, devices, and where caches are."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax

from jaxlora.commands import flags, printing
from jaxlora.commands.flags.study import cache_dir
from jaxlora.studies.harness import provenance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Prints versions, devices, and where caches are."""

    cache_dir: Path = dataclasses.field(default_factory=cache_dir)
    """Folder of trained bases and experts."""


def run(arguments: Sequence[str]) -> int:
    """Prints the table."""
    given = flags.parse(Arguments, "jaxlora info", arguments, default=Arguments())
    facts = provenance.here()
    rows = {
        **facts["versions"],
        "device": facts["device"],
        "JAX devices": ", ".join(map(str, jax.devices())),
        "revision": facts["git_revision"] or "not in git, or uncommitted",
        "cache": f"{given.cache_dir} ({_size(given.cache_dir)})",
    }
    printing.facts(rows)
    return 0


def _size(folder: Path) -> str:
    if not folder.is_dir():
        return "does not exist yet"
    files = [path for path in folder.rglob("*") if path.is_file()]
    return f"{sum(path.stat().st_size for path in files) / 2**20:.0f} MiB"
