"""Constraints: where the arrays inside a program lie on the mesh that is in use.

The mesh is that of :func:`jaxlora.parallel.using`. Without one, or within a mesh of
somebody else's, nothing here does anything. Under ``vmap`` over experts give
``spmd_axis_name="expert"``: each constraint is then one of [E, ...] as well.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

from jaxlora import tree as named
from jaxlora.lora import LoraWeight
from jaxlora.parallel import rules
from jaxlora.parallel.mesh import AXES, BATCH
from jaxlora.parallel.rules import Axis
from jaxlora.tree import Tree


def sizes() -> Mapping[str, int]:
    """Sizes of the axes of the mesh in use; empty if there is none.

    >>> dict(sizes())
    {}
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(AXES) <= set(mesh.axis_names):
        return {}
    # Within shard_map or pmap each device has its part already.
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        return {}
    return mesh.shape


def constrain(x: jax.Array, *axes: Any) -> jax.Array:
    """Lays an array out on the mesh in use.

    Args:
      x: any array.
      *axes: mesh axes of each of its axes; those that do not cut it evenly are left
        out, None means whole along all of them, and ``UNCONSTRAINED`` wherever it is.

    >>> constrain(jax.numpy.ones((4, 2)), "data", None).shape
    (4, 2)
    """
    known = sizes()
    if math.prod(known.values()) == 1:
        return x
    spec = rules.fitting(known, axes, x.shape)
    return jax.lax.with_sharding_constraint(x, spec)


def gathered(kernel: Any, name: str) -> Any:
    """A parameter of one layer where it is used: whole along ``fsdp``.

    Args:
      kernel: of one layer.
      name: its name, or that of its last modules.
    """
    axes = rules.used_axes(name)
    return constrain(kernel, *axes) if len(axes) == kernel.ndim else kernel


def gathered_weight(weight: LoraWeight, name: str) -> LoraWeight:
    """The same for an adapter's factors of one layer; experts stay apart.

    Args:
      weight: a [D, R], or a [E, D, R] of a library.
      name: of the kernel, or of its last modules.
    """
    axes = rules.used_axes(name)
    if len(axes) != 2:
        return weight
    # Wherever the experts are: gates of many libraries train side by side, too.
    lead = (PartitionSpec.UNCONSTRAINED,) * (weight.a.ndim - 2)
    a = constrain(weight.a, *lead, axes[0], None)
    return LoraWeight(a, constrain(weight.b, *lead, None, axes[1]), weight.scale)


def by_expert(tree: Tree) -> Tree:
    """Lays experts [E, ...] out as :func:`jaxlora.parallel.expert_shardings` does.

    Args:
      tree: of arrays; scalars stay as they are.
    """
    return named.map_named(
        lambda name, x: constrain(x, *rules.expert_axes(name, x.ndim)), tree
    )


def by_batch(x: jax.Array, batch: int, *axes: Axis) -> jax.Array:
    """Cuts rows over ``data`` and ``fsdp``; as it is where they do not divide.

    Args:
      x: [B, ...], or [B T, ...] with the tokens of a row side by side.
      batch: B.
      *axes: mesh axes of its other axes; by default whole.
    """
    if batch % batch_parts():
        return x
    rest = axes or (None,) * (x.ndim - 1)
    return constrain(x, BATCH, *rest)


def batch_parts() -> int:
    """Devices over which rows are cut; 1 without a mesh."""
    known = sizes()
    return math.prod(known.get(axis, 1) for axis in BATCH)


def cuts_experts() -> bool:
    """Whether experts lie on several devices."""
    return sizes().get("expert", 1) > 1


def gathers() -> bool:
    """Whether parameters are gathered along ``fsdp`` when they are used."""
    return sizes().get("fsdp", 1) > 1


def saved(primitive: Any, *_: Any, **__: Any) -> bool:
    """A policy of ``jax.checkpoint``: keep everything but what was gathered.

    Without it the backward pass would find the gathered parameters of all layers in
    memory, which is what ``fsdp`` is there to avoid.
    """
    return primitive.name != "sharding_constraint"
