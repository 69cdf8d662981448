"""How a chain runs over a library: leaf by leaf, or with all leaves in view.

A leaf is one site at one layer. By default layers are a loop in the compiled program,
so that the memory of one layer is enough; a step that ranks entries of the whole model
needs the coordinates of all leaves at once.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlora.lora import LoraWeight
from jaxlora.merge.linear import Reduction
from jaxlora.merge.loop import ALONE, Loop, layers_first, real
from jaxlora.merge.space import Coordinates, Entered, Leaves, Space


class Chain(NamedTuple):
    """What is done to every leaf."""

    space: Space
    steps: Sequence[Any]
    """Functions ``(key, coordinates) -> coordinates``."""
    reduction: Reduction
    rank: int | None
    """Of the result; None keeps what the space gives."""
    loop: Loop = ALONE


def separately(
    chain: Chain,
    sites: dict[str, LoraWeight],
    weights: jax.Array,
    key: jax.Array | None,
    data: dict[str, jax.Array],
) -> dict[str, LoraWeight]:
    """Merges every site and layer by itself.

    Args:
      chain: what is done.
      sites: by name, a [E, ..., D, R].
      weights: [E].
      key: PRNG key, or None.
      data: by name, [E, ...]; empty for a method that sees none.
    """
    space, steps, reduction, rank, loop = chain

    def merge_leaf(
        weights: jax.Array, weight: LoraWeight, key: Any, data: Any
    ) -> LoraWeight:
        entered = space.enter(weight, weights)
        coordinates = _stepped(steps, key, entered.coordinates)
        merged = _reduced(reduction, coordinates, fold(key, len(steps)), data)
        return space.leave(merged, entered.frame, rank)

    out = {}
    # Sorted: a site's key depends on the names alone, not on the order of the tree.
    for i, name in enumerate(sorted(sites)):
        site = sites[name]
        lead = site.scale.shape[1:]
        args = site, _layer_keys(fold(key, i), site), data.get(name)
        filled = loop.filled(layers_first(len(lead), args), lead)
        merged = _over_layers(merge_leaf, len(lead), weights, filled, loop)
        out[name] = loop.shortened(merged, lead)
    return out


def jointly(
    chain: Chain,
    sites: dict[str, LoraWeight],
    weights: jax.Array,
    key: jax.Array | None,
    data: dict[str, jax.Array],
) -> dict[str, LoraWeight]:
    """Merges all sites with the coordinates of all of them in view.

    Args:
      chain: what is done.
      sites: by name, a [E, ..., D, R].
      weights: [E].
      key: PRNG key, or None.
      data: by name, [E, ...]; empty for a method that sees none.
    """
    space, steps, reduction, rank, loop = chain
    entered = {name: _enter(space, site, weights, loop) for name, site in sites.items()}
    coordinates = _joined({name: e.coordinates for name, e in entered.items()})
    coordinates = _stepped(steps, key, coordinates)

    def leave(
        _: Any, coordinates: Coordinates, frame: Any, key: Any, data: Any
    ) -> LoraWeight:
        return space.leave(_reduced(reduction, coordinates, key, data), frame, rank)

    out = {}
    for i, name in enumerate(sorted(sites)):
        lead = sites[name].scale.shape[1:]
        turned = layers_first(len(lead), _of_site(coordinates, name))
        keys = _layer_keys(fold(fold(key, len(steps)), i), sites[name])
        more = loop.filled(layers_first(len(lead), (keys, data.get(name))), lead)
        args = turned, entered[name].frame, *more
        merged = _over_layers(leave, len(lead), None, args, loop)
        out[name] = loop.shortened(merged, lead)
    return out


def fold(key: jax.Array | None, i: int) -> jax.Array | None:
    """``fold_in``, or None where a merge was given no key.

    Args:
      key: PRNG key, or None.
      i: what is folded in.
    """
    return None if key is None else jax.random.fold_in(key, i)


def _enter(space: Space, site: LoraWeight, weights: jax.Array, loop: Loop) -> Entered:
    """Coordinates [E, L, M, N] and frames [L, ...] of a site.

    Layers that the loop filled in stay, on their devices, but are no entries.
    """
    lead = site.scale.shape[1:]
    filled = loop.filled(layers_first(len(lead), (site,)), lead)

    def enter(weights: jax.Array, weight: LoraWeight) -> Entered:
        return space.enter(weight, weights)

    entered = _over_layers(enter, len(lead), weights, filled, loop)
    # The loop stacks layers before E; steps and reductions expect E first.
    moved = jax.tree.map(lambda x: jnp.moveaxis(x, len(lead), 0), entered.coordinates)
    return entered._replace(coordinates=real(moved, lead) if lead else moved)


def _over_layers(
    fn: Callable[..., Any],
    axes: int,
    shared: Any,
    args: tuple[Any, ...],
    loop: Loop = ALONE,
) -> Any:
    """Calls ``fn(shared, *args)`` for each layer, and stacks what it returns.

    Layer axes are the first ones of every array but those that are shared.
    """
    if not axes:
        return fn(shared, *args)

    def run(shared: Any, args: tuple[Any, ...]) -> Any:
        # lax.map, not vmap: the memory of one layer is enough.
        return jax.lax.map(lambda x: _over_layers(fn, axes - 1, shared, x), args)

    return loop.over(run, shared, args)


def _layer_keys(key: jax.Array | None, site: LoraWeight) -> jax.Array | None:
    """One key for each layer, [L, ...]."""
    lead = site.scale.shape[1:]
    # Keys are split over layers, so that equal layers get different draws.
    return key if key is None or not lead else jax.random.split(key, lead)


def _stepped(steps: Sequence[Any], key: Any, coordinates: Coordinates) -> Coordinates:
    for i, step in enumerate(steps):
        coordinates = step(fold(key, i), coordinates)
    return coordinates


def _reduced(
    reduction: Reduction, coordinates: Coordinates, key: Any, data: Any
) -> Leaves:
    names = sorted(coordinates.values)
    return {
        name: reduction.leaf(
            coordinates.values[name],
            coordinates.weights[name],
            fold(key, i),
            data,
        )
        for i, name in enumerate(names)
    }


def _joined(sites: dict[str, Coordinates]) -> Coordinates:
    """The coordinates of all sites in one, named ``site`` + ``:`` + part."""

    def gather(field: str) -> Leaves:
        return {
            f"{site}:{part}": leaf
            for site, coordinates in sites.items()
            for part, leaf in getattr(coordinates, field).items()
        }

    return Coordinates(gather("values"), gather("live"), gather("weights"))


def _of_site(coordinates: Coordinates, site: str) -> Coordinates:
    """The inverse of :func:`_joined`, for one site."""

    def pick(leaves: Leaves) -> Leaves:
        return {
            name.removeprefix(f"{site}:"): leaf
            for name, leaf in leaves.items()
            if name.rpartition(":")[0] == site
        }

    return Coordinates(
        pick(coordinates.values), pick(coordinates.live), pick(coordinates.weights)
    )
