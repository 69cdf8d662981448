"""Order statistics of magnitudes, without sorting.

Magnitudes of float32 are ordered as their bit patterns are, read as integers. The k-th
largest is therefore found exactly by bisection on 31 bits: each bit costs one count of
the entries that reach a threshold, which is a compare and a sum over contiguous memory.
"""

import fractions
from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from jaxlora.merge.space import Leaves

Scope: TypeAlias = Literal["leaf", "model"]
"""Which entries compete: those of one expert's matrix, or all of one expert's."""


def largest(bits: Leaves, count: Leaves, scope: Scope) -> Leaves:
    """Which entries are among the ``count`` largest of their scope.

    Entries equal to the smallest of them are included.

    Args:
      bits: :func:`as_bits` of magnitudes [E, ..., M, N], or -1 for what is no entry.
      count: [E, ...]; for the scope ``model`` [E], the same under every name.
      scope: which entries compete.
    """
    if scope == "leaf":
        return {
            name: _above(b, _threshold(_counter(b), count[name]), count[name])
            for name, b in bits.items()
        }
    counters = [_counter(_flat(b)) for b in bits.values()]
    total = next(iter(count.values()))
    limit = _threshold(
        lambda t: jnp.sum(jnp.stack([counter(t) for counter in counters]), axis=0),
        total,
    )
    return {name: _above(b, limit, total) for name, b in bits.items()}


def _threshold(counted: Callable[[jax.Array], jax.Array], count: jax.Array):
    """The largest t that at least ``count`` entries reach, from the highest bit on."""

    def set_bit(i, t):
        higher = t | (jnp.int32(1) << (30 - i))
        return jnp.where(counted(higher) >= count, higher, t)

    return jax.lax.fori_loop(0, 31, set_bit, jnp.zeros_like(count))


def _counter(bits: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """How many entries of each matrix reach t [E, ...]."""
    flat = bits.reshape(*bits.shape[:-2], -1)
    # XLA:CPU adds floats several times faster than truth values; exact up to 2^24.
    kind = jnp.float32 if flat.shape[-1] < 2**24 else jnp.int32

    def count(t: jax.Array) -> jax.Array:
        reached = (flat >= t[..., None]).astype(kind)
        return jnp.sum(reached, axis=-1).astype(jnp.int32)

    return count


def _above(bits: jax.Array, limit: jax.Array, count: jax.Array) -> jax.Array:
    axes = bits.ndim - limit.ndim
    limit, count = (x.reshape(*x.shape, *[1] * axes) for x in (limit, count))
    return (bits >= limit) & (count > 0)


def _flat(bits: jax.Array) -> jax.Array:
    return bits.reshape(bits.shape[0], 1, -1)


def as_bits(values: jax.Array) -> jax.Array:
    """Magnitudes as integers of the same order.

    Args:
      values: float32, of any shape.

    >>> as_bits(jnp.asarray([-1.0, 0.0])).tolist()
    [1065353216, 0]
    """
    return jax.lax.bitcast_convert_type(jnp.abs(values), jnp.int32)


def share(density: float, size: jax.Array) -> jax.Array:
    """``floor(density * size)``, in integers: 0.7 of 10 is 7.

    Args:
      density: in [0, 1].
      size: integers of any shape.

    >>> share(0.7, jnp.asarray(10)).tolist()
    7
    """
    part = fractions.Fraction(density).limit_denominator(32_767)  # no overflow below
    p, q = part.numerator, part.denominator
    size = size.astype(jnp.int32)
    return size // q * p + size % q * p // q
