"""How a merge goes through layers: one after the other, or on many devices at once.

Layers are merged apart from each other. Whoever holds a library on many devices gives
each of them a part of the layers, by a :class:`Loop` of its own; see
:func:`jaxlora.parallel.merged`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlora.merge.space import Coordinates


class Loop:
    """All layers on one device. Trees are of arrays [L, ...]."""

    def filled(self, layers: Any, lead: Sequence[int]) -> Any:
        """The same with more layers, if as many cannot be shared out.

        Args:
          layers: a tree.
          lead: sizes of the layer axes, L first; none for a site without layers.
        """
        del lead
        return layers

    def over(self, fn: Callable[[Any, Any], Any], shared: Any, layers: Any) -> Any:
        """Calls a function that treats layers alike, on all of them or on each part.

        Args:
          fn: of the next two; it returns a tree of arrays [L, ...].
          shared: what all layers need.
          layers: a tree that :meth:`filled` gave.
        """
        return fn(shared, layers)

    def shortened(self, layers: Any, lead: Sequence[int]) -> Any:
        """The inverse of :meth:`filled`.

        Args:
          layers: a tree.
          lead: as there.
        """
        del lead
        return layers


ALONE = Loop()
"""On one device."""


def layers_first(axes: int, tree: Any) -> Any:
    """Layer axes, which come after E, as the first ones; those of keys are already.

    Args:
      axes: how many there are.
      tree: arrays [E, L, ...], and keys [L].

    >>> layers_first(1, jnp.ones((2, 5, 3))).shape
    (5, 2, 3)
    """

    def turn(x: jax.Array) -> jax.Array:
        key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return x if key else jnp.moveaxis(x, range(1, axes + 1), range(axes))

    return jax.tree.map(turn, tree)


def over_parts(loop: Loop, fn: Callable[[Any, Any], Any], shared: Any, site: Any):
    """Calls a function that treats layers alike on the parts of a loop.

    Args:
      loop: over the layers of a site.
      fn: of ``shared`` and a tree of arrays [E, L, ...] or [E, part of L, ...]; returns
        a tree of arrays [L, ...] or [part of L, ...].
      shared: what all layers need.
      site: such a tree.
    """
    lead = jax.tree.leaves(site)[0].shape[1:2]

    def part(shared: Any, layers: Any) -> Any:
        return fn(shared, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), layers))

    out = loop.over(part, shared, loop.filled(layers_first(1, site), lead))
    return loop.shortened(out, lead)


def real(x: Coordinates, lead: Sequence[int]) -> Coordinates:
    """Coordinates in which layers that were filled in are no entries.

    Args:
      x: values [E, L, ..., M, N], of more layers.
      lead: sizes of the layer axes before.
    """
    if all(leaf.shape[1] == lead[0] for leaf in x.values.values()):
        return x

    def keep(leaf: jax.Array) -> jax.Array:
        number = jnp.arange(next(iter(x.values.values())).shape[1])
        return leaf & (number < lead[0]).reshape(1, -1, *[1] * (leaf.ndim - 2))

    live = {name: keep(leaf) for name, leaf in x.live.items()}
    values = {name: jnp.where(live[name], leaf, 0.0) for name, leaf in x.values.items()}
    return Coordinates(values, live, x.weights)
