"""Calling a decoder: checked entry points around ``Decoder.apply``.

>>> config = DecoderConfig(vocab_size=16, hidden_size=8, num_layers=2, mlp_size=16,
...                        num_heads=2, num_kv_heads=2, head_dim=4)
>>> model = Decoder(config)
>>> tokens = jnp.zeros((1, 3), jnp.int32)
>>> base = init(jax.random.key(0), model)
>>> apply(model, base, tokens).shape
(1, 3, 16)
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxlora.lora import Adapter, Library
from jaxlora.models.cache import Cache
from jaxlora.models.config import DecoderConfig as DecoderConfig
from jaxlora.models.decoder import Decoder, logits
from jaxlora.models.inputs import check_mask, spread, variables
from jaxlora.models.routing import POOLED
from jaxlora.tree import Tree


def init(key: jax.Array, model: Decoder) -> Tree:
    """Returns fresh base parameters."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    return Decoder(model.config).init(key, tokens)["params"]


def apply(
    model: Decoder,
    base: Tree,
    tokens: jax.Array,
    *,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
    mask: jax.Array | None = None,
    segments: jax.Array | None = None,
    positions: jax.Array | None = None,
    labels: jax.Array | None = None,
) -> jax.Array:
    """Runs the base alone, with one adapter, or with a routed library.

    Args:
      model: a decoder; its ``route`` says whether it is routed.
      base: params tree.
      tokens: [B, T] token ids, T <= max_length for learned positions.
      adapter: one adapter, for a model without a route.
      library: a library [E, ...], for a model with a route.
      gate: the route's state for the library; by default that of :func:`gate_state`.
      mask: [B, T], true where a token may be attended to; padding is false.
      segments: [B, T] in place of a mask, for several examples in a row: a token sees
        its own segment only, and 0 is padding.
      positions: [B, T] for rotary angles or learned positions; by default 0 to T - 1.
      labels: weights for the oracle gate only: [L, B, T, E], the same in all layers
        [B, T, E], or for whole sequences [B, E].

    Returns:
      Logits [B, T, V], float32.

    Raises:
      ValueError: if adapter or library does not fit the base or the model's route,
        the labels have another shape, both mask and segments are given, or the
        sequence is too long.
    """
    given = variables(model, base, tokens, adapter, library, gate, labels)
    check_mask(tokens, mask, segments)
    labels = spread(model, tokens, labels)
    return model.apply(given, tokens, mask, labels, segments, positions)  # pyrefly: ignore


def hidden(
    model: Decoder,
    base: Tree,
    tokens: jax.Array,
    *,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
    mask: jax.Array | None = None,
    segments: jax.Array | None = None,
    positions: jax.Array | None = None,
    labels: jax.Array | None = None,
) -> jax.Array:
    """As :func:`apply`, but returns the final hidden states [B, T, D].

    ``unembed(model, base, hidden(...))`` equals ``apply(...)``; scores of a large
    vocabulary need not be in memory for every token at once.
    """
    given = variables(model, base, tokens, adapter, library, gate, labels)
    check_mask(tokens, mask, segments)
    labels = spread(model, tokens, labels)
    return model.apply(  # pyrefly: ignore
        given, tokens, mask, labels, segments, positions, output="hidden"
    )


def unembed(model: Decoder, base: Tree, x: jax.Array) -> jax.Array:
    """Maps final hidden states [..., D] to logits [..., V], float32."""
    tied = model.config.tie_head
    return logits(model.config, x, base["embed"]["embedding"] if tied else base["head"])


def extend(
    model: Decoder,
    base: Tree,
    tokens: jax.Array,
    cache: Cache,
    *,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, Cache]:
    """Runs the next tokens of sequences whose earlier keys and values are cached.

    Args:
      model: a decoder.
      base: params tree.
      tokens: [B, T] token ids; they fill T more slots of the cache.
      cache: from :func:`jaxlora.models.cache.empty`, or an earlier call.
      adapter: as in :func:`apply`.
      library: as in :func:`apply`.
      gate: as in :func:`apply`.
      mask: [B, T], false where a row is padded on the left.

    Returns:
      Final hidden states [B, T, D], for :func:`unembed`, and the next cache. Slots
      beyond the cache's are not checked: the caller sizes it.

    Raises:
      ValueError: as :func:`apply`.
    """
    given = variables(model, base, tokens, adapter, library, gate, None)
    check_mask(tokens, mask, None)
    words: Any = (tokens, mask, None, None, None, cache, "hidden")
    if model.route is None or model.route.granularity != "sequence":
        return model.apply(given, *words)  # pyrefly: ignore
    if cache.pooled is None:
        raise ValueError(
            "The route is by sequence, but the cache holds no sums to go on from; "
            "make it with cache.empty(..., pooled=routing.pooled(...))."
        )
    given[POOLED] = cache.pooled
    (x, cache), rest = model.apply(given, *words, mutable=[POOLED])  # pyrefly: ignore
    return x, dataclasses.replace(cache, pooled=rest[POOLED])
