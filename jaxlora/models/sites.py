"""Sites of a decoder's adapter beside its kernels: gains, biases, table and head.

Each is a :class:`LoraWeight` like any other, and merges as any other does:

``.../gain`` [L, 1, F]: the layer's output before its bias is multiplied by 1 + delta.
With DoRA (arXiv 2402.09353) delta is m / |W + s b a| - 1, known once W is.
``.../bias`` [L, 1, F]: delta is added to the layer's output.
Of the MLPs of a mixture both are [L, X, 1, F]; ``head_gain`` and ``head_bias`` [1, V]
are those of the head.
``embed/embedding`` [V, D]: the update of the table that looks tokens up.
``head`` [D, V]: the update of the head; of a tied head too, which is then a table plus
an update. Neither of the two changes the other.

Gains and biases are weighed by a route as the kernel beside them; table and head lie in
no layer and cannot be routed.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Adapter, LoraWeight
from jaxlora.tree import Tree

KERNEL, GAIN, BIAS = "kernel", "gain", "bias"
EMBEDDING, HEAD = lora.TABLE, lora.HEAD
_BESIDE = GAIN, BIAS, "embedding", HEAD
_OF_HEAD = {KERNEL: HEAD, GAIN: f"{HEAD}_{GAIN}", BIAS: f"{HEAD}_{BIAS}"}


def beside(site: str, part: str) -> str:
    """Returns the site of another part of the layer that a site belongs to.

    Args:
      site: of a kernel, gain or bias.
      part: one of these.

    >>> beside("layers/attn/q_proj/kernel", GAIN)
    'layers/attn/q_proj/gain'
    >>> beside(HEAD, GAIN)
    'head_gain'
    """
    if site in _OF_HEAD.values():
        return _OF_HEAD[part]
    return site.rpartition("/")[0] + f"/{part}"


def is_beside(site: str) -> bool:
    """Is it a gain or bias, which stands beside a kernel?

    Args:
      site: its name.
    """
    return _part(site) in (GAIN, BIAS)


def is_bias(site: str) -> bool:
    """Is it a bias?

    Args:
      site: its name.
    """
    return _part(site) == BIAS


def of_head(adapter: Adapter | None) -> dict[str, LoraWeight]:
    """Returns what an adapter has of the head: a kernel's update, a gain, a bias.

    Args:
      adapter: one adapter, or None.
    """
    adapter = adapter or {}
    return {part: adapter[x] for part, x in _OF_HEAD.items() if x in adapter}


def kernels(adapter: Adapter) -> Adapter:
    """Returns the sites that gates see: an adapter or library of kernels alone.

    Args:
      adapter: an adapter or a library.
    """
    flat = lora.sites(adapter)
    if all(_part(site) == KERNEL for site in flat):
        return adapter
    return named.unflatten({x: w for x, w in flat.items() if _part(x) == KERNEL})


def outside(adapter: Adapter | None) -> tuple[str, ...]:
    """Returns those of the sites of table and head that an adapter has.

    Args:
      adapter: an adapter, a library, or None.
    """
    flat = {} if adapter is None else lora.sites(adapter)
    return tuple(site for site in (EMBEDDING, HEAD) if site in flat)


def check(base: Tree, adapter: Adapter, experts: int | None = None) -> None:
    """Refuses an adapter or library of ``experts`` that does not fit a decoder's base.

    Args:
      base: params; arrays, or shapes of arrays.
      adapter: an adapter, or a library of ``experts``.
      experts: E of a library; None for a single adapter.

    Raises:
      ValueError: as :func:`jaxlora.lora.check`; also if a gain or bias has no kernel
        beside it, or a library has sites that no route can reach.
    """
    flat = lora.sites(adapter)
    others = {x for x in flat if is_beside(x) or x in (EMBEDDING, HEAD)}
    if not others:
        return lora.check(base, adapter, experts)
    leaves = named.flatten(base)
    table = leaves.get(EMBEDDING)
    for site in others:
        if site in (EMBEDDING, HEAD):
            _check_outside(site, table, experts)
            lora.check_shapes(site, flat[site], shape_of(site, leaves), experts)
            continue
        kernel = beside(site, KERNEL)
        if kernel not in flat or (kernel not in leaves and kernel != HEAD):
            raise ValueError(
                f"The adapter has a site {site!r} without {kernel!r}, expected both: "
                f"it is a part of that layer's update."
            )
        *lead, _, f = shape_of(kernel, leaves)
        lora.check_shapes(site, flat[site], (*lead, 1, f), experts)
    rest = {site: w for site, w in flat.items() if site not in others}
    if rest:
        lora.check(base, named.unflatten(rest), experts)
    return None


def shape_of(site: str, leaves: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the shape of what a site updates; a tied head is the table, turned.

    Args:
      site: of a kernel, the table or the head.
      leaves: of the base.
    """
    shape = tuple(leaves[EMBEDDING if site == HEAD else site].shape)
    return shape[::-1] if site == HEAD else shape


def _check_outside(site: str, table: Any, experts: int | None) -> None:
    if table is None:
        raise ValueError(
            f"The adapter has a site {site!r}, expected a base with {EMBEDDING!r}."
        )
    if experts is not None:
        raise ValueError(
            f"The adapters have a site {site!r}, which lies in no layer: a route "
            f"weighs experts within layers only; merge these adapters instead."
        )


def check_layers(adapter: Adapter | None, what: str) -> None:
    """Refuses an adapter of table or head where only layers are read.

    Args:
      adapter: an adapter, or None.
      what: reads layers only.

    Raises:
      ValueError: naming the site.
    """
    if outside(adapter):
        raise ValueError(
            f"The adapter has a site {outside(adapter)[0]!r}, and {what} reads "
            f"adapters of linear layers only; leave that site out, or fuse the adapter "
            f"first."
        )


def check_kernels(adapter: Adapter, what: str) -> None:
    """Refuses an adapter of more than kernels.

    Args:
      adapter: an adapter.
      what: is of kernels only.

    Raises:
      ValueError: naming the site.
    """
    odd = [site for site in lora.sites(adapter) if _part(site) in _BESIDE]
    if odd:
        raise ValueError(
            f"The adapter has a site {odd[0]!r} (of DoRA, a bias, embedding or head), "
            f"and {what} are of adapters of linear layers alone; leave that part out."
        )


def lookup(weight: LoraWeight, tokens: jax.Array) -> jax.Array:
    """Returns the rows of the table's update, [B, T, D].

    Args:
      weight: a [V, R], b [R, D], scale [].
      tokens: [B, T].
    """
    low = weight.a[tokens.reshape(-1)] * weight.scale.astype(weight.a.dtype)
    return (low @ weight.b).reshape(*tokens.shape, -1)


def of_leaf(site: str, adapted: Mapping[str, LoraWeight]) -> dict[str, LoraWeight]:
    """Returns the sites of an adapter that change a leaf of the base.

    Args:
      site: of the leaf.
      adapted: every site of the adapter.
    """
    product = _part(site) in (KERNEL, HEAD)
    parts = (site, beside(site, GAIN)) if product else (site,)
    return {name: adapted[name] for name in parts if name in adapted}


def fused(leaf: jax.Array, site: str, adapted: Mapping[str, LoraWeight]) -> jax.Array:
    """Returns a leaf of the base with its updates, rounded once to its type.

    Args:
      leaf: [..., D, F], or [..., F] of a bias; of one layer, or of all.
      site: of the leaf.
      adapted: sites of the adapter, of as many layers.
    """
    weight = adapted.get(site)
    product = _part(site) in (KERNEL, HEAD)
    gain = adapted.get(beside(site, GAIN)) if product else None
    if weight is not None and gain is None and _part(site) != BIAS:
        return lora.fuse_kernel(leaf, weight)
    total = leaf.astype(jnp.float32)
    if _part(site) == BIAS and weight is not None:
        total = total + lora.delta(weight)[..., 0, :]
        return total.astype(leaf.dtype)
    if gain is not None:
        total = total * (1.0 + lora.delta(gain))
    if weight is not None:
        total = total + lora.delta(weight)
    return total.astype(leaf.dtype)


def _part(site: str) -> str:
    last = site.rpartition("/")[2]
    return last.removeprefix(f"{HEAD}_") if site in _OF_HEAD.values() else last
