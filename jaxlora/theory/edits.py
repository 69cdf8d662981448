"""Closed-form edits of a key-value memory, as LoRA weights.

One edit on the key v, ``delta = v change^T / |v|^2``, has rank one and is exact for its
fact (Chen et al., arXiv 2506.13479, Proposition 1, as retold by others). Many at once
are the delta of least norm that is exact for all: ``delta = K^+ change`` (Meng et al.,
MEMIT, arXiv 2210.07229, without its prior). Both come as ``LoraWeight(a [M, R],
b [R, F], scale 1)``, so that every merge and every gate acts on them unchanged.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import spectrum
from jaxlora.lora import LoraWeight
from jaxlora.theory.solve import dual

SAME = 1e-5
"""Keys whose cosine is closer to 1 than this are one key."""


def rank_one(key: jax.Array, change: jax.Array) -> LoraWeight:
    """Returns ``delta = v change^T / |v|^2``: for the key v the output moves by change.

    Args:
      key: v, [M], not zero.
      change: new value minus old value, [F].

    >>> w = rank_one(jnp.asarray([2.0, 0.0]), jnp.asarray([1.0, -1.0]))
    >>> (jnp.asarray([2.0, 5.0]) @ (w.a @ w.b)).tolist()
    [1.0, -1.0]
    """
    _check_vectors(key, change)
    return _weight((key / jnp.sum(jnp.square(key)))[:, None], change[None, :])


def summed(keys: jax.Array, change: jax.Array) -> LoraWeight:
    """Returns the sum of N rank-one edits, each made as if it were alone.

    Not exact unless keys are orthogonal: edit j also moves key i, by their overlap.

    Args:
      keys: [N, M].
      change: [N, F].

    Raises:
      ValueError: as :func:`edit` does for shapes; dependent keys are no error here.

    >>> summed(jnp.eye(3), jnp.ones((3, 2))).rank
    3
    """
    _check_shapes(keys, change, None)
    size = jnp.sum(jnp.square(keys), axis=-1, keepdims=True)
    return _weight((keys / size).mT, change)


def edit(keys: jax.Array, change: jax.Array, rank: int | None = None) -> LoraWeight:
    """Returns the edit of least norm that is exact for all N facts, of rank <= N.

    ``delta = K^+ change``. With ``rank`` below min(N, F) it is the edit whose outputs
    on the N keys are nearest to ``change`` among all of that rank (the truncated SVD of
    change, Eckart and Young, 1936), and of least norm among those.

    Pure and traceable. Values of keys and changes are checked when they are concrete;
    under ``jit`` and ``vmap`` shapes alone are, and dependent keys give something near
    the least squares solution, and finite.

    Args:
      keys: [N, M], independent.
      change: new values minus old values, [N, F].
      rank: R, 1 to min(N, F); None for N.

    Raises:
      ValueError: if N <= M or R <= min(N, F) fails, if two edits have one key, or if a
        key is a combination of others.

    >>> keys = jnp.asarray([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    >>> w = edit(keys, jnp.asarray([[1.0, 0.0], [0.0, 3.0]]))
    >>> jnp.abs(keys @ (w.a @ w.b)).round().tolist()
    [[1.0, 0.0], [0.0, 3.0]]
    """
    _check_shapes(keys, change, rank)
    _check_count(keys)
    if not isinstance(keys, jax.core.Tracer) and not isinstance(
        change, jax.core.Tracer
    ):
        _check_values(np.asarray(keys), np.asarray(change))
    return _edit(keys, change, rank)


def _edit(keys: jax.Array, change: jax.Array, rank: int | None) -> LoraWeight:
    if rank is None:
        return _weight(dual(keys), change)
    u, s, vt = spectrum.thin_svd(change)
    root = jnp.sqrt(s[:rank])
    # The SVD of the change, moved to the keys: nearest in output, of least norm.
    a = spectrum.matmul(dual(keys), u[:, :rank] * root[None, :])
    return _weight(a, root[:, None] * vt[:rank])


def _weight(a: jax.Array, b: jax.Array) -> LoraWeight:
    return LoraWeight(a=a, b=b, scale=jnp.ones(a.shape[:-2], jnp.float32))


def _check_vectors(key: Any, change: Any) -> None:
    if jnp.ndim(key) != 1 or jnp.ndim(change) != 1:
        raise ValueError(
            f"Got a key of shape {jnp.shape(key)} and a change of shape "
            f"{jnp.shape(change)}, expected vectors [M] and [F]; edit() takes many."
        )
    if not isinstance(key, jax.core.Tracer) and not np.any(np.asarray(key)):
        raise ValueError("The key is zero: no memory can answer it.")


def _check_shapes(keys: Any, change: Any, rank: int | None) -> None:
    ok = jnp.ndim(keys) == 2 and jnp.ndim(change) == 2
    if not ok or keys.shape[0] != change.shape[0] or not keys.shape[0]:
        raise ValueError(
            f"Got keys of shape {jnp.shape(keys)} and changes of shape "
            f"{jnp.shape(change)}, expected [N, M] and [N, F] with the same N >= 1."
        )
    most = min(change.shape)
    if rank is not None and not 1 <= rank <= most:
        raise ValueError(
            f"The rank is {rank}, but 1 <= rank <= min(N, F) = {most} fails: "
            f"{change.shape[0]} changes of length {change.shape[1]} have no higher one."
        )


def _check_count(keys: Any) -> None:
    edits, width = keys.shape
    if edits > width:
        raise ValueError(
            f"{edits} edits at width {width}: N <= M fails ({edits} > {width}). More "
            f"keys than features are dependent, so no edit is exact for all of them; "
            f"widen the memory, or split the facts."
        )


def _check_values(keys: np.ndarray, change: np.ndarray) -> None:
    """Refuses what has no exact edit: non-finite, zero, repeated, dependent keys."""
    if not np.isfinite(keys).all() or not np.isfinite(change).all():
        raise ValueError("Keys and changes must be finite; got NaN or infinity.")
    size = np.linalg.norm(keys, axis=1)
    if not size.all():
        raise ValueError(
            f"Key {int(np.argmin(size))} is zero: no memory can answer it."
        )
    scaled = keys / size[:, None]
    cosine = scaled @ scaled.T
    np.fill_diagonal(cosine, 0)
    # Two edits of one key: a duplicate if they agree, else a contradiction.
    if cosine.max() > 1 - SAME:
        i, j = sorted(np.unravel_index(np.argmax(cosine), cosine.shape))
        _refuse_twice(int(i), int(j), np.array_equal(change[i], change[j]))
    np.fill_diagonal(cosine, 1)
    _check_independent(cosine, keys.shape[1])


def _refuse_twice(i: int, j: int, agree: bool) -> None:
    if agree:
        raise ValueError(
            f"Edits {i} and {j} have the same key and the same change: a duplicate, "
            f"which makes the key matrix singular; drop one of them."
        )
    raise ValueError(
        f"Edits {i} and {j} have the same key and different changes: they contradict "
        f"each other, and no memory gives one key two values; drop one of them."
    )


def _check_independent(cosine: np.ndarray, width: int) -> None:
    """Refuses keys whose correlation matrix has an eigenvalue at rounding."""
    n = len(cosine)
    values, vectors = np.linalg.eigh(cosine.astype(np.float64))
    least = n * float(np.finfo(np.float32).eps)
    if values[0] < least:
        who = int(np.argmax(np.abs(vectors[:, 0])))
        raise ValueError(
            f"The key matrix is singular: key {who} of {n} is a combination of the "
            f"others (smallest eigenvalue of the cosines {max(values[0], 0.0):.1e}, "
            f"expected at least {least:.1e}) although N = {n} <= M = {width}. Prompts "
            f"that differ only in what the layer does not see have one key."
        )
