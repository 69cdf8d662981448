"""Which axis of which parameter lies along which axis of a mesh.

Kernels that read the residual stream are [L, D, F] with D along ``fsdp`` and F along
``tensor``; those that write to it have the two the other way round, so that the
products between them need no communication (Shoeybi et al., Megatron-LM, arXiv
1909.08053). An axis that the mesh does not divide stays whole.
"""

import re
from typing import Any

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlora import tree as named
from jaxlora.tree import Tree

RULES = {
    r"layers/.*/(q|k|v|gate|up)_proj/kernel": (None, "fsdp", "tensor"),
    r"layers/.*/(o|down)_proj/kernel": (None, "tensor", "fsdp"),
    r"memory/(gate|up)_proj/kernel": ("fsdp", "tensor"),
    r"memory/down_proj/kernel": ("tensor", "fsdp"),
    r"layers/.*/bias": (None, "tensor"),
    r"embed/embedding": ("tensor", "fsdp"),
    r"head": ("fsdp", "tensor"),
    r".*": (),
}
"""Axes of the mesh by the name of a leaf; the first match counts."""


def shardings(mesh: Mesh, shapes: Tree) -> dict[str, NamedSharding]:
    """Returns ``{leaf name: sharding}`` of the base parameters of a decoder.

    Args:
      mesh: as :func:`jaxlora.parallel.mesh` makes it.
      shapes: params tree, or its shapes from ``jax.eval_shape``.
    """
    return {
        name: NamedSharding(mesh, _fitting(mesh, _rule(name), leaf))
        for name, leaf in named.flatten(shapes).items()
    }


def _rule(name: str) -> tuple[str | None, ...]:
    return next(axes for rule, axes in RULES.items() if re.fullmatch(rule, name))


def _fitting(mesh: Mesh, axes: tuple[str | None, ...], leaf: Any) -> PartitionSpec:
    kept = []
    for axis, size in zip(axes, leaf.shape, strict=False):
        parts = mesh.shape.get(axis, 1) if axis else 1
        # Whole where it cannot be cut evenly: padding would change shapes.
        kept.append(axis if parts > 1 and size % parts == 0 else None)
    return PartitionSpec(*kept)
