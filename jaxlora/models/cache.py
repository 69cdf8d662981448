"""The key-value cache: what earlier calls of a decoder left for later ones."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from jaxlora.models import delta
from jaxlora.models.config import DecoderConfig
from jaxlora.tree import Tree


@struct.dataclass
class Cache:
    """Keys and values of S slots; all rows of a batch fill the same slots.

    Rows of unequal length are padded on the left, so that their last tokens share a
    slot; ``segments`` says which slots hold a token.
    """

    keys: jax.Array
    """[P L, B, G, S, K], in the dtype of the activations: P passes over L layers, those
    without attention left out."""
    values: jax.Array
    """[P L, B, G, S, K]."""
    segments: jax.Array
    """[B, S] int32: 1 where a slot holds a token, else 0."""
    start: jax.Array
    """[] int32: slots used, padding included."""
    pooled: Tree | None = None
    """Running sums of a route by sequence, ``routing.pooled``; else None."""
    state: delta.State | None = None
    """Of layers whose mixer is a gated delta rule; None without such layers."""


def empty(
    config: DecoderConfig, batch: int, slots: int, pooled: Tree | None = None
) -> Cache:
    """Returns a cache that holds nothing.

    Args:
      config: of the decoder.
      batch: B.
      slots: S, the longest padded prompt plus all tokens to come.
      pooled: for a route by sequence, ``routing.pooled(route, config, library, B)``.
    """
    layers = config.num_layers * config.passes - sum(config.delta_layers)
    shape = (layers, batch, config.num_kv_heads, slots, config.head_dim)
    return Cache(
        keys=jnp.zeros(shape, jnp.dtype(config.dtype)),
        values=jnp.zeros(shape, jnp.dtype(config.dtype)),
        segments=jnp.zeros((batch, slots), jnp.int32),
        start=jnp.zeros((), jnp.int32),
        pooled=pooled,
        state=delta.empty(config, batch),
    )


def admit(cache: Cache, mask: jax.Array) -> tuple[Cache, jax.Array]:
    """Enters the mask [B, T] of the next tokens, before their keys are known.

    Returns:
      The cache with its segments and start moved on, and the tokens' positions [B, T]:
      how many tokens of the same row came before.

    >>> cache = empty(DecoderConfig(num_layers=1, num_kv_heads=1, num_heads=1), 1, 4)
    >>> cache, positions = admit(cache, jnp.array([[False, True, True]]))
    >>> positions.tolist(), int(cache.start)
    ([[0, 0, 1]], 3)
    """
    valid = mask.astype(jnp.int32)
    before = jnp.sum(cache.segments, axis=1, keepdims=True)
    positions = jnp.maximum(before + jnp.cumsum(valid, axis=1) - 1, 0)
    segments = jax.lax.dynamic_update_slice(cache.segments, valid, (0, cache.start))
    start = cache.start + mask.shape[1]
    return dataclasses.replace(cache, segments=segments, start=start), positions
