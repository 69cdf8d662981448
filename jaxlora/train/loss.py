"""The loss, and the one-step update that pretraining and experts share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxlora.lora import Adapter, Library
from jaxlora.models import Decoder, Inputs, apply
from jaxlora.tree import Tree


class Batch(NamedTuple):
    """Rows as device arrays: tokens, targets, weights, each [..., B, T]."""

    tokens: jax.Array
    targets: jax.Array
    weights: jax.Array


def loss(
    model: Decoder,
    base: Tree,
    batch: Batch,
    pad: int,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
) -> jax.Array:
    """Weighted mean cross-entropy in nats, over the targets of a batch.

    Args:
      model: a decoder.
      base: params tree.
      batch: [B, T] arrays; weights are 0 where nothing is predicted.
      pad: id of the padding token, which is never attended to.
      adapter: one adapter, or none.
      library: [E, ...], for a model with a route.
      gate: state of the route.
    """
    inputs = Inputs(batch.tokens, batch.tokens != pad)
    logits = apply(model, base, inputs, adapter=adapter, library=library, gate=gate)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    total = jnp.sum(nats * batch.weights)
    return total / jnp.maximum(jnp.sum(batch.weights), 1.0)


def decayed(params: Tree) -> Tree:
    """Mask of the leaves that weight decay shrinks: all but norm scales and biases."""

    def one(path: tuple[Any, ...], _: Any) -> bool:
        return getattr(path[-1], "key", "") not in ("scale", "bias")

    return jax.tree_util.tree_map_with_path(one, params)
