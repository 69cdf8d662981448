"""Where a decoder's modules meet their route: gates run here, and their words are kept.

Weights are computed at every site, once a layer, or once for the model; the level of
the route says where, and places below it are told. The running sums of a route by
sequence live in the collection ``pooled``, which a cache carries from call to call.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora.lora import Library
from jaxlora.models.config import DecoderConfig
from jaxlora.route import ROUTER, Pool, Route, running_mean
from jaxlora.tree import Tree, unflatten

POOLED = "pooled"
"""The collection of the running sums."""


class Told(NamedTuple):
    """What a module hears from above about the routing of its N tokens."""

    weights: jax.Array | None = None
    """[N, E]: labels, or the weights of a level above; None if they are yet to find."""
    pool: Pool | None = None
    """Which tokens make a sequence, for a route by sequence."""


def weigh(
    module: nn.Module, route: Route, name: str, x: jax.Array, told: Told
) -> jax.Array:
    """Returns the weights [N, E] of one place, by its state in ``gate``.

    Args:
      module: whose variables are read; ``name`` is the state's name there.
      route: of the model.
      name: ``kernel`` at a site, else ``router``.
      x: [N, D].
      told: labels for the oracle, and the pool.
    """
    here = module.has_variable("gate", name)
    state = module.get_variable("gate", name) if here else None
    if route.granularity == "sequence" and told.pool is not None:
        cached = module.has_variable(POOLED, name)
        total = module.get_variable(POOLED, name) if cached else None
        x, total = running_mean(told.pool, x, total)
        if cached:
            module.put_variable(POOLED, name, total)
    found = route.weigh(state, x, told.weights)
    module.sow("routes", "nonfinite", found.nonfinite)
    return found.weights


def pooled(
    route: Route | None, config: DecoderConfig, library: Library, batch: int
) -> Tree | None:
    """The running sums of a route by sequence before the first token: zeros.

    Args:
      route: of the model; routes by token, and no route, have none.
      config: of the model.
      library: [E, ...].
      batch: B.

    Returns:
      A tree of [L, B, D], or [B, D] above the layers, float32; or None.
    """
    if route is None or route.granularity != "sequence":
        return None
    layers, width = config.num_layers, config.hidden_size
    if route.per == "model":
        return {ROUTER: jnp.zeros((batch, width))}
    if route.per == "layer":
        return {"layers": {ROUTER: jnp.zeros((layers, batch, width))}}
    sites = lora.sites(library)
    return unflatten(
        {name: jnp.zeros((layers, batch, w.a.shape[-2])) for name, w in sites.items()}
    )
