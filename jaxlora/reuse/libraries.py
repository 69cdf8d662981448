"""Adapters as a library that is merged, or routed, on one device or over a mesh."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxlora import lora, parallel
from jaxlora import merge as merges
from jaxlora import route as routes
from jaxlora import tree as named
from jaxlora.lora import Adapter, Library, LoraWeight
from jaxlora.merge import magnitude
from jaxlora.parallel import layout, merging, processes
from jaxlora.tree import Tree


def merged(
    merge: merges.Merge,
    given: Sequence[float] | None,
    library: Library,
    key: jax.Array | None,
    mesh: Mesh | None,
) -> Adapter:
    """Merges a library in float32, however large or small its factors are.

    Args:
      merge: knowing the places of layers of several kinds (``Merge.at``).
      given: a weight for each expert, or None.
      library: [E, ...], as :func:`stacked` gives it.
      key: for merges that draw.
      mesh: over which it is merged, or None.

    Raises:
      ValueError: if what comes out is not finite.
    """
    weights = [1.0] * lora.num_experts(library) if given is None else given
    powers = magnitude.exponents(merge, lora.sites(library), weights)
    small = magnitude.divided(library, powers)
    if mesh is None:
        adapter = jax.jit(functools.partial(merge, weights=given))(small, key=key)
    else:
        array = jnp.asarray(weights, jnp.float32)
        sites = merging.across(mesh)(merge, lora.sites(small), array, key=key)
        adapter = named.unflatten(sites)
    adapter = magnitude.restored(adapter, powers)
    magnitude.check_finite(adapter)
    return adapter


def routed(
    way: routes.Route,
    adapters: Sequence[Adapter],
    general: Sequence[Adapter],
    mesh: Mesh | None,
) -> Library:
    """The adapters stacked [E, ...], as the route uses them, cut over the mesh.

    Args:
      way: fit to their number.
      adapters: on one base.
      general: those whose mean a route takes out of the others, if any.
      mesh: or None.
    """
    common = stacked(general, mesh) if general else None
    library = stacked(adapters, mesh)
    if mesh is not None:
        where = parallel.expert_shardings(mesh, library)
        library = parallel.place(library, mesh, where)
        common = common and parallel.place(common, mesh, PartitionSpec())
    with parallel.using(mesh):
        return jax.jit(lambda *x: layout.by_expert(way.library(*x)))(library, common)


def stacked(adapters: Sequence[Adapter], mesh: Mesh | None) -> Library:
    """The adapters as a library; on the host, if it is to be cut over a mesh.

    Args:
      adapters: on one base, of any ranks and sites.
      mesh: or None.
    """
    every = same_sites(adapters)
    if mesh is None:
        return lora.stack(every)
    rank = max(w.rank for adapter in every for w in lora.sites(adapter).values())
    padded = [lora.pad(adapter, rank) for adapter in every]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *padded)


def everywhere(tree: Tree | None, mesh: Mesh) -> Tree | None:
    """Puts all of a tree on every device of a mesh.

    Args:
      tree: of arrays, wherever they are; or None, which it stays.
      mesh: of all processes.
    """
    if tree is None:
        return None
    return parallel.place(processes.host(tree), mesh, PartitionSpec())


def notes(adapters: Sequence[Adapter]) -> Iterator[str]:
    """Says which routed adapters lack sites that others have.

    Args:
      adapters: on one base.
    """
    adapted = [set(lora.sites(adapter)) for adapter in adapters]
    every = set().union(*adapted)
    for i, here in enumerate(adapted):
        if here != every:
            lacks = sorted(every - here)
            more = f" and {len(lacks) - 2} more" if len(lacks) > 2 else ""
            yield (
                f"Adapter {i + 1} of {len(adapters)} does not adapt "
                f"{', '.join(lacks[:2])}{more}; there the route chooses among the "
                f"others."
            )


def same_sites(adapters: Sequence[Adapter]) -> list[Adapter]:
    """Gives every adapter the sites of all, with a delta of zero where it had none.

    Args:
      adapters: on one base, of any ranks and sites.
    """
    every: dict[str, LoraWeight] = {}
    for adapter in adapters:
        every |= lora.sites(adapter)
    return [_widen(adapter, every) for adapter in adapters]


def _widen(adapter: Adapter, every: dict[str, LoraWeight]) -> Adapter:
    sites = lora.sites(adapter)
    absent = {name: _zero(w) for name, w in every.items() if name not in sites}
    return named.unflatten(sites | absent) if absent else adapter


def _zero(like: LoraWeight) -> LoraWeight:
    a, b = jnp.zeros_like(like.a[..., :1]), jnp.zeros_like(like.b[..., :1, :])
    return LoraWeight(a, b, jnp.ones_like(like.scale))
