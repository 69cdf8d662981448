"""Means over the sequence so far, for gates that weigh whole sequences.

Token t is routed by the mean of the inputs of tokens 0 to t of its own sequence:
nothing later is seen, so that scoring does not leak and decoding routes as prefill
does. Padding, and other examples packed into the same row, do not count.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlora.spectrum import matmul


class Pool(NamedTuple):
    """Which tokens of a call count for which; the same at every site."""

    within: jax.Array
    """[B, T, T] float32, 1 where token s (last axis) counts for token t."""
    before: jax.Array | None = None
    """[B, 1] float32, how many tokens of earlier calls count; None without a cache."""


def running_mean(
    pool: Pool, x: jax.Array, total: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Means of the sequence so far, and the sum that the next call starts with.

    Args:
      pool: which tokens count.
      x: [N, D] with N = B * T.
      total: [B, D], sum over the tokens of earlier calls.

    Returns:
      Means [N, D] and the next total [B, D], float32. A token for which none counts
      gets zeros; one whose sequence holds what is no number gets NaN.

    >>> pool = Pool(jnp.tril(jnp.ones((1, 2, 2))))
    >>> [m.tolist() for m in running_mean(pool, jnp.array([[2.0], [4.0]]))]
    [[[2.0], [3.0]], [[6.0]]]
    """
    b, t, _ = pool.within.shape
    rows = x.astype(jnp.float32).reshape(b, t, -1)
    # Zero times NaN is NaN: what is no number must reach its own sequence only.
    fine = jnp.isfinite(rows)
    stray = 1.0 - jnp.all(fine, axis=-1, keepdims=True).astype(jnp.float32)
    lost = pool.within @ stray > 0
    sums = matmul(pool.within, jnp.where(fine, rows, 0.0))
    sums = jnp.where(lost, jnp.nan, sums)
    counts = jnp.sum(pool.within, axis=-1)
    # A cached call adds what earlier calls saw, so that decoding is prefill.
    if total is not None and pool.before is not None:
        sums, counts = sums + total[:, None], counts + pool.before
    means = sums / jnp.maximum(counts, 1.0)[:, :, None]
    return means.reshape(b * t, -1), sums[:, -1]
