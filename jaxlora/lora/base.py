"""An adapter beside its base: does it fit, and the sum of both."""

import jax
import jax.numpy as jnp

from jaxlora import tree as named
from jaxlora.lora.weight import Adapter, LoraWeight, delta, is_lora, sites
from jaxlora.tree import Tree


def fuse(base: Tree, adapter: Adapter) -> Tree:
    """Adds every delta into its kernel; the sum is rounded once, to the kernel's dtype.

    Args:
      base: params.
      adapter: a single adapter of sites of the base.

    Raises:
      ValueError: if the adapter names a kernel that the base lacks, or shapes differ.
    """
    check(base, adapter)
    adapted = sites(adapter)

    def add(name: str, leaf: jax.Array) -> jax.Array:
        return fuse_kernel(leaf, adapted[name]) if name in adapted else leaf

    return named.map_named(add, base)


@jax.jit
def fuse_kernel(kernel: jax.Array, weight: LoraWeight) -> jax.Array:
    """Adds a delta into one kernel, as :func:`fuse` does.

    Args:
      kernel: [..., D, F].
      weight: a [..., D, R], b [..., R, F], scale [...].

    >>> w = LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 3)), jnp.asarray(0.5))
    >>> fuse_kernel(jnp.ones((2, 3)), w).tolist()
    [[1.5, 1.5, 1.5], [1.5, 1.5, 1.5]]
    """
    if kernel.ndim > 2:  # one layer after another: float32 copies are of one layer
        return jax.lax.map(lambda pair: fuse_kernel(*pair), (kernel, weight))
    return (kernel.astype(jnp.float32) + delta(weight)).astype(kernel.dtype)


def check(base: Tree, adapter: Adapter, experts: int | None = None) -> None:
    """Refuses an adapter (or library of ``experts``) that does not fit ``base``.

    Flax ignores a variable at a path that no module reads, so a misspelt path would
    be a silent no-op; this is where it becomes an error.

    Args:
      base: params; arrays, or shapes of arrays.
      adapter: an adapter, or a library of ``experts``.
      experts: E of a library; None for a single adapter.

    Raises:
      ValueError: naming the site, what it got and what it expected.
    """
    kernels = named.flatten(base)
    adapted = sites(adapter)
    if not adapted:
        raise ValueError("The adapter is empty: it adapts no kernel of the base.")
    for name, weight in adapted.items():
        if not is_lora(weight):
            raise ValueError(
                f"Adapter leaf {name!r} is a {type(weight).__name__}, expected a "
                f"LoraWeight."
            )
        if name not in kernels:
            raise ValueError(
                f"The adapter has a site {name!r} that the base lacks; the base has "
                f"{', '.join(repr(k) for k in kernels if k.endswith('kernel'))}."
            )
        # A bias or an embedding has a path too, but no delta a @ b.
        shape = tuple(kernels[name].shape)
        if len(shape) < 2 or name.split("/")[-1] != "kernel":
            raise ValueError(
                f"Site {name!r} has the shape {shape} in the base, expected a kernel "
                f"[..., D, F]; only kernels take an adapter."
            )
        check_shapes(name, weight, shape, experts)


def check_shapes(
    name: str,
    weight: LoraWeight,
    kernel: tuple[int, ...],
    experts: int | None = None,
) -> None:
    """Refuses an update that has another shape than what it is added to.

    Args:
      name: of the site.
      weight: one update, or those of ``experts``.
      kernel: shape [..., D, F] of what it is added to.
      experts: E of a library; None for a single adapter.

    Raises:
      ValueError: naming the site, what it got and what it expected.
    """
    lead = () if experts is None else (experts,)
    *axes, d, f = kernel
    expected = (
        (*lead, *axes, d, weight.rank),
        (*lead, *axes, weight.rank, f),
        (*lead, *axes),
    )
    got = (weight.a.shape, weight.b.shape, jnp.shape(weight.scale))
    if got != expected:
        raise ValueError(
            f"Site {name!r} has a, b, scale of shapes {got}, expected {expected} for "
            f"a kernel of shape {kernel}"
            + ("." if experts is None else f" and {experts} experts.")
        )
