"""Which axis of which parameter lies along which axis of a mesh.

Kernels that read the residual stream are [..., D, F] with D along ``fsdp`` and F along
``tensor``; those that write to it have the two the other way round, so that the
products between them need no communication (Shoeybi et al., Megatron-LM, arXiv
1909.08053). What is cut along ``fsdp`` is gathered, layer by layer, when it is used
(Rajbhandari et al., ZeRO, arXiv 1910.02054). Adapters follow the kernel that they
adapt. An axis that the mesh does not divide stays whole. The projections of a gated
delta net are whole along ``tensor``: its kernels hold heads of three kinds in a row.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from jax.sharding import NamedSharding, PartitionSpec

from jaxlora import tree as named
from jaxlora.tree import Tree

Axis: TypeAlias = str | tuple[str, ...] | None

RULES: Mapping[str, tuple[Axis, ...]] = {
    r"(.*/)?(q|k|v|qkv|gate|up|gate_up)_proj/kernel": ("fsdp", "tensor"),
    r"(.*/)?(o|down)_proj/kernel": ("tensor", "fsdp"),
    r"(.*/)?in_proj_(qkv|z|b|a|qkvz|ba)/kernel": ("fsdp", None),
    r"(.*/)?out_proj/kernel": (None, "fsdp"),
    r"(.*/)?moe/(gate|up)/kernel": ("fsdp", "tensor"),
    r"(.*/)?moe/down/kernel": ("tensor", "fsdp"),
    r"(.*/)?(q|k|v)_proj/bias": ("tensor",),
    r"embed/embedding": ("tensor", "fsdp"),
    r"head": ("fsdp", "tensor"),
    r".*": (),
}
"""Mesh axes of the last axes of a leaf, by its name; the first match counts."""


def axes_of(name: str) -> tuple[Axis, ...]:
    """The mesh axes of a leaf's last axes, by the rules.

    Args:
      name: of a base parameter.

    >>> axes_of("layers/attn/o_proj/kernel"), axes_of("final_norm/scale")
    (('tensor', 'fsdp'), ())
    """
    return next(axes for rule, axes in RULES.items() if re.fullmatch(rule, name))


def used_axes(name: str) -> tuple[Axis, ...]:
    """The same where the parameter is used: whole along ``fsdp``.

    Args:
      name: of a base parameter, or of its last modules.

    >>> used_axes("o_proj/kernel")
    ('tensor', None)
    """
    return tuple(None if axis == "fsdp" else axis for axis in axes_of(name))


def factor_axes(name: str, factor: str) -> tuple[Axis, ...]:
    """The mesh axes of the last two axes of an adapter's ``a`` or ``b``.

    ``a`` [D, R] has those of the kernel's D, ``b`` [R, F] those of its F; what is not
    cut along ``fsdp`` by that is so as well, as optimizer states are large.

    Args:
      name: of the kernel.
      factor: ``a`` or ``b``.

    >>> factor_axes("layers/mlp/up_proj/kernel", "b")
    (None, ('tensor', 'fsdp'))
    """
    kernel = axes_of(name)
    if len(kernel) != 2:
        return (None, None)
    axis = kernel[0] if factor == "a" else kernel[1]
    axis = ("tensor", "fsdp") if axis == "tensor" else axis
    return (axis, None) if factor == "a" else (None, axis)


def shardings(mesh: Any, shapes: Tree) -> dict[str, NamedSharding]:
    """Returns ``{leaf name: sharding}`` of the base parameters of a decoder.

    Args:
      mesh: as :func:`jaxlora.parallel.mesh` makes it.
      shapes: params tree, or its shapes from ``jax.eval_shape``.
    """
    return {
        name: NamedSharding(mesh, _last(mesh, axes_of(name), leaf.shape))
        for name, leaf in named.flatten(shapes).items()
    }


def expert_shardings(mesh: Any, shapes: Tree) -> dict[str, NamedSharding]:
    """Returns ``{leaf name: sharding}`` of anything with a leading axis E.

    A leaf that is named as a factor of an adapter (``.../kernel/a``), of a library or
    of an optimizer's state for it, is cut as :func:`factor_axes` says as well.

    Args:
      mesh: as :func:`jaxlora.parallel.mesh` makes it.
      shapes: a library [E, ...] or another tree of arrays, or its shapes; scalars are
        everywhere.
    """
    return {
        name: NamedSharding(
            mesh, fitting(mesh.shape, expert_axes(name, len(leaf.shape)), leaf.shape)
        )
        for name, leaf in named.flatten(shapes).items()
    }


def expert_axes(name: str, ndim: int) -> tuple[Axis, ...]:
    """The mesh axes of an array [E, ...], one for each of its axes.

    Args:
      name: of the leaf.
      ndim: its number of axes.

    >>> expert_axes("1/mu/layers/mlp/up_proj/kernel/a", 4), expert_axes("step", 0)
    (('expert', None, 'fsdp', None), ())
    """
    kernel, _, factor = name.rpartition("/")
    last = factor_axes(kernel, factor) if factor in ("a", "b") and ndim > 2 else ()
    lead = ("expert", *(None,) * ndim)[: ndim - len(last)]
    return (*lead, *last)


def _last(mesh: Any, axes: Sequence[Axis], shape: Sequence[int]) -> PartitionSpec:
    lead = (None,) * (len(shape) - len(axes)) if axes else ()
    return fitting(mesh.shape, (*lead, *axes), shape)


def fitting(
    sizes: Mapping[str, int], axes: Sequence[Any], shape: Sequence[int]
) -> PartitionSpec:
    """The spec of an array, without the mesh axes that do not cut it evenly.

    Args:
      sizes: of the mesh axes.
      axes: mesh axes by axis of the array; of several the last are dropped first.
      shape: of the array.

    >>> tuple(fitting({"tensor": 2, "fsdp": 4}, [("tensor", "fsdp"), None], (6, 3)))
    ('tensor',)
    """

    def kept(axis: Any, size: int) -> Any:
        if axis is PartitionSpec.UNCONSTRAINED:
            return axis
        several = (axis,) if isinstance(axis, str) else axis or ()
        live = [name for name in several if sizes.get(name, 1) > 1]
        # Whole where it cannot be cut evenly: padding would change shapes.
        while live and size % math.prod(sizes[name] for name in live):
            live.pop()
        return None if not live else live[0] if len(live) == 1 else tuple(live)

    spec = [kept(x, n) for x, n in zip(axes, shape, strict=False)]
    while spec and spec[-1] is None:  # as the compiler writes them: equal is equal
        spec.pop()
    return PartitionSpec(*spec)
