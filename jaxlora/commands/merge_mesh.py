"""Where ``jaxlora merge`` runs: on one device, or over a mesh."""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from jax.sharding import Mesh

from jaxlora.commands.flags.mesh import mesh
from jaxlora.commands.printing import say
from jaxlora.lora import LoraWeight
from jaxlora.merge import groups
from jaxlora.merge.groups import Run
from jaxlora.parallel import merging, processes
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


def followed(merges: Iterable[Any]) -> int:
    """Merges with the process that writes, and waits until it has written.

    Args:
      merges: what :func:`jaxlora.merge.groups.each` gives.

    Returns:
      0, the exit code.
    """
    for _ in merges:
        pass
    processes.meet()
    return 0


def _warn(
    cut: Mesh, method: str, program: str, library: Mapping[str, LoraWeight]
) -> None:
    """Says it if a device gathers more than twice its share of the largest module."""
    # A share of it may be more than all of a smaller one.
    most = max(x.size for site in library.values() for x in (site.a, site.b))
    for move in hlo.collectives(program, cut.shape):
        if move.kind in ("all-to-all", "reduce-scatter"):  # each keeps a part
            continue
        if max(math.prod(shape) for _, shape in move.shapes) > 2 * most / cut.size:
            say(
                [
                    f"The merge {method!r} brings more than a share of the adapters, "
                    f"or of what they become, together on each device ({move.kind} "
                    f"along {' and '.join(move.axes)}): memory is saved in part only."
                ]
            )
            return
