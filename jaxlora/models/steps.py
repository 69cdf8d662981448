"""A decoder in steps: embeddings, layer after layer, the final norm.

The same modules as in :class:`Decoder`, under ``jax.lax.scan``: what happens between
two layers is the caller's. A looped decoder has a step for each layer in each pass.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora.lora import Adapter
from jaxlora.models.attention import LayerPosition, layer_positions
from jaxlora.models.config import DecoderConfig, Kind
from jaxlora.models.decoder import Decoder, Layer
from jaxlora.models.delta import DELTA
from jaxlora.models.inputs import Inputs
from jaxlora.models.layers import norm
from jaxlora.models.mlp import MEMORY
from jaxlora.models.moe import MOE
from jaxlora.models.view import view_of
from jaxlora.tree import Tree

Kept = TypeVar("Kept")


class Part(NamedTuple):
    """What differs from step to step."""

    params: Tree
    """Of the layer."""
    adapter: Tree
    """Of the layer; empty for none."""
    place: LayerPosition
    """Its index counts steps."""


Step: TypeAlias = Callable[[jax.Array, Part], jax.Array]


class _Embedded(Decoder):
    """What a decoder's first layer gets, and nothing after it."""

    @nn.compact
    def __call__(self, tokens, positions):
        return self._embed(tokens, positions)


def embedded(model: Decoder, params: Tree, inputs: Inputs) -> jax.Array:
    """Returns the residual stream before the first step, [B, T, D].

    Args:
      model: a decoder.
      params: base params.
      inputs: tokens [B, T], and perhaps their positions.
    """
    parts = {name: params[name] for name in ("embed", "positions") if name in params}
    module = _Embedded(model.config)
    x: Any = module.apply({"params": parts}, inputs.tokens, inputs.positions)
    return x


def step_of(
    model: Decoder, params: Tree, inputs: Inputs, adapter: Adapter | None
) -> Step:
    """Returns a function ``(x [B, T, D], part) -> x`` after the layer of that part.

    Args:
      model: a decoder without a route.
      params: base params.
      inputs: tokens [B, T], and their mask, segments or positions.
      adapter: of the base, or None.
    """
    c = model.config
    _, view = view_of(c, None, inputs, None)
    memory = None
    if c.shared_mlp:
        memory = {"params": params[MEMORY], "lora": (adapter or {}).get(MEMORY, {})}

    def step(x: jax.Array, part: Part) -> jax.Array:
        given = {"params": part.params, "lora": part.adapter}
        carry = (x.reshape(-1, x.shape[-1]), None)
        layer = Layer(c, kind=_kind(c, part.params), parent=None)
        output: Any = layer.apply(given, carry, None, part.place, view, memory)
        return output[0][0].reshape(x.shape)

    return step


def _kind(c: DecoderConfig, params: Tree) -> Kind:
    return Kind(DELTA in params, bool(c.moe_mlps) and MOE not in params)


def scan(
    model: Decoder,
    params: Tree,
    adapter: Adapter | None,
    body: Callable[[jax.Array, Part], tuple[jax.Array, Kept]],
    x: jax.Array,
) -> tuple[jax.Array, Kept]:
    """Carries the residual stream through all S steps.

    Args:
      model: a decoder.
      params: base params.
      adapter: of the base, or None.
      body: ``(x, part) -> (x, kept)``.
      x: [B, T, D], before the first step.

    Returns:
      x after the last step, and what ``body`` keeps, stacked [S, ...].
    """
    c = model.config
    layers = (params["layers"], (adapter or {}).get("layers", {}))

    period = len(c.kinds)

    def in_turn(x: jax.Array, parts: Part) -> tuple[jax.Array, Kept]:
        kept = []
        for i in range(period):
            mine = jax.tree.map(lambda y, i=i: y[i], parts.place)
            number = str(i)
            part = Part(parts.params[number], parts.adapter.get(number, {}), mine)
            x, this = body(x, part)
            kept.append(this)
        return x, jax.tree.map(lambda *each: jnp.stack(each), *kept)

    def a_pass(x: jax.Array, index: jax.Array):
        place = layer_positions(c, index)
        if period == 1:
            return jax.lax.scan(body, x, Part(*layers, place), unroll=c.unroll)
        place = jax.tree.map(lambda y: y.reshape(-1, period, *y.shape[1:]), place)
        x, kept = jax.lax.scan(in_turn, x, Part(*layers, place))
        return x, jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), kept)

    steps = jnp.arange(c.passes * c.num_layers).reshape(c.passes, c.num_layers)
    x, kept = jax.lax.scan(a_pass, x, steps)
    return x, jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), kept)


def final(model: Decoder, params: Tree, x: jax.Array) -> jax.Array:
    """Applies the final norm to x [..., D].

    Args:
      model: a decoder.
      params: base params.
      x: the residual stream after the last step.
    """
    last = norm(model.config, parent=None)
    y: Any = last.apply({"params": params["final_norm"]}, x)
    return y
