"""Libraries brought to a size whose squares float32 holds, and merges brought back.

Merges compare norms, and the square of 1e30 is infinite. Division by powers of two is
exact, and a merge of 2**k times the deltas is 2**k times the merge, unless a part says
``homogeneous = False``: nothing changes but what would overflow or vanish. Sizes in
between, which are those of adapters, are left as they are.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora.lora import Adapter, Library, LoraWeight
from jaxlora.merge.compose import Merge

FACTOR = 24
"""Beyond 2**-24 or 2**24 a factor or a scale is brought to 1."""
DELTA = 48
"""So is, beyond 2**-48 or 2**48, their product."""
LARGEST = 120
"""Deltas beyond 2**120 are refused: sums of them leave float32."""
SPREAD = 60
"""Experts further apart than 2**60 are refused: beside one, the other's square is 0."""


class Exponents(NamedTuple):
    """Powers of two by which a library is divided."""

    a: int = 0
    b: int = 0
    scale: int = 0


def exponents(
    merge: Merge, library: Mapping[str, LoraWeight], weights: Sequence[float]
) -> Exponents:
    """By which powers of two a library is to be divided before it is merged.

    Args:
      merge: any; one that is not homogeneous takes a library as it is.
      library: by site, a [E, ..., D, R].
      weights: one for each of the E experts; those of 0 do not count.

    Raises:
      ValueError: if deltas, or the ratio of those of two experts, are beyond float32.
    """
    present = np.flatnonzero(np.asarray(weights))
    sizes = [_sizes(weight, present) for weight in library.values()]
    bits = np.max(sizes, 0)  # [3, experts present]
    bits = bits[:, np.isfinite(bits).all(0)]  # without deltas of zero
    if not bits.size:
        return Exponents()
    products, largest = bits.sum(0), bits.max(1)
    if products.max() > LARGEST:
        raise ValueError(
            f"An adapter has deltas of about 2**{products.max():.0f}, expected below "
            f"2**{LARGEST}: float32 ends at 2**128; look at its scale (alpha / rank)."
        )
    if not merge.homogeneous:
        return Exponents()
    if np.ptp(products) > SPREAD:
        raise ValueError(
            f"The adapters differ in size by a factor of about "
            f"2**{np.ptp(products):.0f}, expected at most 2**{SPREAD}: the smaller is "
            f"lost in float32 beside the larger; `jaxlora inspect` shows their norms."
        )
    usual = (abs(largest) <= FACTOR).all() and abs(products).max() <= DELTA
    if usual:
        return Exponents()
    a, b, scale = (int(n) for n in np.floor(largest))
    return Exponents(a, b, scale - scale % 2)  # even: its root is exact as well


def divided(library: Library, powers: Exponents) -> Library:
    """The library in float32, its factors and scales divided by powers of two.

    Args:
      library: an adapter or a library; left as it is if there is nothing to do.
      powers: by which.
    """
    if not any(powers):
        return library

    def site(w: LoraWeight) -> LoraWeight:
        parts = zip((w.a, w.b, w.scale), powers, strict=True)
        return LoraWeight(*(_times(x, -power) for x, power in parts))

    return lora.lora_map(site, library)


def restored(adapter: Adapter, powers: Exponents) -> Adapter:
    """The merge of a library, from that of what it was divided to.

    Args:
      adapter: merged, scale 1.
      powers: by which the library was divided.

    >>> w = LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 2)), jnp.ones(()))
    >>> lora.delta(restored(w, Exponents(3, 4, -6))).tolist()
    [[2.0, 2.0], [2.0, 2.0]]
    """
    total = sum(powers)
    if not any(powers):
        return adapter
    half = total // 2  # on both factors: one alone may not hold all of it
    return lora.lora_map(
        lambda w: LoraWeight(_times(w.a, half), _times(w.b, total - half), w.scale),
        adapter,
    )


def check_finite(adapter: Adapter) -> None:
    """Refuses a merge that float32 does not hold.

    Args:
      adapter: merged, no tracers.

    Raises:
      ValueError: naming a site with NaN or infinity.
    """
    for name, weight in lora.sites(adapter).items():
        if not all(np.isfinite(np.asarray(x)).all() for x in (weight.a, weight.b)):
            raise ValueError(
                f"The merge is beyond float32 in {name!r}, and so is of no use; "
                f"look at the adapters' scales (alpha / rank) and at the weights."
            )


def _times(x: jax.Array, power: int) -> jax.Array:
    with np.errstate(over="ignore", under="ignore"):  # infinity is an error later
        return jnp.asarray(np.ldexp(np.asarray(x, np.float32), power))


def _sizes(weight: LoraWeight, present: np.ndarray) -> np.ndarray:
    """log2 of the largest a, b and scale of each expert, [3, E]; -inf for zeros."""

    def largest(x: np.ndarray) -> np.ndarray:
        size = [abs(np.asarray(x[e], np.float32)).max() for e in present]
        return np.log2(np.asarray(size, np.float64))

    arrays = [np.asarray(x) for x in (weight.a, weight.b, weight.scale)]
    with np.errstate(divide="ignore"):
        return np.stack([largest(x) for x in arrays])
