"""Measurements on two layers: pure functions of a key, to be vmapped over seeds."""

import jax
import jax.numpy as jnp

from jaxlora.theory import two_layer
from jaxlora.theory.measure import Items
from jaxlora.theory.two_layer import PLACEMENTS, Reading
from jaxlora.theory.world import Sizes, Truth


def old_composed(truth: Truth) -> jax.Array:
    """Returns ``r2(r1(x))``, ids [N]: what the base composes, if it does.

    Args:
      truth: of N people.
    """
    n = len(truth.old1)
    return truth.old2[truth.old1 - n]


def placed(key: jax.Array, sizes: Sizes, gain, stale) -> Items:
    """Both hops and "X R1 R2", for every placement of the two experts.

    Args:
      key: PRNG key of the world.
      sizes: of the world, M features in each layer.
      gain: weight of what the first layer wrote at the position of R1.
      stale: weight left on X and R1.
    """
    layers = two_layer.make(key, sizes)
    truth, every = layers.truth, jnp.asarray([*PLACEMENTS.values()])

    def answers(at: jax.Array) -> jax.Array:
        asked = two_layer.two_hop(layers, at, Reading(gain, stale))
        hops = [two_layer.one_hop(layers, x, at) for x in (truth.hop1, truth.hop2)]
        return jnp.argmax(jnp.stack([asked, *hops]), axis=-1)

    items = {}
    # One program for all placements: the streams of the first layer are shared.
    for name, given in zip(PLACEMENTS, jax.vmap(answers)(every), strict=True):
        composed = old_composed(truth) if name == "base" else truth.composed
        items[f"{name}: composed"] = given[0] == composed
        items[f"{name}: bridge"] = given[0] == truth.new1
        items[f"{name}: hop 1"] = given[1] == truth.new1
        items[f"{name}: hop 2"] = given[2] == truth.new2
    return items
