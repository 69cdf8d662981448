"""How a chain runs over a library: leaf by leaf, or with all leaves in view.

A leaf is one site at one layer. By default layers are a loop in the compiled program,
so that the memory of one layer is enough; a step that ranks entries of the whole model
needs the coordinates of all leaves at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlora.lora import LoraWeight
from jaxlora.merge.linear import Reduction
from jaxlora.merge.space import Coordinates, Entered, Leaves, Space


def each(
    space: Space,
    steps: Sequence[Any],
    reduction: Reduction,
    sites: dict[str, LoraWeight],
    weights: jax.Array,
    key: jax.Array | None,
    rank: int | None,
    data: dict[str, jax.Array],
) -> dict[str, LoraWeight]:
    """Merges every site and layer by itself."""

    def leaf(weight: LoraWeight, key: Any, data: Any) -> LoraWeight:
        found = space.enter(weight, weights)
        coordinates = _stepped(steps, key, found.coordinates)
        merged = _reduced(reduction, coordinates, _fold(key, len(steps)), data)
        return space.leave(merged, found.frame, rank)

    out = {}
    for i, name in enumerate(sorted(sites)):
        site = sites[name]
        keys = _layer_keys(_fold(key, i), site)
        out[name] = _over_layers(leaf, site.scale.ndim - 1, site, keys, data.get(name))
    return out


def whole(
    space: Space,
    steps: Sequence[Any],
    reduction: Reduction,
    sites: dict[str, LoraWeight],
    weights: jax.Array,
    key: jax.Array | None,
    rank: int | None,
    data: dict[str, jax.Array],
) -> dict[str, LoraWeight]:
    """Merges all sites with the coordinates of all of them in view."""
    entered = {name: _enter(space, site, weights) for name, site in sites.items()}
    coordinates = _joined({name: one.coordinates for name, one in entered.items()})
    coordinates = _stepped(steps, key, coordinates)
    out = {}
    for i, name in enumerate(sorted(sites)):
        site, layers = sites[name], sites[name].scale.ndim - 1
        own = _own(coordinates, name)

        def leave(own: Coordinates, frame: Any, key: Any, data: Any) -> LoraWeight:
            return space.leave(_reduced(reduction, own, key, data), frame, rank)

        keys = _layer_keys(_fold(_fold(key, len(steps)), i), site)
        out[name] = _over_layers(
            leave, layers, own, entered[name].frame, keys, data.get(name), after=(1,)
        )
    return out


def _enter(space: Space, site: LoraWeight, weights: jax.Array) -> Entered:
    """Coordinates [E, L, M, N] and frames [L, ...] of a site."""
    layers = site.scale.ndim - 1
    found = _over_layers(lambda w: space.enter(w, weights), layers, site)
    moved = jax.tree.map(lambda x: jnp.moveaxis(x, layers, 0), found.coordinates)
    return found._replace(coordinates=moved)


def _over_layers(
    fn: Callable[..., Any], layers: int, *args: Any, after: Sequence[int] = ()
) -> Any:
    """Loops over the layer axes.

    They come after E in each argument, but first in keys and in those named ``after``.
    """
    if not layers:
        return fn(*args)

    def first(i: int, arg: Any) -> Any:
        if i in after or (hasattr(arg, "dtype") and _is_key(arg)):
            return arg
        return jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), arg)

    turned = tuple(first(i, arg) for i, arg in enumerate(args))
    return jax.lax.map(
        lambda one: _over_layers(fn, layers - 1, *one, after=after), turned
    )


def _is_key(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _layer_keys(key: jax.Array | None, site: LoraWeight) -> jax.Array | None:
    """One key for each layer, [L, ...]."""
    lead = site.scale.shape[1:]
    return key if key is None or not lead else jax.random.split(key, lead)


def _stepped(steps: Sequence[Any], key: Any, coordinates: Coordinates) -> Coordinates:
    for i, step in enumerate(steps):
        coordinates = step(_fold(key, i), coordinates)
    return coordinates


def _reduced(
    reduction: Reduction, coordinates: Coordinates, key: Any, data: Any
) -> Leaves:
    names = sorted(coordinates.values)
    return {
        name: reduction.leaf(
            coordinates.values[name],
            coordinates.weights[name],
            _fold(key, i),
            data,
        )
        for i, name in enumerate(names)
    }


def _joined(sites: dict[str, Coordinates]) -> Coordinates:
    """The coordinates of all sites in one, named ``site`` + ``:`` + part."""

    def gather(field: str) -> Leaves:
        return {
            f"{site}:{part}": leaf
            for site, one in sites.items()
            for part, leaf in getattr(one, field).items()
        }

    return Coordinates(gather("values"), gather("live"), gather("weights"))


def _own(coordinates: Coordinates, site: str) -> Coordinates:
    def pick(leaves: Leaves) -> Leaves:
        return {
            name.removeprefix(f"{site}:"): leaf
            for name, leaf in leaves.items()
            if name.rpartition(":")[0] == site
        }

    return Coordinates(
        pick(coordinates.values), pick(coordinates.live), pick(coordinates.weights)
    )


def _fold(key: jax.Array | None, i: int) -> jax.Array | None:
    return None if key is None else jax.random.fold_in(key, i)
