"""The next token, drawn from logits."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlora.models.decoding import Decoding


class Sampling(NamedTuple):
    """How the next token is chosen; arrays, so that another value compiles nothing."""

    temperature: jax.Array
    top_p: jax.Array
    stop: jax.Array
    pad: jax.Array


def sampling_of(decoding: Decoding) -> Sampling:
    """Returns the numbers of a decoding as arrays.

    Args:
      decoding: how prompts are continued.
    """
    return Sampling(
        jnp.float32(decoding.temperature),
        jnp.float32(decoding.top_p),
        jnp.array(decoding.stop or (-1,)),  # no token has the id -1
        jnp.int32(decoding.pad),
    )


def sample(
    scores: jax.Array, key: jax.Array, sampling: Sampling, top_k: int
) -> jax.Array:
    """Draws one token a row, with the key folded by the row's number.

    Args:
      scores: logits [B, V], or [E, B, V] of all experts, which draw alike.
      key: PRNG key of this step.
      sampling: temperature and top_p.
      top_k: keep the most likely tokens only; 0 keeps all.

    Returns:
      Token ids [B] or [E, B], int32.
    """
    scores = scores / sampling.temperature
    if top_k:
        least = jax.lax.top_k(scores, min(top_k, scores.shape[-1]))[0][..., -1:]
        scores = jnp.where(scores < least, -jnp.inf, scores)
    scores = _nucleus(scores, sampling.top_p)
    rows = jnp.arange(scores.shape[-2])
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(rows)
    draw = jax.vmap(jax.random.categorical)  # over B; E draws from the same keys
    if scores.ndim == 3:
        draw = jax.vmap(draw, in_axes=(None, 0))
    return draw(keys, scores).astype(jnp.int32)


def _nucleus(scores: jax.Array, top_p: jax.Array) -> jax.Array:
    ranked = -jnp.sort(-scores, axis=-1)
    share = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(share, axis=-1) - share  # the most likely token always stays
    least = jnp.min(jnp.where(before < top_p, ranked, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(scores < least, -jnp.inf, scores)
