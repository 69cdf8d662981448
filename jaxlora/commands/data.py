"""``jaxlora data two-hop``: writes the worlds of a study as a dataset."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jaxlora.commands import bars
from jaxlora.commands.flags import Force
from jaxlora.commands.flags import study as flags
from jaxlora.studies.two_hop.symbols import protocol
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Writes one dataset (array_record) for each seed and coverage of a study.

    `jaxlora study two-hop --data-dir OUT` with the same options reads them back; any
    other program reads them with tensorflow_datasets, without TensorFlow.
    """

    preset: flags.Preset = "quick"
    from_: flags.From = None
    out: Path = Path("results/data")
    """Root folder of the datasets; one that exists is kept."""
    force: Force = False
    config: flags.Config = dataclasses.field(default_factory=TwoHopConfig)


def run(arguments: Sequence[str]) -> int:
    """Writes the datasets and prints where each is and what it holds."""
    given = flags.parse_config(Arguments, "jaxlora data two-hop", arguments)
    from jaxlora.tasks.two_hop import builder

    console = Console()
    people = protocol.own_people(given.config)
    asked = [
        (dataclasses.replace(given.config.world, coverage=coverage), seed)
        for coverage in given.config.all_coverages
        for seed in given.config.numbers
    ]
    with bars.bar("datasets") as move:
        for i, (sizes, seed) in enumerate(asked):
            folder = builder.write(sizes, seed, given.out, people, anew=given.force)
            world = builder.read(folder)
            counts = ", ".join(f"{name} {len(x)}" for name, x in world.splits.items())
            console.print(
                f"coverage {sizes.coverage:g}, seed {seed}: {folder}\n  {counts}"
            )
            move(f"seed {seed}", i + 1, len(asked))
    return 0
