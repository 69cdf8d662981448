"""Taking a general expert out of every expert, before they are routed (GenKnowSub).

Bagherifard et al., GenKnowSub (arXiv 2505.10939): what all experts share is general
knowledge; ``delta_e - delta_g`` leaves what is each one's own. The authors' code and
PEFT subtract *factors*, which adds the general update back with cross terms:
``(a_e - a_g)(b_e - b_g)`` contains ``+ a_g b_g``. Both forms are here.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Library, LoraWeight
from jaxlora.route.deltas import live

Form = Literal["delta", "factor"]


def subtract_general(
    library: Library, general: Library | None = None, *, form: Form = "delta"
) -> Library:
    """Subtracts the mean of general experts from every expert.

    ``delta``: ``delta_e - mean_g delta_g``, exact, of rank R + G * R_g.
    ``factor``: ``scale_e (a_e - mean_g a_g) (b_e - mean_g b_g)``, of rank R; it depends
    on the gauge of the experts. The mean at a site is of those whose delta is not zero
    there: experts that only fill up a library change nothing.

    Args:
      library: [E, ...].
      general: [G, ...]; by default the library itself, whose mean is then taken out.
        Sites that it does not adapt stay as they are.
      form: what is subtracted.

    Returns:
      A library [E, ...]. An expert whose delta is zero somewhere stays zero there.

    Raises:
      ValueError: if either is no library, or factors of different rank are subtracted.

    >>> w = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 4)), jnp.array([1.0, 3.0]))
    >>> rest = subtract_general({"kernel": w})["kernel"]
    >>> lora.delta(rest)[:, 0, 0].tolist()
    [-1.0, 1.0]
    """
    lora.num_experts(library)
    common = lora.sites(library if general is None else general)
    lora.num_experts(library if general is None else general)

    def subtract(name: str, weight: LoraWeight) -> LoraWeight:
        if name not in common:
            return weight
        rest = (_delta if form == "delta" else _factor)(name, weight, common[name])
        # An expert that does not adapt a site must not become minus the general one.
        alive = live(weight)[..., None, None]
        return LoraWeight(rest.a, jnp.where(alive, rest.b, 0), rest.scale)

    return named.map_named(subtract, library, is_leaf=lora.is_lora)


def _delta(name: str, weight: LoraWeight, general: LoraWeight) -> LoraWeight:
    del name
    experts, share = weight.a.shape[0], _shares(general)
    # A difference of low-rank deltas is exact when factors are put side by side.
    wide = jnp.concatenate(list(general.a), axis=-1)  # [L, D, G * R]
    scale = (-share * general.scale.astype(share.dtype))[..., None, None]
    tall = jnp.concatenate(list(scale.astype(general.b.dtype) * general.b), axis=-2)
    scaled = weight.scale[..., None, None].astype(weight.b.dtype) * weight.b

    def every(x: jax.Array) -> jax.Array:
        return jnp.broadcast_to(x[None], (experts, *x.shape)).astype(weight.a.dtype)

    return LoraWeight(
        a=jnp.concatenate([weight.a, every(wide)], axis=-1),
        b=jnp.concatenate([scaled, every(tall)], axis=-2),
        scale=jnp.ones_like(weight.scale),
    )


def _factor(name: str, weight: LoraWeight, general: LoraWeight) -> LoraWeight:
    if weight.rank != general.rank:
        raise ValueError(
            f"Site {name!r}: experts have rank {weight.rank} and general experts rank "
            f"{general.rank}, but factors are subtracted entry by entry; use the form "
            f"'delta', which takes any rank."
        )
    share = _shares(general)[..., None, None]

    def mean(x: jax.Array) -> jax.Array:
        return jnp.sum(share * x.astype(share.dtype), axis=0, keepdims=True)

    return LoraWeight(
        a=weight.a - mean(general.a).astype(weight.a.dtype),
        b=weight.b - mean(general.b).astype(weight.b.dtype),
        scale=weight.scale,
    )


def _shares(general: LoraWeight) -> jax.Array:
    """What each general expert counts at each place, [G, L]: equal, if it is live."""
    alive = live(general).astype(jnp.float32)
    return alive / jnp.maximum(jnp.sum(alive, axis=0, keepdims=True), 1.0)
