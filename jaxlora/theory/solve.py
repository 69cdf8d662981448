"""Least squares of many facts at once, safe where keys are nearly dependent.

All of it goes through the Gram matrix of the keys or of the features, whichever is
smaller, by Cholesky with two refinements. The little that is added to the diagonal
keeps the factor finite; the refinements take its effect away again on the span of the
keys (iterated Tikhonov regularisation, Hanke and Groetsch, 1998).
"""

import jax
import jax.numpy as jnp

from jaxlora import spectrum

REFINEMENTS = 2


def _solve(gram: jax.Array, right: jax.Array) -> jax.Array:
    """``gram^-1 right`` for one symmetric, non-negative matrix [N, N]."""
    n = gram.shape[0]
    eps = jnp.finfo(gram.dtype).eps
    # Keeps the factor finite where keys are dependent; the refinements undo it.
    jitter = eps * n * jnp.max(jnp.diagonal(gram)) + jnp.finfo(gram.dtype).tiny
    factor = jnp.linalg.cholesky(gram + jitter * jnp.eye(n, dtype=gram.dtype))
    solution = jax.scipy.linalg.cho_solve((factor, True), right)
    for _ in range(REFINEMENTS):
        left = right - spectrum.matmul(gram, solution)
        solution = solution + jax.scipy.linalg.cho_solve((factor, True), left)
    return solution


solve = jax.jit(spectrum.one_by_one(_solve))
"""``solve(gram [..., N, N], right [..., N, K])``, finite even for a singular gram."""


def least_squares(keys: jax.Array, values: jax.Array) -> jax.Array:
    """Returns W [M, F] of least norm among those of least ``|keys W - values|``.

    Args:
      keys: [N, M]; with N <= M independent keys the fit is exact.
      values: [N, F].

    >>> w = least_squares(jnp.eye(3)[:2], jnp.asarray([[1.0], [2.0]]))
    >>> w.round(3).tolist()
    [[1.0], [2.0], [0.0]]
    """
    if keys.shape[0] <= keys.shape[1]:
        return spectrum.matmul(dual(keys), values)
    gram = spectrum.matmul(keys.mT, keys)
    return solve(gram, spectrum.matmul(keys.mT, values))


def dual(keys: jax.Array) -> jax.Array:
    """Returns ``K^+ = K^T (K K^T)^-1``, [M, N]: column i answers key i alone.

    Args:
      keys: [N, M], independent.

    >>> k = jnp.asarray([[1.0, 0.0], [1.0, 1.0]])
    >>> (k @ dual(k)).round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    gram = spectrum.matmul(keys, keys.mT)
    return solve(gram, keys).mT
