"""Tensors of a checkpoint streamed into stacked leaves, one at a time.

A leaf [L, ...] or [L, X, ...] is allocated once, with its sharding; each layer is then
written into it in place (the leaf is donated), turned and cast on the device. What the
host holds is one tensor.
"""

import functools
import gc
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxlora.io.tensors import Tensors
from jaxlora.models.names import Place

Progress: TypeAlias = Callable[[int, int], None]

_TRIES = 100


def shape_of(place: Place, shapes: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the shape that a tensor has in the checkpoint."""
    shape = tuple(shapes[place.leaf].shape)[len(place.index) :]
    return shape[::-1] if place.turned else shape


def fill(
    checkpoint: Tensors,
    sources: Mapping[str, str],
    places: Mapping[str, Place],
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    where: Mapping[str, NamedSharding],
    progress: Progress | None,
) -> dict[str, jax.Array]:
    """Reads every tensor into its leaf, in the order of the files.

    Args:
      checkpoint: the checkpoint.
      sources: name in the checkpoint by canonical name.
      places: where each tensor goes, by canonical name.
      shapes: shape and type of each leaf.
      where: sharding of each leaf; a leaf without one is on one device.
      progress: called with (bytes read, bytes in all) after each tensor.

    Raises:
      ValueError: if a tensor holds NaN or infinity.
    """
    leaves: dict[str, jax.Array] = {}
    order = sorted(places, key=lambda name: str(checkpoint.files[sources[name]]))
    total = sum(checkpoint.entries[sources[name]].nbytes for name in order)
    done = 0
    for name in order:
        place, source = places[name], sources[name]
        leaf, sharding = shapes[place.leaf], where.get(place.leaf)
        values = checkpoint.read(source)
        memory = weakref.ref(values if values.base is None else values.base)
        leaves[place.leaf], finite = _entered(
            values, place, leaf, sharding, leaves.get(place.leaf)
        )
        del values
        if not finite:  # also waits, so that at most one tensor is on its way
            raise ValueError(
                f"Tensor {source!r} of {checkpoint.files[source]} holds NaN or "
                f"infinity, or values beyond {leaf.dtype}."
            )
        _wait(memory)
        done += checkpoint.entries[source].nbytes
        if progress is not None:
            progress(done, total)
    return leaves


def _wait(memory: weakref.ref) -> None:
    """Until JAX gives memory back that it was lent, which it does when Python collects.

    It takes a moment: a thread of its own does so. What never comes is not waited for.
    """
    for _ in range(_TRIES):
        if memory() is None:
            return
        gc.collect(0)
        time.sleep(1e-4)


def _entered(
    values: np.ndarray,
    place: Place,
    leaf: jax.ShapeDtypeStruct,
    sharding: NamedSharding | None,
    into: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """The leaf with one tensor entered, and whether that is finite."""
    part = _part(values, place, sharding)
    if not place.index:
        return _whole(part, leaf.dtype, place.turned, sharding)
    if into is None:
        into = jnp.zeros(leaf.shape, leaf.dtype, device=sharding)
    index = tuple(jnp.asarray(i, jnp.int32) for i in place.index)
    return _insert(into, part, index, place.turned, sharding)


def _part(values: np.ndarray, place: Place, sharding: NamedSharding | None):
    """One tensor on the devices where its layer of the leaf will be."""
    if sharding is None:
        return jax.device_put(values)  # on a CPU the same memory
    rank = values.ndim + len(place.index)
    axes = (*sharding.spec, *(None,) * (rank - len(sharding.spec)))
    axes = axes[rank - values.ndim :]
    axes = axes[::-1] if place.turned else axes
    here = NamedSharding(sharding.mesh, PartitionSpec(*axes))
    return jax.make_array_from_callback(values.shape, here, lambda at: values[at])


@functools.partial(jax.jit, static_argnums=(3, 4), donate_argnums=0)
def _insert(leaf, part, index, turned: bool, sharding: NamedSharding | None):
    part = (part.T if turned else part).astype(leaf.dtype)
    start = (*index, *(jnp.zeros((), jnp.int32),) * part.ndim)
    part = part.reshape((1,) * len(index) + part.shape)
    leaf = jax.lax.dynamic_update_slice(leaf, part, start)
    return _kept(leaf, sharding), jnp.isfinite(part).all()


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _whole(part, dtype, turned: bool, sharding: NamedSharding | None):
    part = (part.T if turned else part).astype(dtype)
    return _kept(part, sharding), jnp.isfinite(part).all()


def _kept(leaf: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    if sharding is None:
        return leaf
    return jax.lax.with_sharding_constraint(leaf, sharding)
