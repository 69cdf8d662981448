"""The MLP of a layer, and the memory: one MLP that all layers share.

A memory has its parameters, adapter and gates outside of the scan over layers, without
an axis L, under ``memory``. The layers get them as an argument: Flax would give each
layer of a scan a part of whatever a module holds.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora.models.config import DecoderConfig
from jaxlora.models.layers import Projection, activation
from jaxlora.models.routing import RoutingInputs
from jaxlora.route import Route

MEMORY = "memory"
"""The name of the MLP that all layers share."""


class Mlp(nn.Module):
    """``down(act(up x))``, or the gated form."""

    config: DecoderConfig
    route: Route | None = None
    size: int = 0
    """Hidden width; 0 for that of the config."""

    @nn.compact
    def __call__(self, x, routing: RoutingInputs):
        """Applies the MLP to x [N, D]."""
        c, size = self.config, self.size or self.config.mlp_size
        project = projector(c, self.route, x, routing)
        act, bias = activation(c.activation), c.mlp_bias
        if c.mlp == "plain":
            hidden = act(project("up_proj", size, bias))
        elif c.fused_projections:
            gate, up = jnp.split(project("gate_up_proj", 2 * size, bias), 2, axis=-1)
            hidden = act(gate) * up
        else:
            gate = project("gate_proj", size, bias)
            hidden = act(gate) * project("up_proj", size, bias)
        return output(c, self.route, hidden, routing, "down_proj", bias)


def projector(config: DecoderConfig, route: Route | None, x, routing: RoutingInputs):
    """Returns ``project(name, features, use_bias)``: the projections that read x.

    Args:
      config: of the decoder.
      route: of the decoder.
      x: [N, D].
      routing: what the routes of these sites get from above.
    """
    init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")

    def project(name: str, features: int, use_bias: bool = False) -> jax.Array:
        layer = Projection(features, config, route, use_bias, init, name=name)
        return layer(x, routing)

    return project


def output(
    config: DecoderConfig,
    route: Route | None,
    x,
    routing: RoutingInputs,
    name: str,
    use_bias: bool = False,
) -> jax.Array:
    """Projects x [N, F] to the residual stream, [N, D].

    Args:
      config: of the decoder.
      route: of the decoder.
      x: [N, F].
      routing: what the route of this site gets from above.
      name: of the projection.
      use_bias: does it have a bias?
    """
    # Two of these per layer add to the residual stream: 1 / 2L keeps its variance.
    scale = 0.5 / (config.num_layers * config.passes)
    init = nn.initializers.variance_scaling(scale, "fan_in", "normal")
    layer = Projection(config.hidden_size, config, route, use_bias, init, name=name)
    return layer(x, routing)


def declare(
    config: DecoderConfig, route: Route | None, x: jax.Array, initial: bool
) -> dict[str, Any]:
    """Declares the memory in the module that calls this, and returns its variables.

    Args:
      config: of the decoder.
      route: of the decoder.
      x: [N, D], of which only the shape matters.
      initial: whether the parameters are made now.

    Returns:
      ``{collection: tree}``, those that :func:`read` needs.
    """
    memory = Mlp(config, route, name=MEMORY)
    if initial:
        memory(x, RoutingInputs())
    given = memory.variables
    return {name: given[name] for name in ("params", "lora", "gate") if name in given}


class Memory(nn.Module):
    """Reads the memory within a layer, and sows what its routes chose there."""

    config: DecoderConfig
    route: Route | None = None

    @nn.compact
    def __call__(self, x, routing: RoutingInputs, memory: dict[str, Any]) -> jax.Array:
        """Applies the shared MLP, of variables ``memory``, to x [N, D]."""
        mlp = Mlp(self.config, self.route, parent=None)
        wanted = ["routes"] if self.is_mutable_collection("routes") else []
        output: Any = mlp.apply(memory, x, routing, mutable=wanted)
        y, sown = output
        for name, values in sown.get("routes", {}).items():
            _Sown(name=name)(values)
        return y


class _Sown(nn.Module):
    """Sows what a projection of the memory has sown."""

    @nn.compact
    def __call__(self, values: dict[str, tuple[Any, ...]]) -> None:
        for name, (value,) in values.items():
            self.sow("routes", name, value)


def site_of(path: str) -> str:
    """Returns the site that a layer has sown at a path.

    >>> site_of("layers/memory/up_proj/kernel"), site_of("layers/attn/q_proj/kernel")
    ('memory/up_proj/kernel', 'layers/attn/q_proj/kernel')
    """
    inside = f"layers/{MEMORY}/"
    return path.removeprefix("layers/") if path.startswith(inside) else path
