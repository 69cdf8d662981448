"""Linear merging: weights into coefficients, and coefficients into one adapter.

The exact mean and sum are task arithmetic (Ilharco et al., arXiv 2212.04089) on deltas,
held as concatenated factors, which PEFT calls ``cat``. The factor mean is what mttl and
many others compute as the "uniform" average (Ostapenko et al., arXiv 2405.11157); it is
another method, with cross terms and shrunken deltas, and is named so.
"""

import dataclasses
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxlora.lora import LoraWeight

Weights: TypeAlias = ArrayLike | Sequence[float]
"""One number for each expert, [E]."""

CANCELLED = 1e-6
"""Weights whose sum is below this share of their absolute sum cannot be normalised."""


@dataclasses.dataclass(frozen=True)
class Reduction:
    """Ends a chain: turns weights [E] into the coefficients [E] of a linear sum."""

    normalize: bool
    """Divide the weights by their sum."""

    def coefficients(self, weights: Weights | None, experts: int) -> jax.Array:
        """Returns [E], float32; ``None`` means a weight of 1 for every expert.

        Raises:
          ValueError: if there are not E weights. Outside jit (where values are known)
            also if one is not finite, or they sum to 0 and are to be normalised.
        """
        if weights is None:
            weights = np.ones(experts)
        leaves = jax.tree.leaves(weights)
        known = not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        array = jnp.asarray(weights, jnp.float32)
        if array.shape != (experts,):
            raise ValueError(
                f"Weights have shape {array.shape}, expected ({experts},): one weight "
                f"for each of the {experts} experts of the library."
            )
        if known:
            self._check(np.asarray(weights, np.float64))
        return array / jnp.sum(array) if self.normalize else array

    def _check(self, weights: np.ndarray) -> None:
        if not np.isfinite(weights).all():
            raise ValueError(
                f"Weights are {weights.tolist()}, expected finite numbers; give an "
                f"expert the weight 0 to leave it out."
            )
        if self.normalize and abs(weights.sum()) <= CANCELLED * abs(weights).sum():
            raise ValueError(
                f"Weights {weights.tolist()} sum to {weights.sum():.3g}, and a mean "
                f"divides by their sum; a weighted sum takes any weights."
            )


def weighted_mean() -> Reduction:
    """Coefficients ``w_e / sum(w)``: the weights are relative, and may be negative.

    >>> weighted_mean().coefficients([1.0, 3.0], 2).tolist()
    [0.25, 0.75]
    """
    return Reduction(normalize=True)


def weighted_sum() -> Reduction:
    """Coefficients ``w_e``: by default every expert is added in full.

    >>> weighted_sum().coefficients([1.0, -0.5], 2).tolist()
    [1.0, -0.5]
    """
    return Reduction(normalize=False)


def in_delta(experts: LoraWeight, coefficients: jax.Array) -> LoraWeight:
    """The exact ``sum_e c_e delta_e`` of one site: factors of rank E * R, scale 1.

    ``a = [a_1 ... a_E]`` and ``b = [c_1 s_1 b_1; ...; c_E s_E b_E]``. Experts whose
    coefficient is 0 give zero columns and rows, whatever they hold.
    """
    a, b = _present(experts, coefficients)
    b = _column(coefficients, b) * b
    a, b = jnp.moveaxis(a, 0, -2), jnp.moveaxis(b, 0, -3)
    *lead, d, e, r = a.shape
    return LoraWeight(
        a=a.reshape(*lead, d, e * r),
        b=b.reshape(*lead, e * r, b.shape[-1]),
        scale=jnp.ones(tuple(lead), jnp.float32),
    )


def in_factor(experts: LoraWeight, coefficients: jax.Array) -> LoraWeight:
    """``a = sum_e c_e a_e`` and ``b = sum_e c_e s_e b_e`` of one site, scale 1.

    Every expert's scale is folded into its own b first, so that experts may differ in
    scale. The delta is ``sum_{e,f} c_e c_f s_f a_e b_f``: each expert's own part is
    weighted by c_e^2 (its sign is lost), and E(E-1) cross terms pair the a of one with
    the b of another. It depends on the gauge: rotating an expert's rank basis changes
    the result and not the expert.
    """
    a, b = _present(experts, coefficients)
    return LoraWeight(
        a=jnp.sum(_column(coefficients, a) * a, axis=0),
        b=jnp.sum(_column(coefficients, b) * b, axis=0),
        scale=jnp.ones(experts.scale.shape[1:], jnp.float32),
    )


def _present(
    experts: LoraWeight, coefficients: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Selected, not multiplied: 0 * inf is nan, and an absent expert must be absent.
    a, b = experts.a.astype(jnp.float32), experts.b.astype(jnp.float32)
    b = experts.scale.astype(jnp.float32)[..., None, None] * b
    keep = coefficients != 0
    return jnp.where(_column(keep, a), a, 0.0), jnp.where(_column(keep, b), b, 0.0)


def _column(per_expert: jax.Array, like: jax.Array) -> jax.Array:
    return per_expert.reshape(-1, *[1] * (like.ndim - 1))
