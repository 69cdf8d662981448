"""``jaxlora plan train``: what a step of training needs, compiled for other devices."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro

from jaxlora.commands import flags, plan_output
from jaxlora.commands.flags.planning import Devices, Shape
from jaxlora.commands.flags.training import Remat

PROG = "jaxlora plan train"
DESCRIPTION = """\
What a step of training many adapters needs, on devices that need not be here.

Our own step is compiled for the chips of a topology, with shapes only: nothing is read,
allocated or sent. Says memory a chip, which chips talk to which and how much, and the
time of a step at a share of the chips' peak; and if it does not fit, what would. This
needs the chips' compiler, which installs on any x86 Linux: pip install 'jax[tpu]', or
for GPUs jax-cuda13-plugin of JAX's version and nvidia-cudnn-cu13. Else by formula.

examples:
  jaxlora plan train --model MODEL --topology v5e:4x4 --experts 8
  jaxlora plan train --model qwen2.5-7b --topology v5p-64 --experts 64 \\
      --length 1024 --mesh expert=8,fsdp=4
  jaxlora plan train --model MODEL --topology h100:8
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a step of training needs."""

    shape: Annotated[Shape, tyro.conf.arg(name="")]
    accumulate: int = 1
    """Microbatches of an update."""
    together: int = 0
    """Adapters that train at once; 0 for all, fewer need less memory."""
    remat: Remat = "auto"
    """Recompute layers in the backward pass; auto: from width 1024 on."""
    devices: Annotated[Devices, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Devices
    )


def run(arguments: Sequence[str]) -> int:
    """Plans, and prints the tables."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    flags.at_least(1, given, "accumulate")
    flags.at_least(0, given, "together")
    work = given.shape.work(accumulate=given.accumulate, together=given.together)
    wide = given.remat == "auto" and work.config.hidden_size >= 1024
    config = dataclasses.replace(work.config, remat=given.remat == "on" or wide)
    return plan_output.run(dataclasses.replace(work, config=config), given.devices)
