"""``jaxlora plan study``: what a study of a language model needs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxlora.commands import flags, plan_output, printing
from jaxlora.commands.flags.planning import Devices, Model, prepare
from jaxlora.plan import topology
from jaxlora.plan.work import model_of
from jaxlora.studies.harness import config
from jaxlora.studies.two_hop.text import memory
from jaxlora.studies.two_hop.text.config import STUDY, TextConfig
from jaxlora.tasks.two_hop.experts import Expert

FLAGS = {"batch": "train.batch {} in the file of --config"}
"""What makes the training smaller; layers are recomputed from width 1024 on."""
PROG = "jaxlora plan study"
DESCRIPTION = """\
What a study of a language model needs, on devices that need not be here.

Training of its experts is planned as jaxlora plan train does; what asking the questions
holds at once is added by formula.

examples:
  jaxlora plan study two-hop-text --model MODEL --topology v5p-64
  jaxlora plan study two-hop-text --model llama-3.1-8b --config study.json \\
      --topology h100:8
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a study of a language model needs."""

    study: Annotated[
        tyro.conf.Positional[Literal["two-hop-text"]], tyro.conf.arg(metavar="STUDY")
    ]
    """two-hop-text."""
    model: Model
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file of the study's options, as study two-hop takes it."""
    experts: int = len(Expert)
    """Adapters of a group, which train together."""
    devices: Annotated[Devices, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Devices
    )


def run(arguments: Sequence[str]) -> int:
    """Plans, and prints the tables."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    flags.at_least(1, given, "experts")
    file = given.config
    study = TextConfig() if file is None else config.read(TextConfig, file, STUDY)
    prepare(given.devices.topology)  # before something asks JAX for this machine's
    decoder = model_of(given.model)
    if study.train.length > decoder.max_length:
        raise ValueError(
            f"The study trains on rows of {study.train.length} tokens, but the context "
            f"of {given.model} is {decoder.max_length}; lower train.length in the file "
            f"of --config, or take another model."
        )
    work = memory.work(decoder, study, given.experts)
    # Kernel and experts at once are those of the devices, not of this machine.
    free = dataclasses.replace(work.config, attention="auto")
    there = dataclasses.replace(work, config=free, together=study.train.together)
    plan_output.run(there, given.devices, FLAGS)
    parts = memory.estimate(decoder, study, given.experts)
    names = (*memory.ASKING, "asking")
    rows = [(name, f"{parts[name] / 2**30:.3f}") for name in names]
    console = printing.console()
    printing.table(console, ("asking, on one device, by formula", "GiB"), rows)
    chip = topology.describe(given.devices.topology, compiled=False).chip
    if chip and parts["asking"] > chip.gib * 2**30:
        printing.line(
            console,
            f"A device has {chip.gib:.2f} GiB: for asking, too, the study needs a "
            f"--mesh that cuts the base, along fsdp or tensor.",
        )
    return 0
