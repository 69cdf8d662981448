"""Merging a library that lies on many devices, each with some of the experts.

A merge needs all experts of a layer at once, and seldom two layers together: so experts
change places with layers, all to all, and each device merges the layers that it then
has. Layers are cut over all axes of the mesh, as a merge knows nothing of rows and
heads. No device ever holds the library.

What a merge does to the whole library before or between (random controls, thresholds of
the whole model) is left to the compiler, which cuts it as its inputs are: experts
before, layers between. Keys belong to a site and a layer, or to an expert, so that
draws are the same on every mesh.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Adapter, Library
from jaxlora.merge import Merge
from jaxlora.merge.groups import Run
from jaxlora.merge.loop import Loop
from jaxlora.parallel import layout, processes, rules
from jaxlora.parallel.mesh import place, using
from jaxlora.tree import Tree

OTHERS = ("data", "fsdp", "tensor")
"""The axes along which layers lie before experts change places with them."""
_EVERY = (*OTHERS, "expert")
# Experts last: what lies along the others stays where it is.
Seen: TypeAlias = Callable[[str, Library], None]
"""Called with the text of each program that is compiled, and what it merges."""


def merged(merge: Any, library: Library, weights: Any = None, **given: Any) -> Adapter:
    """Merges a library over the mesh in use; jit it.

    Sites without an axis of layers are gathered, as there is nothing to share out.

    Args:
      merge: a :class:`jaxlora.merge.Merge`.
      library: [E, ...]; its sites have an axis L after E.
      weights: [E], or None.
      **given: ``key``, ``rank`` or ``data`` of the merge.

    Returns:
      An adapter; its layers lie along all axes of the mesh if these divide them, else
      its inputs and outputs do.
    """
    parts = math.prod(layout.sizes().values())
    loop = {"loop": _Cut(parts)} if parts > 1 else {}
    return merge(library, weights, **given, **loop)


class _Cut(Loop):
    """A part of the layers on each device."""

    def __init__(self, parts: int):
        self._parts = parts

    def filled(self, layers: Any, lead: Sequence[int]) -> Any:
        """Copies of layers: a layer of zeros is not what merges expect."""
        extra = -lead[0] % self._parts if lead else 0

        def fill(x: jax.Array) -> jax.Array:
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                return x[np.arange(lead[0] + extra) % lead[0]]
            if extra:
                wide = [(0, extra), *[(0, 0)] * (x.ndim - 1)]
                x = jnp.pad(x, wide, mode="wrap")
            free: list[Any] = [jax.P.UNCONSTRAINED] * (x.ndim - 1)
            if free and x.shape[1] % layout.sizes()["expert"] == 0:
                free[0] = "expert"
            # In two moves: the compiler gathers what moves along two axes at once.
            return layout.constrain(x, OTHERS, *free)

        return jax.tree.map(fill, layers) if lead else layers

    def over(self, fn: Callable[[Any, Any], Any], shared: Any, layers: Any) -> Any:
        """Each device calls the function on its own layers."""
        spec = jax.P(_EVERY)
        where = {"in_specs": (jax.P(), spec), "out_specs": spec}
        return jax.shard_map(fn, **where, check_vma=False)(shared, layers)

    def shortened(self, layers: Any, lead: Sequence[int]) -> Any:
        """Cuts an adapter along its inputs and outputs instead, without the copies."""
        if not lead or not lead[0] % self._parts:
            return layers
        sides = {"a": (_EVERY, None), "b": (None, _EVERY), "scale": ()}

        def shorten(name: str, x: jax.Array) -> jax.Array:
            side = sides[name.rpartition("/")[2]]
            before = (None,) * (x.ndim - len(side))
            return layout.constrain(x, *before, *side)[: lead[0]]

        return named.map_named(shorten, layers)


def across(mesh: Mesh, seen: Seen = lambda *_: None) -> Run:
    """Runs merges over a mesh, for :func:`jaxlora.merge.groups.each`.

    Experts are cut over ``expert``, and layers, or else inputs and outputs, over the
    other axes; what comes back is on the host.

    Args:
      mesh: of all processes, which pass the same; its ``expert`` divides E.
      seen: called for each program that is compiled.
    """
    programs: dict[Any, Any] = {}

    def run(merge: Merge, library, weights, *, key=None, rank=None, data=None):
        # A key must be an array of every process; experts are the first axis of data.
        small = place((weights, key), mesh, jax.P())
        args = _experts(mesh, dict(library)), _experts(mesh, data), *small
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype), args)
        known = (merge, rank, str(shapes))
        with using(mesh):
            if known not in programs:
                fn = functools.partial(_merged, merge, rank)
                programs[known] = jax.jit(fn).lower(*args).compile()
                seen(programs[known].as_text(), library)
            out = programs[known](*args)
        return dict(lora.sites(processes.host(out)))

    return run


def _merged(merge: Merge, rank: int | None, library, data, weights, key) -> Adapter:
    tree = None if data is None else named.unflatten(data)
    return merged(merge, library, weights, key=key, rank=rank, data=tree)


def _experts(mesh: Mesh, tree: Tree) -> Tree:
    """Puts arrays [E, L, ...] on a mesh."""
    return named.map_named(
        lambda name, x: place(x, mesh, spec(mesh.shape, name, np.shape(x))), tree
    )


def spec(sizes: Mapping[str, int], name: str, shape: Sequence[int]) -> jax.P:
    """Where an array [E, L, ...] of a library lies before it is merged.

    Args:
      sizes: of the axes of the mesh.
      name: of the leaf; factors are ``.../a`` and ``.../b``.
      shape: of the array.

    >>> tuple(spec({"expert": 2, "fsdp": 2}, "q_proj/kernel/a", (4, 6, 8, 2)))
    ('expert', 'fsdp')
    >>> tuple(spec({"expert": 2, "fsdp": 2}, "q_proj/kernel/a", (4, 5, 8, 2)))
    ('expert', None, 'fsdp')
    """
    parts = math.prod(sizes.get(axis, 1) for axis in OTHERS)
    even = len(shape) > 1 and shape[1] % parts == 0
    side = {"a": (None, OTHERS), "b": (None, None, OTHERS)}
    rest = (OTHERS,) if even else side.get(name.rpartition("/")[2], ())
    return rules.fitting(sizes, ("expert", *rest)[: len(shape)], shape)
