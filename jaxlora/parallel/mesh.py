"""Meshes and the placement of experts; the only place that makes a mesh.

Axes are ``expert``, ``data``, ``fsdp`` and ``tensor``, all Auto: the compiler follows
the shardings of its inputs and the constraints of :mod:`jaxlora.parallel.layout`, and
no code of ours does a collective. Neighbours lie along ``tensor``, which communicates
most; experts, which never communicate, lie furthest apart.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlora import tree as named
from jaxlora.tree import Tree

AXES = ("expert", "data", "fsdp", "tensor")
"""Of every mesh, the one that communicates most last."""
BATCH = ("data", "fsdp")
"""The axes that rows are cut over."""


def mesh(
    *,
    data: int = 1,
    fsdp: int = 1,
    tensor: int = 1,
    expert: int = 1,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Returns a mesh over all devices, of every process, or over those given.

    Args:
      data: devices along the batch; -1 on one axis means all that the others leave.
      fsdp: devices along which the batch is cut, and params too, gathered when used.
      tensor: devices along the heads of attention and the hidden units of the MLP.
      expert: devices along E.
      devices: by default all there are; those of a described topology, too.

    Raises:
      ValueError: if the product of the sizes is not the number of devices.

    >>> mesh(expert=-1).shape["expert"] == jax.device_count()
    True
    >>> dict(mesh(fsdp=2, devices=jax.devices()[:2]).shape)
    {'expert': 1, 'data': 1, 'fsdp': 2, 'tensor': 1}
    """
    here = jax.devices() if devices is None else list(devices)
    asked = {"data": data, "fsdp": fsdp, "tensor": tensor, "expert": expert}
    sizes = sizes_of(asked, len(here), here[0].platform)
    # Explicit axes would have to be named in every operation of the model.
    types = (AxisType.Auto,) * len(AXES)
    shape = tuple(sizes[name] for name in AXES)
    return jax.make_mesh(shape, AXES, axis_types=types, devices=here)


def sizes_of(
    asked: Mapping[str, int], devices: int, platform: str = ""
) -> dict[str, int]:
    """The size of each axis, -1 replaced by what the others leave.

    Args:
      asked: sizes by axis; an axis that is not named has 1.
      devices: their number.
      platform: of the devices, for the message.

    Raises:
      ValueError: as :func:`mesh`.

    >>> sizes_of({"fsdp": 2, "expert": -1}, 8)
    {'expert': 4, 'data': 1, 'fsdp': 2, 'tensor': 1}
    """
    sizes = {name: asked.get(name, 1) for name in AXES}
    some = {name: size for name, size in asked.items() if size != 1}
    shown = ", ".join(f"{x}={size}" for x, size in (some or asked or sizes).items())
    rest = [name for name, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(rest) > 1 or known < 1 or min(sizes.values()) < -1:
        raise ValueError(
            f"Mesh sizes are {shown}, expected positive numbers, and -1 (the rest) "
            f"on one axis at most."
        )
    if rest:
        sizes[rest[0]] = devices // known
    if math.prod(sizes.values()) != devices:
        kind = f"{platform} devices" if platform else "devices"
        if rest:
            raise ValueError(
                f"Mesh sizes are {shown}, and {known} does not divide {devices}, the "
                f"number of {kind}, of which -1 is the rest; {_divisors(devices)}."
            )
        raise ValueError(
            f"Mesh sizes are {shown}, expected a product of {devices}, the number of "
            f"{kind}; give one axis the size -1 for the rest."
        )
    return sizes


def check(sizes: Mapping[str, int], **numbers: Mapping[str, int]) -> None:
    """Refuses a mesh that cuts something into unequal parts, and says what works.

    Args:
      sizes: of the axes, such as ``mesh.shape``.
      **numbers: what each axis has to divide, by name; ``batch`` is for the product of
        ``data`` and ``fsdp``.

    Raises:
      ValueError: naming the axis, what it does not divide, and sizes that do.

    >>> check({"tensor": 3}, tensor={"key heads": 4})
    Traceback (most recent call last):
        ...
    ValueError: The mesh has tensor=3, which does not divide 4 key heads; 1, 2 or 4 do.
    """
    for axis, things in numbers.items():
        axes = BATCH if axis == "batch" else (axis,)
        size = math.prod(sizes.get(name, 1) for name in axes)
        for thing, number in things.items():
            if number % size:
                # What divides this alone would be refused for the next in its place.
                most = math.gcd(*things.values())
                what = "" if most == number else f" ({_listed(things)})"
                raise ValueError(
                    f"The mesh has {' * '.join(axes)}={size}, which does not divide "
                    f"{number} {thing}; {_divisors(most)}{what}."
                )


def _divisors(number: int) -> str:
    """The numbers that divide a number, and the verb.

    >>> _divisors(1), _divisors(6)
    ('1 does', '1, 2, 3 or 6 do')
    """
    *most, last = [str(n) for n in range(1, number + 1) if number % n == 0]
    shown = most if len(most) < 8 else [*most[:4], "...", *most[-2:]]
    return f"{', '.join(shown)} or {last} do" if most else f"{last} does"


def _listed(things: Mapping[str, int]) -> str:
    return "of all: " + ", ".join(f"{number} {x}" for x, number in things.items())


def mesh_of(tree: Tree) -> Mesh | None:
    """The mesh that arrays lie on, or None.

    Args:
      tree: put there by :func:`place`.

    >>> mesh_of({"head": jnp.ones((2, 2))}) is None
    True
    """
    where = getattr(jax.tree.leaves(tree)[0], "sharding", None)
    mesh = where.mesh if isinstance(where, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) else None


def filled(rows: int, mesh: Mesh | None) -> int:
    """The smallest number of rows, from so many on, that a mesh cuts evenly.

    Args:
      rows: from 1 on.
      mesh: or None.

    >>> filled(5, mesh(data=4, devices=jax.devices()[:4])), filled(5, None)
    (8, 5)
    """
    sizes = {} if mesh is None else mesh.shape
    parts = math.prod(sizes.get(axis, 1) for axis in BATCH)
    return -(-rows // parts) * parts


def platform_of(tree: Tree) -> str:
    """The platform of the devices that arrays lie on: ``cpu``, ``gpu`` or ``tpu``.

    What runs on them is chosen by it, and not by what else this machine has.

    Args:
      tree: of arrays.
    """
    leaf = jax.tree.leaves(tree)[0]
    if not isinstance(leaf, jax.Array):  # of the host, which JAX puts there
        return jax.devices()[0].platform
    return next(iter(leaf.sharding.device_set)).platform


def using(mesh: Mesh | None) -> AbstractContextManager[Any]:
    """Makes the constraints of :mod:`jaxlora.parallel.layout` mean this mesh.

    Compile and call programs within it. Without a mesh, constraints do nothing.

    Args:
      mesh: or None.
    """
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def shard_experts(tree: Tree, mesh: Mesh) -> Tree:
    """Cuts the leading axis E of every leaf over the ``expert`` axis of the mesh.

    ``train.fit_experts`` follows the placement of its rows and keys. A base that is
    committed to one device (a restored one is) must be put on the mesh as well, with
    ``place(base, mesh, rules.shardings(mesh, base))``. With many processes, each passes
    the whole tree, the same in all, as arrays on the host or uncommitted.

    Args:
      tree: arrays [E, ...], or typed keys [E].
      mesh: with an axis ``expert``.

    Raises:
      ValueError: if a leaf has no leading axis, or the expert axis of the mesh does
        not divide it.
    """
    parts = mesh.shape["expert"]
    for name, leaf in named.flatten(tree).items():
        if not leaf.ndim or leaf.shape[0] % parts:
            raise ValueError(
                f"Leaf {name!r} has shape {tuple(leaf.shape)}, expected a leading axis "
                f"E that {parts} devices along 'expert' divide; pad the library with "
                f"experts of scale 0, or use fewer devices."
            )
    return place(tree, mesh, PartitionSpec("expert"))


def place(
    tree: Tree,
    mesh: Mesh | None,
    where: PartitionSpec | Mapping[str, NamedSharding],
) -> Tree:
    """Puts every leaf of a tree on a mesh.

    Args:
      tree: arrays, or typed keys; with many processes the same in all of them.
      mesh: or None, for arrays on the default device.
      where: one spec for all leaves, of which scalars are everywhere; or the sharding
        of each leaf by name.
    """
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)

    def lay(name: str, leaf: Any) -> jax.Array:
        if not isinstance(where, PartitionSpec):
            return _put(leaf, where[name])
        return _put(leaf, NamedSharding(mesh, where if np.ndim(leaf) else _EVERYWHERE))

    return named.map_named(lay, tree)


_EVERYWHERE = PartitionSpec()


def _put(leaf: jax.Array, where: NamedSharding) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _put(jax.random.key_data(leaf), where)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    if where.is_fully_addressable or getattr(leaf, "committed", False):
        return jax.device_put(leaf, where)
    # Every process has all of it: device_put would send it, only to compare.
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, where, lambda at: values[at])
