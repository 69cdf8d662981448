"""Meshes and the placement of experts; the only place that makes a mesh.

Axes are ``data``, ``fsdp``, ``tensor`` and ``expert``, all Auto: the compiler follows
the shardings of its inputs, and no code of ours does a collective.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlora import tree as named
from jaxlora.tree import Tree


def mesh(*, data: int = 1, fsdp: int = 1, tensor: int = 1, expert: int = 1) -> Mesh:
    """Returns a mesh over all devices, of every process.

    Args:
      data: devices along the batch; -1 on one axis means all that the others leave.
      fsdp: devices along which params are cut and gathered when used.
      tensor: devices along the features of a kernel.
      expert: devices along E.

    Raises:
      ValueError: if the product of the sizes is not the number of devices.

    >>> mesh(expert=-1).shape["expert"] == jax.device_count()
    True
    """
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor, "expert": expert}
    devices = jax.device_count()
    shown = ", ".join(f"{name}={size}" for name, size in sizes.items())
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
        raise ValueError(
            f"Mesh sizes are {shown}, expected a product of {devices}, the number of "
            f"{jax.default_backend()} devices; give one axis the size -1 for the rest."
        )
    # Explicit axes would have to be named in every operation of the model.
    types = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types)


def shard_experts(tree: Tree, mesh: Mesh) -> Tree:
    """Cuts the leading axis E of every leaf over the ``expert`` axis of the mesh.

    ``train.fit_experts`` follows the placement of its rows and keys. A base that is
    committed to one device (a restored one is) must be put on the mesh as well, with
    ``jax.device_put(base, NamedSharding(mesh, PartitionSpec()))``. With many processes,
    each passes the whole tree, the same in all, as arrays on the host or uncommitted.

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
    where = NamedSharding(mesh, PartitionSpec("expert"))
    return jax.tree.map(lambda leaf: _put(leaf, where), tree)


def _put(leaf: jax.Array, where: NamedSharding) -> jax.Array:
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.device_put(leaf, where)
    # Across processes device_put takes plain arrays, but no typed keys.
    data = jax.device_put(jax.random.key_data(leaf), where)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
