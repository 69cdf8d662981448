"""What is predicted of two layers, without a random weight."""

import jax
import jax.numpy as jnp

from jaxlora.theory import law
from jaxlora.theory.measure_layers import old_composed
from jaxlora.theory.two_layer import PLACEMENTS, Reading
from jaxlora.theory.world import Sizes, Truth, draw

HOPS = {"halves, mean": 0.5, "placed, mean": 0.5, "base": 0.0}
"""Share of new answers of one hop; 1 where an expert's weights add up to 1."""


def candidates(truth: Truth) -> jax.Array:
    """Returns what person 0's two-hop prompt may be answered, ids [6].

    Composed, the bridge and its old rival, both mixtures of old and new, and what the
    base composes. All other entities get what is noise alone.

    Args:
      truth: of N people.
    """
    n = len(truth.old1)
    mixed = truth.new2[truth.old1 - n]
    answers = (truth.composed, truth.new1, truth.old1, truth.stale, mixed)
    return jnp.stack([ids[0] for ids in (*answers, old_composed(truth))])


def placed(sizes: Sizes, gain: float, stale: float) -> dict[str, float]:
    """Predicts :func:`jaxlora.theory.measure_layers.placed`.

    Args:
      sizes: of the world, M features in each layer.
      gain: weight of what the first layer wrote at the position of R1.
      stale: weight left on X and R1.
    """
    ids = candidates(draw(jax.random.key(0), sizes))
    shares = {}
    for name, placement in PLACEMENTS.items():
        chance = law.largest(law.law(sizes, ids, placement, Reading(gain, stale)))
        shares[f"{name}: composed"] = float(chance[5 if name == "base" else 0])
        shares[f"{name}: bridge"] = float(chance[1])
        kept = HOPS.get(name, 1.0)
        shares |= {f"{name}: hop {hop}": kept for hop in (1, 2)}
    return shares
