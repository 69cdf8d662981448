"""What ``jaxlora gate`` says: the routes there are, and what came out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from jaxlora import route as routes
from jaxlora.commands.printing import line, plain

SEES = {
    "free": "the adapters",
    "own": "each adapter's own data",
    "target": "data of the task",
    "labels": "labels with each call",
}
"""What a route is made from, in words."""


def every(console: Console) -> None:
    """Prints all routes."""
    table = plain("route", "made from", "what it is", "source")
    for name in routes.names():
        entry = routes.describe(name)
        table.add_row(*map(Text, (name, SEES[entry.data], entry.summary, entry.source)))
    console.print(table)
    line(
        console,
        "made from data: `jaxlora gate` makes it, and --gate FILE uses it; from the "
        "adapters alone: --route NAME does",
    )


def measured(console: Console, out: Path, route: str, counts: Mapping[str, int]):
    """Prints how many examples of each adapter were measured.

    Args:
      console: where to.
      out: the file of the gate.
      route: its name.
      counts: of examples, by adapter.
    """
    table = plain("adapter", "examples")
    for name, count in counts.items():
        table.add_row(Text(name), str(count))
    line(console, f"{out}: {route}, of {len(counts)} adapters' own examples")
    console.print(table)


def trained(
    console: Console,
    out: Path,
    route: str,
    rows: Sequence[tuple[str, int, float, float]],
) -> None:
    """Prints the loss of each gate before and after, on the same rows.

    Args:
      console: where to.
      out: the file of the gate.
      route: its name.
      rows: gate, updates, loss before and after.
    """
    table = plain("gate", "updates", "loss before", "loss after")
    for name, updates, before, after in rows:
        table.add_row(Text(name), str(updates), f"{before:.3f}", f"{after:.3f}")
    line(console, f"{out}: {route}, trained; base and adapters as they were")
    console.print(table)
    line(console, "losses are in nats per answer token, on the first rows of the data")
