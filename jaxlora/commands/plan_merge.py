"""``jaxlora plan merge``: what merging a large library needs, on other devices."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro

from jaxlora import merge
from jaxlora.commands import flags, plan_output
from jaxlora.commands.flags.planning import Devices, Shape

PROG = "jaxlora plan merge"
DESCRIPTION = """\
What merging a library needs, on devices that need not be here.

The library lies on the devices of the mesh's axis expert; experts change places with
layers, and each device merges the layers that it then has: no device has them all.

examples:
  jaxlora plan merge --model MODEL --topology v5e:2x4 --experts 64 --method mean
  jaxlora plan merge --model qwen2.5-7b --topology v5p-8 --method ties
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What merging a library needs."""

    shape: Annotated[Shape, tyro.conf.arg(name="")]
    method: str = "mean"
    """A merge, by its name in merge --list."""
    devices: Annotated[Devices, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Devices
    )


def run(arguments: Sequence[str]) -> int:
    """Plans, and prints the tables."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    how = merge.preset(given.method)
    if how.data != "free":
        raise ValueError(
            f"The merge {given.method!r} needs data, of which a plan has none; plan "
            f"with mean, ties or another that needs none."
        )
    work = given.shape.work(task="merge", method=given.method)
    return plan_output.run(work, given.devices)
