"""The gates of routes that see data, made for all groups of a base at once.

Own data are the rows that an expert was trained on: such keys belong to one library.
Target data are two-hop questions about other people of the cell, as for the merges that
learn: keys are numbered by experts, which have the same roles in all libraries of a
cell, so that one gate learns on all of them; see :mod:`.lessons`.
"""

import functools

import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.models import Decoder
from jaxlora.studies.two_hop.arms import MEMBERS
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.experts import Experts, batches
from jaxlora.studies.two_hop.symbols.lessons import Lessons, by_half
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.train import library_gates
from jaxlora.train.step import GATE, Batch
from jaxlora.tree import Tree


def on_own_data(
    experts: Experts, arm: Arm, method: Method, library: lora.Library
) -> Tree:
    """Gate states [G, ...] from the experts' own training rows.

    Args:
      experts: all experts of a base.
      arm: whose members' rows are used, also where the members are controls.
      method: a route that sees the experts' own data.
      library: its experts, [G, E, ...].
    """
    base = experts.base
    rows = batches(experts, MEMBERS[arm])
    rows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), rows)  # [G, E, N, T]
    given = (base.model, base.pad, base.params, library, rows)
    return library_gates.on_own_rows(str(method), *given)


def on_target(
    base: Base,
    method: Method,
    libraries: lora.Library,
    groups: tuple[Group, ...],
    given: Lessons,
    key: jax.Array,
) -> tuple[Tree, Tree]:
    """Gate states [G, ...] that learned on two-hop questions, for each half.

    Args:
      base: a trained base.
      method: a route that learns on the target task.
      libraries: of every group, [G, E, ...].
      groups: in the order of G.
      given: who is learned from.
      key: of the gates' starts.

    Raises:
      ValueError: if the route has no training.
    """
    model = Decoder(base.model.config, library_gates.training_of(str(method)))
    states = library_gates.fresh(model, libraries, key)
    by_cell = _shared(model, base.pad, base.params, libraries, states, given)
    keys = by_half(given, groups, by_cell)
    _, rest = GATE.split(states)
    first, second = (
        GATE.join(jax.tree.map(lambda x, h=half: x[h], keys), rest) for half in (0, 1)
    )
    return first, second


@functools.partial(jax.jit, static_argnums=(0, 1))
def _shared(
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: lora.Library,
    states: Tree,
    given: Lessons,
) -> Tree:
    """Keys [C, K, 2, ...] for every half of every group, cell after cell."""

    def cell(given: Lessons) -> Tree:
        where = given.groups
        mine, begun = jax.tree.map(lambda x: x[where], (libraries, states))

        def half(weights: jax.Array) -> Tree:
            rows = _rows(given.tokens, given.targets, weights)
            return library_gates.fit_keys(model, pad, base, mine, begun, rows)

        return jax.vmap(jax.vmap(half))(given.weights)

    return jax.lax.map(cell, given)


def _rows(tokens: jax.Array, targets: jax.Array, weights: jax.Array) -> Batch:
    """Questions [K, N, 3] as training rows, answered at the end."""

    def last(x: jax.Array) -> jax.Array:
        return jnp.stack([jnp.zeros_like(x), jnp.zeros_like(x), x], axis=-1)

    return Batch(tokens, last(targets), last(weights))
