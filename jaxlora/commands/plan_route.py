"""``jaxlora plan route``: what prompts of a routed library need, on other devices."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro

from jaxlora.commands import flags, plan_output
from jaxlora.commands.flags.planning import Devices, Shape

PROG = "jaxlora plan route"
DESCRIPTION = """\
What prompts of a routed library need, on devices that need not be here.

The library lies on the devices of the mesh's axis expert; each device weighs and
applies its own adapters, and their sum is what the devices exchange: none has them all.

examples:
  jaxlora plan route --model MODEL --topology v5e:2x4 --experts 64
  jaxlora plan route --model llama-3.1-8b --topology v5p-8 --experts 64 \\
      --route arrow --mesh expert=4
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What prompts of a routed library need."""

    shape: Annotated[Shape, tyro.conf.arg(name="")]
    route: str = "arrow"
    """A route whose gate needs no data."""
    devices: Annotated[Devices, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Devices
    )


def run(arguments: Sequence[str]) -> int:
    """Plans, and prints the tables."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    work = given.shape.work(task="route", method=given.route)
    return plan_output.run(work, given.devices)
