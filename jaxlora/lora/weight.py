"""The update of a kernel, and trees of such updates.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (arXiv 2106.09685).
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from jaxlora import tree as named
from jaxlora.tree import Tree

Adapter: TypeAlias = Any
Library: TypeAlias = Any


@struct.dataclass
class LoraWeight:
    """One low-rank update of one kernel: ``delta = scale * a @ b``.

    Shapes: ``a`` [..., D, R], ``b`` [..., R, F], ``scale`` [...], where the leading
    axes are those of the kernel, after E in a library. ``scale`` is a leaf so that it
    survives stacking, padding, sharding and export; it is never trained.
    """

    a: jax.Array
    b: jax.Array
    scale: jax.Array

    @property
    def rank(self) -> int:
        """R, padding included."""
        return self.a.shape[-1]


def is_lora(leaf: Any) -> bool:
    """``is_leaf`` for trees whose leaves are :class:`LoraWeight`.

    Args:
      leaf: any node of a tree.
    """
    return isinstance(leaf, LoraWeight)


def lora_map(fn: Any, adapter: Adapter, *rest: Tree) -> Tree:
    """``jax.tree.map`` with :class:`LoraWeight` as the leaf.

    Args:
      fn: called with the ``LoraWeight`` of each site, one from each tree.
      adapter: an adapter or a library.
      *rest: trees of the same sites.
    """
    return jax.tree.map(fn, adapter, *rest, is_leaf=is_lora)


def sites(adapter: Adapter) -> dict[str, LoraWeight]:
    """Returns ``{kernel name: LoraWeight}``.

    Args:
      adapter: an adapter or a library.

    >>> site = LoraWeight(jnp.ones((4, 2)), jnp.ones((2, 6)), jnp.asarray(0.5))
    >>> {name: w.a.shape for name, w in sites({"q_proj": {"kernel": site}}).items()}
    {'q_proj/kernel': (4, 2)}
    """
    return named.flatten(adapter, is_lora)


def delta(weight: LoraWeight) -> jax.Array:
    """Returns ``scale * a @ b``, [..., D, F], computed and returned in float32.

    Args:
      weight: a [..., D, R], b [..., R, F], scale [...].

    >>> w = LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 3)), jnp.asarray(0.5))
    >>> delta(w).tolist()
    [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    """
    a, b = weight.a.astype(jnp.float32), weight.b.astype(jnp.float32)
    product = jnp.matmul(a, b, precision="highest")
    return weight.scale.astype(jnp.float32)[..., None, None] * product


def computed(weight: LoraWeight, dtype: Any) -> LoraWeight:
    """Returns factors in the type that they are computed with, beside activations.

    How an adapter is stored saves memory, and never costs precision: factors are
    widened to the type of the activations. Wider ones stay as they are.

    Args:
      weight: a [..., D, R], b [..., R, F], of one type.
      dtype: of the activations.

    >>> a, b = jnp.ones((2, 1), jnp.bfloat16), jnp.ones((1, 3), jnp.bfloat16)
    >>> w = LoraWeight(a, b, jnp.asarray(1.0))
    >>> computed(w, jnp.float32).a.dtype, computed(w, jnp.bfloat16).b.dtype
    (dtype('float32'), dtype(bfloat16))
    """
    if jnp.dtype(dtype).itemsize <= weight.a.dtype.itemsize:
        return weight
    return LoraWeight(weight.a.astype(dtype), weight.b.astype(dtype), weight.scale)


def split(adapter: Adapter) -> tuple[Tree, Tree]:
    """Returns (a and b of every site, scales): what is trained, and what never is.

    ``combine(*split(adapter))`` gives the adapter back.

    Args:
      adapter: an adapter or a library.
    """
    factors = lora_map(lambda w: {"a": w.a, "b": w.b}, adapter)
    return factors, lora_map(lambda w: w.scale, adapter)


def combine(factors: Tree, scales: Tree) -> Adapter:
    """The inverse of :func:`split`.

    Args:
      factors: ``{"a": a, "b": b}`` in the place of every site.
      scales: [...] in the place of every site.
    """
    return jax.tree.map(
        lambda scale, ab: LoraWeight(ab["a"], ab["b"], scale), scales, factors
    )


def count(adapter: Adapter) -> int:
    """Number of trainable parameters, that is of a and b (scale is never trained).

    Args:
      adapter: an adapter or a library.
    """
    return sum(w.a.size + w.b.size for w in sites(adapter).values())
