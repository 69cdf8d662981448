"""Statistics of each expert on its own training rows, for the merges that see them."""

import jax

from jaxlora import lora
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.studies.two_hop.arms import MEMBERS
from jaxlora.studies.two_hop.symbols.experts import Experts, batches
from jaxlora.train import own_statistics


def measure(
    experts: Experts, arm: Arm, method: Method, library: lora.Library
) -> dict[str, jax.Array]:
    """Statistics of every expert on its own training rows, ``{site: [G, E, ...]}``.

    Args:
      experts: all experts of a base.
      arm: whose members' rows are used.
      method: RegMean or Fisher merging.
      library: its experts, [G, E, ...].

    Raises:
      ValueError: if it is not known which statistics the method sees.
    """
    base = experts.base
    # Members have rows of unlike numbers and lengths: each is encoded in its turn.
    rows = (
        jax.tree.map(lambda x: x[0], batches(experts, [member]))
        for member in MEMBERS[arm]
    )
    given = (base.model, base.pad, base.params, library)
    return own_statistics.measured(str(method), *given, rows)
