"""Several adapters stacked on an expert axis, ranks that differ, layers left out."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.lora.weight import Adapter, Library, LoraWeight, lora_map, sites


def stack(adapters: Sequence[Adapter]) -> Library:
    """Stacks adapters on a new leading axis E, padded with zeros to a common rank.

    Args:
      adapters: E of them, of the same sites; ranks are padded to the largest.

    Raises:
      ValueError: if there is none, or two adapt different sites.
    """
    if not adapters:
        raise ValueError("Cannot stack an empty sequence of adapters.")
    if isinstance(adapters, Mapping):
        raise ValueError(
            f"Got one tree with {', '.join(map(repr, adapters))} to stack, expected a "
            f"list of adapters: [adapter] is one."
        )
    first = set(sites(adapters[0]))
    for i, adapter in enumerate(adapters):
        if set(sites(adapter)) != first:
            odd = sorted(set(sites(adapter)) ^ first)
            raise ValueError(
                f"Adapter {i} adapts other sites than adapter 0; they differ in "
                f"{', '.join(odd[:4])}."
            )
    rank = max(w.rank for adapter in adapters for w in sites(adapter).values())
    # Ranks may differ; an array with an expert axis needs one rank.
    padded = [pad(adapter, rank) for adapter in adapters]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *padded)


def unstack(library: Library) -> list[Adapter]:
    """The inverse of :func:`stack`, padding kept.

    Args:
      library: leaves [E, ...].
    """
    return [
        jax.tree.map(lambda x, i=i: x[i], library) for i in range(num_experts(library))
    ]


def num_experts(library: Library) -> int:
    """Returns E, the length of the leading axis.

    Args:
      library: leaves [E, ...].

    Raises:
      ValueError: if the library is empty or its leaves disagree on E.
    """
    sizes = {jnp.shape(w.scale)[:1] for w in sites(library).values()}
    if len(sizes) != 1 or sizes <= {(), (0,)}:
        raise ValueError(
            f"Not a library: leading axes are {sorted(sizes)}, expected one common "
            f"axis of one expert or more; stack() makes a library of adapters."
        )
    return sizes.pop()[0]


def pad(adapter: Adapter, rank: int) -> Adapter:
    """Widens every site to ``rank`` with zero columns; the delta stays the same.

    Zeros add nothing, but a longer sum may be added up in another order: the delta is
    equal up to the last bits of float32.

    Args:
      adapter: an adapter or a library.
      rank: R' of the result, at least the rank of every site.

    Raises:
      ValueError: if a site already has a higher rank.

    >>> w = LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 3)), jnp.asarray(0.5))
    >>> pad({"kernel": w}, 4)["kernel"].b.shape
    (4, 3)
    """

    def widen(weight: LoraWeight) -> LoraWeight:
        extra = rank - weight.rank
        if extra < 0:
            raise ValueError(
                f"Cannot pad a site of rank {weight.rank} down to {rank}; "
                f"re-rank it by a merge with rank={rank}."
            )
        lead = [(0, 0)] * (weight.a.ndim - 2)
        # What is on the host stays there.
        xp: Any = np if isinstance(weight.a, np.ndarray) else jnp
        return LoraWeight(
            a=xp.pad(weight.a, [*lead, (0, 0), (0, extra)]),
            b=xp.pad(weight.b, [*lead, (0, extra), (0, 0)]),
            scale=weight.scale,
        )

    return lora_map(widen, adapter)


def confine(adapter: Adapter, layers: jax.Array) -> Adapter:
    """Sets ``a`` and ``b`` of all other layers to 0, so that they stay there.

    Where both factors are 0 so are their gradients: what trains is the rest.

    Args:
      adapter: sites [L, D, R] of stacked layers.
      layers: bool [L], those that are kept.

    Raises:
      ValueError: if a site has no axis of L layers.

    >>> site = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 3)), jnp.ones(2))
    >>> confine({"kernel": site}, jnp.array([True, False]))["kernel"].a[:, 0, 0]
    Array([1., 0.], dtype=float32)
    """

    def site(x: LoraWeight) -> LoraWeight:
        if x.a.ndim != 3 or len(x.a) != len(layers):
            raise ValueError(
                f"A site has a of shape {x.a.shape}, expected [{len(layers)}, D, R]: "
                f"only what stands in layers can be confined to some of them."
            )
        kept = layers[:, None, None]
        a, b = x.a * kept.astype(x.a.dtype), x.b * kept.astype(x.b.dtype)
        return LoraWeight(a, b, x.scale)

    return lora_map(site, adapter)
