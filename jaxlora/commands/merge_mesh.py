"""Where ``jaxlora merge`` runs: on one device, or over a mesh."""

import functools
import math
from collections.abc import Mapping

from jax.sharding import Mesh

from jaxlora.commands.flags.mesh import mesh
from jaxlora.commands.printing import say
from jaxlora.lora import LoraWeight
from jaxlora.merge import groups
from jaxlora.merge.groups import Run
from jaxlora.parallel import merging
from jaxlora.plan import hlo


def run_on(sizes: str, method: str, adapters: int) -> Run:
    """Runs merges where a flag says, and says which would need a whole library there.

    Args:
      sizes: of the axes of a mesh; empty for one device.
      method: name of the merge.
      adapters: how many there are.

    Raises:
      ValueError: if the mesh is none, or does not divide devices or adapters.
    """
    cut = mesh(sizes, expert={"adapters": adapters})
    if cut is None:
        return groups.here
    return merging.across(cut, functools.partial(_warn, cut, method))


def _warn(
    cut: Mesh, method: str, program: str, library: Mapping[str, LoraWeight]
) -> None:
    """Says it if devices send each other as much as all experts of some module."""
    least = min(x.size for site in library.values() for x in (site.a, site.b))
    for move in hlo.collectives(program, cut.shape):
        if move.kind in ("all-to-all", "reduce-scatter"):  # each keeps a part
            continue
        if max(math.prod(shape) for _, shape in move.shapes) >= least:
            say(
                [
                    f"The merge {method!r} looks at all experts and layers at once: "
                    f"each device holds all adapters of a kind of module for a while "
                    f"({move.kind} along {' and '.join(move.axes)})."
                ]
            )
            return
