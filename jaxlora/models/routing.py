"""Gates inside a decoder: where they run, and what is passed down to the sites.

Weights of the experts are computed at every site, once a layer, or once for the model;
``Route.per`` says which, and the weights are passed down to the sites below. The
running sums of a route by sequence live in the collection ``pooled``, which a cache
carries from call to call.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora.lora import Library
from jaxlora.models import sites
from jaxlora.models.config import DecoderConfig
from jaxlora.route import ROUTER, Pool, Route, routers, running_mean
from jaxlora.tree import Tree, unflatten

POOLED = "pooled"
"""The collection of the running sums."""


class RoutingInputs(NamedTuple):
    """Expert weights and the pooling mask, passed down through the modules."""

    weights: jax.Array | None = None
    """[N, E]: labels of the oracle, or weights computed above; None if the gate of this
    site computes them."""
    pool: Pool | None = None
    """Which tokens a route by sequence takes the mean of; None for other routes."""


def weigh(
    module: nn.Module, route: Route, name: str, x: jax.Array, routing: RoutingInputs
) -> jax.Array:
    """Runs one gate, and sows where its scores were no numbers.

    Args:
      module: whose variables are read: the gate's state, and the running sums.
      route: of the model.
      name: of the state in ``module``: ``kernel`` at a site, else ``router``.
      x: [N, D], what the gate sees.
      routing: labels of the oracle as its weights, and the pooling mask.

    Returns:
      Weights of the experts, [N, E].
    """
    here = module.has_variable("gate", name)
    state = module.get_variable("gate", name) if here else None
    if route.granularity == "sequence" and routing.pool is not None:
        cached = module.has_variable(POOLED, name)
        total = module.get_variable(POOLED, name) if cached else None
        x, total = running_mean(routing.pool, x, total)
        if cached:
            module.put_variable(POOLED, name, total)
    choice = route.weigh(state, x, routing.weights)
    module.sow("routes", "nonfinite", choice.nonfinite)
    return choice.weights


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

    Raises:
      ValueError: if a decoder with a loop or a memory has a gate within its layers.
    """
    if route is None or route.granularity != "sequence":
        return None
    # Of layers of several kinds a site has those of one place in each period.
    layers, width = config.num_layers // len(config.kinds), config.hidden_size
    if route.per == "model":
        return {ROUTER: jnp.zeros((batch, width))}
    if config.passes > 1 or config.shared_mlp:
        raise ValueError(
            f"A route by sequence per {route.per} cannot be decoded with "
            f"passes={config.passes} and shared_mlp={config.shared_mlp}: a place keeps "
            f"one running sum, and would need one for each time that it is read; use "
            f"a gate per model, or route by token."
        )
    if route.per == "layer":
        paths = routers(sites.kernels(library))
        return unflatten({x: jnp.zeros((layers, batch, width)) for x in paths})
    adapted = lora.sites(sites.kernels(library))
    return unflatten(
        {x: jnp.zeros((layers, batch, w.a.shape[-2])) for x, w in adapted.items()}
    )
