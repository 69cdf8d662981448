"""``jaxlora info``: versions, devices, and where caches are."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from jaxlora.commands import flags
from jaxlora.commands.flags.study import cache_dir
from jaxlora.studies import provenance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Prints versions, devices, and where caches are."""

    cache_dir: Path = dataclasses.field(default_factory=cache_dir)
    """Folder of trained bases and experts."""


def run(arguments: Sequence[str]) -> int:
    """Prints the table."""
    given = flags.parse(Arguments, "jaxlora info", arguments, default=Arguments())
    facts = provenance.here()
    table = Table(show_header=False, box=None)
    for name, version in facts["versions"].items():
        table.add_row(name, version)
    table.add_row("device", facts["device"])
    table.add_row("JAX devices", ", ".join(str(d) for d in jax.devices()))
    table.add_row("revision", facts["git_revision"] or "not in git, or uncommitted")
    table.add_row("cache", f"{given.cache_dir} ({_size(given.cache_dir)})")
    Console().print(table)
    return 0


def _size(folder: Path) -> str:
    if not folder.is_dir():
        return "does not exist yet"
    files = [path for path in folder.rglob("*") if path.is_file()]
    return f"{sum(path.stat().st_size for path in files) / 2**20:.0f} MiB"
