"""The law of two-layer logits, to first order in 1/D and 1/M, without a random weight.

At infinite size a logit l depends on the overlaps of embeddings, which are 1 or 0, and
on the overlaps of keys, which are the arc-cosine kernel. At finite size

- the overlap of two embeddings is N(0, 1/D): l moves by ``dl/dG_ij`` times independent
  Gaussians, with G the Gram matrix of embeddings;
- the overlap of two keys is a mean over M features u of ``f_i f_j`` with ``f_i =
  sqrt(2) ReLU(<u, x_i>)``: l moves by the mean of ``f' A f``, with A its derivative by
  the kernel matrix of a layer.

Derivatives are exact (reverse mode). The variance over u is a Gaussian integral, taken
on a fixed lattice (Korobov, 1959). All people are alike in the limit, so that what is
computed is the prompt of person 0. Left out are terms of second order, which move the
means by some N / D: a share of old facts that both experts leave as it was.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxlora.theory.two_layer import HALF, Placement, Reading
from jaxlora.theory.world import Sizes, Truth, draw

POINTS = 4093
"""Of the lattice for an expectation; a prime."""
DRAWS = 16381
"""Of the lattice on which the largest logit is looked for; a prime."""


class Noise(NamedTuple):
    """What is added to the overlaps of embeddings, and to those of keys."""

    gram: jax.Array
    """[T, T], of T = V + 2 tokens."""
    lower: jax.Array
    """[S, S], of S = 2 N + 1 streams: the facts, then the prompt."""
    upper: jax.Array
    """[S, S]."""


class Law(NamedTuple):
    """A Gaussian law of K logits of one prompt."""

    mean: np.ndarray
    """[K]."""
    covariance: np.ndarray
    """[K, K]."""


@jax.custom_jvp
def kernel(cosine: jax.Array) -> jax.Array:
    """Returns k(t) as :func:`jaxlora.theory.limit.arc_cosine`, with its slope at 1.

    Args:
      cosine: of the angle t, any shape.

    >>> float(jax.grad(kernel)(1.0))
    1.0
    """
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    return (jnp.sin(angle) + (jnp.pi - angle) * jnp.cos(angle)) / jnp.pi


@kernel.defjvp
def _slope(at, moved):
    # Of arccos alone the derivative at 1 is infinite; that of k is not.
    angle = jnp.arccos(jnp.clip(at[0], -1.0, 1.0))
    return kernel(at[0]), (jnp.pi - angle) / jnp.pi * moved[0]


def lattice(points: int, axes: int) -> np.ndarray:
    """Returns points of a standard Gaussian in many dimensions, always the same ones.

    Args:
      points: how many; a prime.
      axes: dimensions.

    >>> x = lattice(4093, 40)
    >>> bool(abs(x.T @ x / 4093 - np.eye(40)).max() < 0.2)
    True
    """
    # Powers of a primitive root, as in Korobov's rules: no two axes are the same.
    steps = [pow(_ROOTS[points], i, points) for i in range(axes)]
    place = np.arange(points)[:, None] * np.asarray(steps)[None, :] + 0.5
    return special.ndtri(place % points / points)


_ROOTS = {4093: 1949, 16381: 6947}
"""Multipliers by the number of points."""


def overlaps(x: jax.Array, gram: jax.Array) -> jax.Array:
    """Returns expected overlaps [S, S] of the keys of streams.

    Args:
      x: streams by their coordinates over tokens, [S, T].
      gram: overlaps of tokens' embeddings, [T, T].
    """
    inner = x @ gram @ x.T
    size = jnp.sqrt(jnp.diagonal(inner))
    both = size[:, None] * size[None, :]
    return both * kernel(inner / both)


class Facts(NamedTuple):
    """Both relations in coordinates over tokens."""

    x: jax.Array
    """Streams of R1's facts, then of R2's, [2 N, T]."""
    prompt: jax.Array
    """X, R1 and R2 of person 0, [3, T]."""
    old: jax.Array
    """[2 N, T]."""
    new: jax.Array
    """[2 N, T]."""


def coordinates(truth: Truth, strength: float) -> Facts:
    """Returns facts and the prompt of person 0 as vectors over tokens.

    Args:
      truth: prompts and answers of N people.
      strength: length of a relation's embedding.
    """
    n = len(truth.old1)
    length = jnp.ones(3 * n + 2).at[3 * n :].set(strength)
    axes = jnp.eye(3 * n + 2) * length[:, None]
    hops = jnp.concatenate([truth.hop1, truth.hop2])
    old = jnp.concatenate([truth.old1, truth.old2])
    new = jnp.concatenate([truth.new1, truth.new2])
    x = axes[hops[:, 0]] + axes[hops[:, 1]]
    return Facts(x, axes[truth.two_hop[0, :3]], axes[old], axes[new])


def _written(facts: Facts, rows: jax.Array, among: jax.Array, weights: jax.Array):
    """What a layer writes, [Q, T], for overlaps ``rows`` [Q, 2 N] with the facts."""
    n = len(facts.x) // 2
    # Shares of facts, and not the memory itself: few right sides to solve for.
    out = HALF * jnp.linalg.solve(among, rows.T).T @ facts.old
    for e in range(2):
        mine = slice(e * n, (e + 1) * n)
        share = jnp.linalg.solve(among[mine, mine], rows[:, mine].T).T
        out = out + weights[e] * share @ (facts.new - facts.old)[mine]
    return out


def limit_logits(
    facts: Facts, placement: jax.Array, reading: Reading, noise: Noise
) -> tuple[jax.Array, jax.Array]:
    """Returns logits [V] of person 0's two-hop prompt, and its streams [2, T].

    Args:
      facts: coordinates.
      placement: weights [2, 2] of experts, by layer.
      reading: the second layer's attention.
      noise: overlaps that differ from those at infinite size.
    """
    s = len(facts.x)
    x, r1, r2 = facts.prompt
    low = overlaps(jnp.concatenate([facts.x, (x + r1 + r2)[None]]), noise.gram)
    low = low + noise.lower
    # The last position is the prompt's stream; R1's position is the key of fact 0.
    rows = jnp.stack([low[s, :s], low[0, :s]])
    last, early = _written(facts, rows, low[:s, :s], placement[0])
    second = reading.stale * (x + r1) + r2 + reading.gain * early
    high = overlaps(jnp.concatenate([facts.x, second[None]]), noise.gram) + noise.upper
    (top,) = _written(facts, high[s:, :s], high[:s, :s], placement[1])
    logits = noise.gram @ (last + top)
    return logits[: len(logits) - 2], jnp.stack([x + r1 + r2, second])


@functools.partial(jax.jit, static_argnums=0)
def _derivatives(sizes: Sizes, ids: jax.Array, placement, reading: Reading):
    """Logits of ``ids`` [K], their derivatives by all noise, facts and both streams."""
    facts = coordinates(draw(jax.random.key(0), sizes), sizes.strength)
    t, s = facts.x.shape[1], len(facts.x) + 1
    still = Noise(jnp.eye(t), jnp.zeros((s, s)), jnp.zeros((s, s)))

    def logits(noise: Noise):
        out, streams = limit_logits(facts, placement, reading, noise)
        return out[ids], (out[ids], streams)

    slopes, (value, streams) = jax.jacrev(logits, has_aux=True)(still)
    return value, slopes, facts.x, streams


def law(sizes: Sizes, ids: jax.Array, placement: Placement, reading: Reading) -> Law:
    """Returns the law of logits of the two-hop prompt of person 0.

    Args:
      sizes: of the world: N people, width D, M features, strength of relations.
      ids: of the K entities whose logits are wanted.
      placement: weights [2, 2] of experts, by layer.
      reading: the second layer's attention.
    """
    given = jnp.asarray(placement), Reading(*map(jnp.float32, reading))
    mean, slopes, x, streams = jax.tree.map(
        lambda a: np.asarray(a, np.float64), _derivatives(sizes, ids, *given)
    )
    pairs = np.triu_indices(slopes.gram.shape[1], 1)
    # An overlap is two entries of the matrix.
    moved = (slopes.gram + slopes.gram.swapaxes(1, 2))[:, pairs[0], pairs[1]]
    covariance = moved @ moved.T / sizes.width
    u = lattice(POINTS, sizes.entities + 2)
    for slope, query in zip((slopes.lower, slopes.upper), streams, strict=True):
        f = np.sqrt(2) * np.maximum(u @ np.concatenate([x, query[None]]).T, 0)
        part = np.stack([np.sum((f @ a) * f, axis=1) for a in slope])
        covariance = covariance + np.cov(part) / sizes.hidden
    return Law(mean, covariance)


def largest(law: Law) -> np.ndarray:
    """Returns the chance of every logit to be the largest, [K].

    Args:
      law: Gaussian, of K logits.

    >>> largest(Law(np.asarray([0.0, 0.0, -9.0]), np.eye(3))).round(2).tolist()
    [0.5, 0.5, 0.0]
    """
    values, vectors = np.linalg.eigh(law.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    logits = law.mean + lattice(DRAWS, len(law.mean)) @ root.T
    wins = np.bincount(logits.argmax(axis=1), minlength=len(law.mean))
    return wins / DRAWS
