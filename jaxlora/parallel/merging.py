"""Merging a library that lies on many devices, each with some of the experts.

A merge needs all experts of a layer at once, and no two layers together: so experts
change places with layers, all to all, and each device merges the layers that it then
has. No device ever holds the library.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora.lora import Adapter, Library
from jaxlora.parallel import layout


def merged(merge: Any, library: Library, weights: Any = None, **given: Any) -> Adapter:
    """Merges a library over the ``expert`` axis of the mesh in use; jit it.

    A merge that looks at the whole model at once, tells layers apart or draws runs as
    it does on one device: the compiler then gathers what it needs.

    Args:
      merge: a :class:`jaxlora.merge.Merge`.
      library: [E, ...]; its sites have one axis L after E.
      weights: [E], or None.
      **given: ``key``, ``rank`` or ``data`` of the merge.

    Returns:
      An adapter; its layers lie along ``expert`` where that divides them.
    """
    devices = layout.sizes().get("expert", 1)
    plain = merge.scope == "leaf" and not (merge.draws or merge.by_layer)
    layered = all(site.scale.ndim == 2 for site in lora.sites(library).values())
    data = given.get("data") is not None
    if devices == 1 or not plain or not layered or data:
        return merge(library, weights, **given)
    return _by_layers(lambda x: merge(x, weights, **given), library, devices)


def _by_layers(
    fn: Callable[[Library], Adapter], library: Library, devices: int
) -> Adapter:
    layers = {site.scale.shape[1] for site in lora.sites(library).values()}
    if len(layers) != 1:
        return fn(library)
    (count,) = layers
    extra = -count % devices

    def padded(x: jax.Array) -> jax.Array:
        # Copies of other layers: a layer of zeros is not what merges expect.
        width = [(0, 0), (0, extra), *[(0, 0)] * (x.ndim - 2)]
        return jnp.pad(x, width, mode="wrap") if extra else x

    turned = jax.P(None, "expert")
    part = jax.shard_map(
        fn, in_specs=(turned,), out_specs=jax.P("expert"), check_vma=False
    )
    out = part(jax.tree.map(padded, library))
    return jax.tree.map(lambda x: x[:count], out) if extra else out
