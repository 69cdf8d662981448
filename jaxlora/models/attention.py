"""Causal grouped-query attention: who sees whom, and the softmax.

Tokens lie in slots: slot ``start + t`` for token t of a call, where ``start`` counts
the slots that a cache already holds (0 without one). A query sees the keys of its own
segment at its own and earlier slots; segment 0 is padding, which nobody sees, and what
is in the segment ``SHARED`` everybody sees who comes after it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlora.models.config import DecoderConfig
from jaxlora.route import Pool

SHARED = -1
"""The segment of what all examples of a row begin with."""


class Runs(NamedTuple):
    """Which tokens of a call follow each other; without any of it, all of a row."""

    live: jax.Array | None = None
    """[B, T], false at padding."""
    order: jax.Array | None = None
    """[B, T], the places of a row's tokens, and then those of its padding; none if
    padding lies between segments only."""
    segments: jax.Array | None = None
    """[B, T], the tokens of each side by side; none for one segment a row."""


class View(NamedTuple):
    """What all layers of one call share."""

    positions: jax.Array
    """[B, T], for rotary angles."""
    seen: jax.Array | None
    """[B, T, S], true where a query may attend to a key; none for every earlier one."""
    near: jax.Array | None
    """The same on local layers: ``window`` slots at most; none without such layers."""
    start: jax.Array | None
    """[], the first slot that this call writes; none without a cache."""
    pool: Pool | None = None
    """Which tokens make a sequence, for a route by sequence; else none."""
    segments: tuple[jax.Array, jax.Array] | None = None
    """Of queries and of keys, [B, T]: what ``seen`` is made of; none with a cache."""
    length: jax.Array | int | None = None
    """Tokens of the longest sequence, if rotary frequencies depend on it."""
    runs: Runs | None = None
    """For layers whose mixer is no attention; none without such layers."""


class LayerPosition(NamedTuple):
    """Where in the stack a layer is; scanned."""

    index: jax.Array
    """[], from 0; pass p of a looped decoder goes on at p L."""
    local: jax.Array | None
    """[], true if the layer sees the last ``window`` keys only."""
    rotary: jax.Array | None = None
    """[], true if queries and keys are rotated; none where they are in all layers."""
    slot: jax.Array | None = None
    """[], place in the cache among layers of its kind; none where that is ``index``."""


def layer_positions(config: DecoderConfig, index: jax.Array) -> LayerPosition:
    """Returns the position of each of the L layers of one pass, to be scanned.

    Args:
      config: of the decoder.
      index: [L], where in the stack each layer is.
    """
    local, rotary = config.local_layers, config.rotary_layers
    return LayerPosition(
        index,
        jnp.asarray(local) if any(local) else None,
        None if all(rotary) else jnp.asarray(rotary),
        _slots(config.delta_layers) if any(config.delta_layers) else None,
    )


def _slots(delta: tuple[bool, ...]) -> jax.Array:
    """The number of each layer among those of its kind, [L]."""
    before = [
        sum(delta[:i]) if here else i - sum(delta[:i]) for i, here in enumerate(delta)
    ]
    return jnp.asarray(before, jnp.int32)


def seen(queries: jax.Array, keys: jax.Array, start: jax.Array | int) -> jax.Array:
    """Who sees whom: same segment, and no key in a later slot.

    Args:
      queries: segments [B, T] of the queries, in slots start to start + T - 1.
      keys: segments [B, S] of the keys, in slots 0 to S - 1; 0 is padding, and -1 is
        seen by every segment.
      start: slot of the first query.

    Returns:
      Booleans [B, T, S].

    >>> segments = jnp.array([[1, 1, 2]])
    >>> seen(segments, segments, 0)[0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    same = queries[:, :, None] == keys[:, None, :]
    open_to = (same & (keys[:, None, :] > 0)) | (keys[:, None, :] == SHARED)
    return open_to & (_gap(queries, keys, start) >= 0)


def near(queries: jax.Array, keys: jax.Array, start, window: int) -> jax.Array:
    """As :func:`seen`, for the query's slot and the ``window - 1`` before it."""
    gap = _gap(queries, keys, start)
    return seen(queries, keys, start) & (gap < window)


def _gap(queries: jax.Array, keys: jax.Array, start) -> jax.Array:
    mine = jnp.arange(queries.shape[1])[:, None] + start
    return (mine - jnp.arange(keys.shape[1])[None, :])[None]


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    allowed: jax.Array,
    *,
    scale: float,
    softcap: float = 0.0,
) -> jax.Array:
    """Softmax attention with scores in float32, and in memory.

    Args:
      q: queries [B, T, H, K].
      k: keys [B, G, S, K], H a multiple of G.
      v: values [B, G, S, K].
      allowed: [B, T, S]; a query that may attend to nothing gets zeros.
      scale: factor on the scores.
      softcap: c in ``c tanh(score / c)``, or 0 for none.

    Returns:
      [B, T, H, K].
    """
    b, t, heads, width = q.shape
    groups = k.shape[1]
    q = jnp.swapaxes(q, 1, 2).reshape(b, groups, heads // groups, t, width)
    scores = scale * jnp.einsum(
        "bghtk,bgsk->bghts", q, k, preferred_element_type=jnp.float32
    )
    if softcap:
        scores = softcap * jnp.tanh(scores / softcap)
    allowed = allowed[:, None, None]
    # A finite floor, not -inf: a row without any key must give zeros, not NaN.
    scores = jnp.where(allowed, scores, -1e30)
    share = jax.nn.softmax(scores, axis=-1)
    out = jnp.einsum("bghts,bgsk->bghtk", share.astype(v.dtype), v)
    out = jnp.where(jnp.any(allowed, axis=-1, keepdims=True), out, 0)
    return jnp.swapaxes(out.reshape(b, heads, t, width), 1, 2)
