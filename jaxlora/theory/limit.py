"""Predictions without sampling: the one-layer model of infinite width.

As D and M grow, embeddings become orthonormal and the overlap of two keys converges to
the arc-cosine kernel of degree 1 (Cho and Saul, 2009): with streams x and y at angle t,

    <ReLU(x U), ReLU(y U)>  ->  |x| |y| k(t),    k(t) = (sin t + (pi - t) cos t) / pi.

A memory of least norm is then kernel regression, ``write(x) = k(x, X) K^-1 values``,
and what any linear combination of edits answers follows from the geometry of the
prompts alone: which tokens they share, and how strongly each is attended to.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlora import spectrum
from jaxlora.theory.model import OneLayer, stream
from jaxlora.theory.solve import solve


class Facts(NamedTuple):
    """What a memory, or one edit of it, was written from."""

    x: jax.Array
    """Streams of its prompts, [N, D]."""
    change: jax.Array
    """Values, or new values minus old ones, [N, D]; of any rank."""
    apart: bool = False
    """Written one by one, each as if alone (``edits.summed``), and not together."""


def ideal(*, entities: int, relations: int = 2, strength: float = 1.0) -> OneLayer:
    """Returns the model with orthonormal embeddings, D = V + S, and no features.

    Args:
      entities: V.
      relations: S.
      strength: length of a relation's embedding; an entity's is 1.

    >>> ideal(entities=3).entities.shape
    (3, 5)
    """
    axes = jnp.eye(entities + relations)
    return OneLayer(
        entities=axes[:entities],
        relations=strength * axes[entities:],
        value=axes,
        up=jnp.zeros((entities + relations, 0)),
        kernel=jnp.zeros((0, entities + relations)),
    )


def arc_cosine(cosine: jax.Array) -> jax.Array:
    """Returns k(t) for the cosine of the angle t; k is convex, from 0 to 1.

    Args:
      cosine: of the angle, any shape; clipped to [-1, 1].

    >>> jnp.abs(arc_cosine(jnp.asarray([-1.0, 0.0, 1.0]))).round(3).tolist()
    [0.0, 0.318..., 1.0]
    """
    c = jnp.clip(cosine, -1.0, 1.0)
    angle = jnp.arccos(c)
    return (jnp.sin(angle) + (jnp.pi - angle) * c) / jnp.pi


def overlap(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the expected ``<ReLU(x U), ReLU(y U)>`` of streams [..., D] and [N, D].

    Args:
      x: streams [..., D], none of them zero.
      y: streams [N, D], none of them zero.

    >>> overlap(jnp.eye(2), jnp.eye(2)).round(4).tolist()
    [[1.0, 0.318...], [0.318..., 1.0]]
    """
    size = jnp.linalg.norm(x, axis=-1)[..., None]
    other = jnp.linalg.norm(y, axis=-1)
    # The kernel is of the angle; lengths factor out, as ReLU is homogeneous.
    both = size * jnp.broadcast_to(other, (*x.shape[:-1], len(y)))
    return both * arc_cosine(spectrum.matmul(x, y.mT) / both)


def facts(model: OneLayer, prompts: jax.Array, new, old=None, **kwargs) -> Facts:
    """Returns the facts "prompts are answered new, not old"; ids [N], or no old ones.

    Args:
      model: whose embeddings.
      prompts: token ids [N, T].
      new: entity ids [N] of the answers.
      old: entity ids [N] of the answers before; None for facts that are added.
      **kwargs: ``apart``, whether each fact is written as if alone.

    >>> facts(ideal(entities=3), jnp.asarray([[0, 3]]), jnp.asarray([2])).change.shape
    (1, 5)
    """
    change = model.entities[new]
    if old is not None:
        change = change - model.entities[old]
    return Facts(stream(model, prompts), change, **kwargs)


def coefficients(x: jax.Array, known: Facts) -> jax.Array:
    """Returns how much of each fact's change is written at streams x: [..., N].

    Args:
      x: streams [..., D].
      known: the N facts that a memory was written from.
    """
    near = overlap(x, known.x)
    if known.apart:
        size = jnp.sum(jnp.square(known.x), axis=-1)
        return near / jnp.broadcast_to(size, near.shape)
    gram = overlap(known.x, known.x)
    flat = near.reshape(-1, near.shape[-1])
    return solve(gram, flat.mT).mT.reshape(near.shape)


def write(
    x: jax.Array, base: Facts, edits: Sequence[Facts] = (), gate: Sequence | None = None
) -> jax.Array:
    """Returns what base and edits write at streams x [..., D].

    Args:
      x: streams.
      base: the memory.
      edits: of E experts.
      gate: E numbers, or arrays that broadcast to x's leading axes; None for 1 each.
    """
    out = spectrum.matmul(coefficients(x, base), base.change)
    shares = [1.0] * len(edits) if gate is None else list(gate)
    for share, known in zip(shares, edits, strict=True):
        part = spectrum.matmul(coefficients(x, known), known.change)
        out = (
            out
            + jnp.broadcast_to(jnp.asarray(share), part.shape[:-1])[..., None] * part
        )
    return out


def again(
    model: OneLayer, x: jax.Array, base: Facts, edits: Sequence[Facts], gain, upper=None
) -> jax.Array:
    """Returns what a second pass writes at ``x + gain * (what the first wrote)``.

    Args:
      model: whose value matrix the second pass reads through.
      x: streams [..., D].
      base: the memory of both passes.
      edits: of the first pass, and of the second unless ``upper`` is given.
      gain: how strongly the second pass reads.
      upper: edits of a second layer of its own.
    """
    first = write(x, base, edits)
    second = x + gain * spectrum.matmul(first, model.value)
    return write(second, base, edits if upper is None else upper)


def truncate(change: jax.Array, rank: int) -> jax.Array:
    """Returns the nearest matrix of a rank, [N, F]: what a low-rank edit can write.

    Args:
      change: [N, F].
      rank: at most min(N, F).

    >>> truncate(jnp.eye(2), 1).shape
    (2, 2)
    """
    u, s, vt = spectrum.thin_svd(change)
    return spectrum.matmul(u[:, :rank] * s[None, :rank], vt[:rank])
