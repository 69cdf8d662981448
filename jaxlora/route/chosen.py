"""Mixing few of many experts: work for the chosen ones only.

Where at most K of E experts have weight, the dense form of :func:`jaxlora.route.mix`
multiplies every token by every expert. Two forms do not: tokens gather the factors of
their experts (few tokens, as in decoding), or are sorted by expert into blocks of one
expert each, which are multiplied in one batched product (many tokens). Shapes are
static: blocks are counted for the worst case.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlora.lora import LoraWeight, computed
from jaxlora.route.mixing import mix

SPARSE = 16
"""From so many experts for each chosen one on, these forms are faster (benchmarks)."""
BLOCK = 32
"""Tokens of a block; 8 where an expert has fewer than 16 on average."""


class Blocks(NamedTuple):
    """Where M tokens lie in G blocks of S slots, each of one expert."""

    slots: jax.Array
    """[M], the slot of a token, of G * S."""
    filled: jax.Array
    """[G, S], the token in a slot; any token where a slot is not used."""
    owner: jax.Array
    """[G], the expert of a block."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def mix_chosen(
    weight: LoraWeight, x: jax.Array, weights: jax.Array, top_k: int
) -> jax.Array:
    """As ``mix(weight, x, weights)``, where a row has at most ``top_k`` weights.

    Gradients are those of :func:`jaxlora.route.mix`, in its dense form; there is no
    forward mode.

    Args:
      weight: one site of a library; a [E, D, R], b [E, R, F], scale [E].
      x: inputs [N, D].
      weights: [N, E], at most ``top_k`` of a row not zero: others may be dropped.
      top_k: K.

    Returns:
      [N, F] in the dtype of x.

    >>> w = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 4)), jnp.array([1.0, 2.0]))
    >>> mix_chosen(w, jnp.ones((1, 3)), jnp.array([[0.0, 0.5]]), 1).tolist()
    [[3.0, 3.0, 3.0, 3.0]]
    """
    weight = computed(weight, x.dtype)
    chosen, g = _chosen(weight, weights, top_k)
    n, experts = weights.shape
    # Few tokens: copying factors for each is cheaper than sorting tokens.
    form = _gathered if n * top_k <= 2 * experts else _blocked
    return form(weight, x.astype(weight.a.dtype), chosen, g).astype(x.dtype)


def _chosen(weight, weights, top_k):
    """Experts [N, K] and what scales their updates [N, K]."""
    if top_k == 1:
        chosen = jnp.argmax(weights, axis=-1, keepdims=True)
    else:  # XLA:CPU sorts whole rows where it sees a slice of top_k's result
        _, chosen = jax.lax.optimization_barrier(jax.lax.top_k(weights, top_k))
    g = weights.astype(jnp.float32) * weight.scale.astype(jnp.float32)[None, :]
    return chosen, jnp.take_along_axis(g, chosen, axis=1).astype(weight.a.dtype)


def _gathered(weight, x, chosen, g):
    low = jnp.einsum("nd,nkdr->nkr", x, weight.a[chosen]) * g[:, :, None]
    return jnp.einsum("nkr,nkrf->nf", low, weight.b[chosen])


def _blocked(weight, x, chosen, g):
    (n, k), experts = chosen.shape, weight.a.shape[0]
    size = BLOCK if n * k >= 16 * experts else 8
    at = blocks(chosen.reshape(-1), experts, size)
    low = _take(x, at.filled // k) @ _take(weight.a, at.owner)
    low = low * _take(g.reshape(-1), at.filled)[:, :, None]
    out = (low @ _take(weight.b, at.owner)).reshape(-1, weight.b.shape[-1])
    # Summed in float32 over K: gathering, unlike scatter-add, has a fixed order.
    parts = (_take(out, slots) for slots in at.slots.reshape(n, k).T)
    return sum((part.astype(jnp.float32) for part in parts), jnp.float32(0))


def _take(x: jax.Array, index: jax.Array) -> jax.Array:
    return x.at[index].get(mode="promise_in_bounds")


def blocks(expert: jax.Array, experts: int, size: int) -> Blocks:
    """Sorts tokens by expert into blocks that hold one expert's tokens only.

    Args:
      expert: [M], the expert of each token.
      experts: E.
      size: S; there are G = (M + E (S - 1)) // S blocks, enough for any choice.

    >>> layout = blocks(jnp.array([1, 0, 1]), 2, 2)
    >>> layout.slots.tolist(), layout.owner.tolist()
    ([2, 0, 3], [0, 1])
    """
    m = expert.shape[0]
    count = jnp.arange((m + experts * (size - 1)) // size, dtype=jnp.int32)
    ids = jnp.arange(m, dtype=jnp.int32)
    # One sort of expert and number in one integer: four times faster than argsort.
    packed = jnp.sort(expert.astype(jnp.int32) * m + ids)
    order, owner = packed % m, packed // m
    every = jnp.arange(experts + 1, dtype=jnp.int32)
    # Each expert's tokens are contiguous now; its blocks begin where the last ended.
    bounds = jnp.searchsorted(owner, every).astype(jnp.int32)
    first = bounds[:-1]
    ends = jnp.cumsum(-(-jnp.diff(bounds) // size), dtype=jnp.int32)
    begins = jnp.append(jnp.zeros(1, jnp.int32), ends[:-1])
    holder = jnp.minimum(jnp.searchsorted(ends, count, side="right"), experts - 1)
    start = first[holder] + (count - begins[holder]) * size
    inside = start[:, None] + jnp.arange(size, dtype=jnp.int32)[None, :]
    filled = _take(order, jnp.clip(inside, 0, m - 1))
    places = begins[owner] * size + ids - first[owner]
    slots = jnp.zeros(m, jnp.int32).at[order].set(places, unique_indices=True)
    return Blocks(slots, filled, holder)


def _forward(weight, x, weights, top_k):
    return mix_chosen(weight, x, weights, top_k), (weight, x, weights)


def _backward(top_k, kept, g):
    del top_k
    return jax.vjp(mix, *kept)[1](g)


mix_chosen.defvjp(_forward, _backward)
