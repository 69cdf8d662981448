"""Two layers of attention and memory, and edits that are placed in one or in both.

Each layer is that of :mod:`jaxlora.theory.model`, with features and a memory of its
own; embeddings and the value matrix are shared. Both write into one residual stream,
and answers are read from their sum, ``argmax_i <o1 + o2, e_i>``.

On "X R" both layers find X and R. On "X R1 R2" the first finds all three at the last
position, and X and R1 at the position of R1, where it writes o1'. The second attends
from the last position to R2 with weight 1, to X and R1 with weight ``stale``, and to
what was written at the position of R1 with weight ``gain``:

    x2 = stale (moved(X) + R1) + R2 + gain o1' V.

If o1' is near the bridge Y, this is near the stream of "Y R2": embeddings are tied, so
an answer can be read as a subject. The attention is fixed and depends on no fact. A
memory reads what its layer's attention moves, not what an earlier memory wrote at its
position. Of each fact that the base knows either layer holds half.
"""

import dataclasses
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxlora import spectrum
from jaxlora.lora import Library
from jaxlora.theory import memory, model
from jaxlora.theory import world as worlds
from jaxlora.theory.model import OneLayer
from jaxlora.theory.world import Sizes, Truth, World

HALF = 0.5
"""What each layer holds of a fact that the base knows."""

Placement: TypeAlias = tuple[tuple[float, float], tuple[float, float]]
"""Weights of experts 1 and 2 in the lower layer, then in the upper."""

PLACEMENTS: dict[str, Placement] = {
    "base": ((0.0, 0.0), (0.0, 0.0)),
    "placed": ((1.0, 0.0), (0.0, 1.0)),
    "reversed": ((0.0, 1.0), (1.0, 0.0)),
    "both low": ((1.0, 1.0), (0.0, 0.0)),
    "both high": ((0.0, 0.0), (1.0, 1.0)),
    "halves, sum": ((0.5, 0.5), (0.5, 0.5)),
    "halves, mean": ((0.25, 0.25), (0.25, 0.25)),
    "placed, mean": ((0.5, 0.0), (0.0, 0.5)),
}
"""An expert's weights add up to 1 over the layers under a sum, to 1/2 under a mean."""


class Reading(NamedTuple):
    """What the second layer's attention does on "X R1 R2"."""

    gain: float | jax.Array
    """Weight of what the first layer wrote at the position of R1."""
    stale: float | jax.Array = 0.0
    """Weight that is left on X and R1."""


class TwoLayers(NamedTuple):
    """A base of two layers that knows the old facts, and both experts in each layer."""

    lower: OneLayer
    upper: OneLayer
    truth: Truth
    edits: tuple[Library, Library]
    """Of the lower memory and of the upper, [2, ...] each: experts 1 and 2."""


def make(key: jax.Array, sizes: Sizes) -> TwoLayers:
    """Returns a base of two layers, and experts that are exact in either of them.

    Args:
      key: PRNG key.
      sizes: of the world, M features in each layer; static under jit.

    >>> make(jax.random.key(0), Sizes(5, 64, 256)).upper.kernel.shape
    (256, 64)
    """
    first, second = jax.random.split(key)
    low = worlds.make(first, sizes)
    other = model.init(
        second, entities=2, width=sizes.width, hidden=sizes.hidden, relations=1
    )
    high = worlds.taught(dataclasses.replace(low.base, up=other.up), low.truth)
    lower, upper = _halved(low), _halved(high)
    return TwoLayers(lower, upper, low.truth, (low.library, high.library))


def _halved(world: World) -> OneLayer:
    return dataclasses.replace(world.base, kernel=HALF * world.base.kernel)


def one_hop(layers: TwoLayers, prompts: jax.Array, placement: jax.Array) -> jax.Array:
    """Returns logits [N, V] of prompts "X R": both layers find the same.

    Args:
      layers: base and experts.
      prompts: [N, T].
      placement: weights [2, 2] of experts, by layer.
    """
    x = model.stream(layers.lower, prompts)
    parts = [_write(layers, at, x, placement) for at in range(2)]
    return memory.read(layers.lower, parts[0] + parts[1])


def two_hop(layers: TwoLayers, placement: jax.Array, reading: Reading) -> jax.Array:
    """Returns logits [N, V] of "X R1 R2", asked directly.

    Args:
      layers: base and experts.
      placement: weights [2, 2] of experts, by layer.
      reading: the second layer's attention.

    >>> layers = make(jax.random.key(0), Sizes(5, 128, 512))
    >>> placed = jnp.asarray(PLACEMENTS["placed"])
    >>> answers = jnp.argmax(two_hop(layers, placed, Reading(2.0)), axis=-1)
    >>> bool((answers == layers.truth.composed).all())
    True
    """
    truth, lower = layers.truth, layers.lower
    last = _write(layers, 0, model.stream(lower, truth.two_hop), placement)
    early = _write(layers, 0, model.stream(lower, truth.hop1), placement)
    # Tokens X, R1, R2 and an empty slot, as the second layer attends to them.
    share = jnp.asarray([0.0, 0.0, 1.0, 0.0])
    share = share + reading.stale * jnp.asarray([1.0, 1.0, 0.0, 0.0])
    x = model.stream(lower, truth.two_hop, share[None, :])
    x = x + reading.gain * spectrum.matmul(early, lower.value)
    return memory.read(lower, last + _write(layers, 1, x, placement))


def _write(layers: TwoLayers, at: int, x: jax.Array, placement: jax.Array) -> jax.Array:
    """What the memory of layer ``at`` writes at streams x [N, D]."""
    layer = layers.upper if at else layers.lower
    v = model.features(layer, x)
    gate = jnp.broadcast_to(placement[at], (len(v), 2))
    return memory.write(layer, v, layers.edits[at], gate)
