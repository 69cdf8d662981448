"""Reductions, which end a chain: E experts become one. The linear ones live here.

The exact mean and sum are task arithmetic (Ilharco et al., arXiv 2212.04089) on deltas,
held as concatenated factors, which PEFT calls ``cat``. The factor mean is what mttl and
many others compute as the "uniform" average (Ostapenko et al., arXiv 2405.11157); it is
another method, with cross terms and shrunken deltas, and is named so.

Write one of your own as a frozen dataclass with a ``leaf``; see the package's README.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxlora import spectrum
from jaxlora.lora import LoraWeight

Weights: TypeAlias = ArrayLike | Sequence[float]
"""One number for each expert, [E]."""

Data: TypeAlias = Literal["free", "own", "target"]
"""What a method must see: nothing, the experts' own data, or that of the target."""

CANCELLED = 1e-6
"""Weights whose sum is below this share of their absolute sum cannot be normalised."""


@dataclasses.dataclass(frozen=True)
class Reduction:
    """Makes one matrix of E, at one site and layer. Subclasses implement ``leaf``.

    An expert of weight 0 is absent: its values are zeros, and whatever is counted or
    averaged must leave it out.
    """

    data: ClassVar[Data] = "free"
    """What the method must see."""
    draws: ClassVar[bool] = False
    """Whether the result depends on the key."""
    homogeneous: ClassVar[bool] = True
    """Whether twice the deltas give twice the result."""

    def check(self, weights: np.ndarray) -> None:
        """Refuses weights [E], finite numbers, that the method cannot take.

        Raises:
          ValueError: naming the weights and what is expected.
        """

    def leaf(
        self,
        values: jax.Array,
        weights: jax.Array,
        key: jax.Array | None,
        data: jax.Array | None,
    ) -> jax.Array:
        """Returns [M, N] for values [E, M, N] and weights [E], in float32.

        Args:
          values: experts in the coordinates of the chain's space.
          weights: of any sign; 0 is absent.
          key: of this site and layer; None if the merge was given none.
          data: this leaf's [E, ...], or None.
        """
        raise NotImplementedError

    def factors(
        self, experts: LoraWeight, weights: jax.Array, data: jax.Array | None
    ) -> LoraWeight | None:
        """The exact result at one site as factors, or None if it has no low rank.

        Args:
          experts: a [E, ..., D, R].
          weights: [E].
          data: [E, ...], or None.
        """
        return None


@dataclasses.dataclass(frozen=True)
class Linear(Reduction):
    """A sum ``sum_e c_e x_e`` whose coefficients depend on inner products alone.

    Subclasses implement ``coefficients``. On deltas the result is exact and of low
    rank, and no dense matrix is formed.
    """

    def coefficients(self, gram: jax.Array, weights: jax.Array) -> jax.Array:
        """Returns the coefficients c, [E, ...].

        Args:
          gram: inner products ``<x_e, x_f>``, [..., E, E].
          weights: [E], of any sign; 0 is absent.
        """
        raise NotImplementedError

    def leaf(self, values, weights, key, data):
        """The sum of values."""
        del key, data
        # The Gram matrix of dense values; ``factors`` has it without them.
        flat = values.reshape(values.shape[0], -1)
        gram = jnp.matmul(flat, flat.T, precision="highest")
        return over_experts(self.coefficients(gram, weights), values)

    def factors(self, experts, weights, data):
        """The exact sum, of rank E * R."""
        del data
        present = absent_removed(experts, weights)
        return concatenate(present, self.coefficients(_gram(present), weights))


@dataclasses.dataclass(frozen=True)
class WeightedSum(Linear):
    """Coefficients that are the weights, or their shares."""

    normalize: bool
    """Divide the weights by their sum."""

    def check(self, weights: np.ndarray) -> None:
        """Refuses weights to be normalised that sum to 0."""
        if self.normalize and abs(weights.sum()) <= CANCELLED * abs(weights).sum():
            raise ValueError(
                f"Weights {weights.tolist()} sum to {weights.sum():.3g}, and a mean "
                f"divides by their sum; a weighted sum takes any weights."
            )

    def coefficients(self, gram: jax.Array, weights: jax.Array) -> jax.Array:
        """``w_e``, or ``w_e / sum(w)``."""
        shares = weights / jnp.sum(weights) if self.normalize else weights
        lead = gram.ndim - 2
        return jnp.broadcast_to(column(shares, lead), (*shares.shape, *gram.shape[:-2]))


@dataclasses.dataclass(frozen=True)
class ScaleOnly(Linear):
    """One expert at the coefficient that a mean would give it, and nothing else."""

    expert: int = 0
    """Its place in the library."""

    def check(self, weights: np.ndarray) -> None:
        """Refuses an expert that is not there, or weights that sum to 0."""
        if not 0 <= self.expert < len(weights):
            raise ValueError(
                f"The expert to keep is {self.expert}, expected 0 to "
                f"{len(weights) - 1}: the library has {len(weights)} experts."
            )
        WeightedSum(normalize=True).check(weights)

    def coefficients(self, gram: jax.Array, weights: jax.Array) -> jax.Array:
        """``w_e / sum(w)`` for the expert, 0 for all others."""
        kept = jnp.arange(weights.shape[0]) == self.expert
        return WeightedSum(True).coefficients(gram, weights) * column(
            kept.astype(jnp.float32), gram.ndim - 2
        )


def weighted_mean() -> Reduction:
    """Coefficients ``w_e / sum(w)``: the weights are relative, and may be negative.

    >>> weighted_mean().coefficients(jnp.eye(2), jnp.asarray([1.0, 3.0])).tolist()
    [0.25, 0.75]
    """
    return WeightedSum(normalize=True)


def weighted_sum() -> Reduction:
    """Coefficients ``w_e``: by default every expert is added in full.

    >>> weighted_sum().coefficients(jnp.eye(2), jnp.asarray([1.0, -0.5])).tolist()
    [1.0, -0.5]
    """
    return WeightedSum(normalize=False)


def scale_only(expert: int = 0) -> Reduction:
    """A control: what the shrinking of a mean does to one expert, alone.

    Args:
      expert: its place in the library, from 0.

    >>> scale_only(1).coefficients(jnp.eye(2), jnp.asarray([1.0, 3.0])).tolist()
    [0.0, 0.75]
    """
    return ScaleOnly(expert=expert)


def concatenate(experts: LoraWeight, coefficients: jax.Array) -> LoraWeight:
    """The exact ``sum_e c_e delta_e`` of one site: factors of rank E * R, scale 1.

    ``a = [a_1 ... a_E]`` and ``b = [c_1 s_1 b_1; ...; c_E s_E b_E]``.

    Args:
      experts: a [E, ..., D, R].
      coefficients: [E, ...].
    """
    a, b = experts.a.astype(jnp.float32), experts.b.astype(jnp.float32)
    b = (coefficients * experts.scale.astype(jnp.float32))[..., None, None] * b
    # E goes beside R: columns of a and rows of b are then grouped by expert.
    a, b = jnp.moveaxis(a, 0, -2), jnp.moveaxis(b, 0, -3)
    *lead, d, e, r = a.shape
    return LoraWeight(
        a=a.reshape(*lead, d, e * r),
        b=b.reshape(*lead, e * r, b.shape[-1]),
        scale=jnp.ones(tuple(lead), jnp.float32),
    )


def beside(x: jax.Array) -> jax.Array:
    """Experts' columns side by side, [..., M, E * K].

    Args:
      x: [E, ..., M, K].

    >>> beside(jnp.ones((3, 2, 5, 4))).shape
    (2, 5, 12)
    """
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-2], -1)


def absent_removed(experts: LoraWeight, weights: jax.Array) -> LoraWeight:
    """Zeros in the place of experts of weight 0, whatever they hold; float32.

    Args:
      experts: a [E, ..., D, R].
      weights: [E].
    """

    def keep(x: jax.Array) -> jax.Array:
        # Selected, not multiplied: 0 * inf is nan, and an absent expert must be absent.
        return jnp.where(column(weights != 0, x.ndim - 1), x.astype(jnp.float32), 0.0)

    return jax.tree.map(keep, experts)


def over_experts(coefficients: jax.Array, values: jax.Array) -> jax.Array:
    """``sum_e c_e x_e``.

    Args:
      coefficients: c, [E].
      values: x, [E, ...].

    >>> over_experts(jnp.asarray([1.0, 2.0]), jnp.ones((2, 3))).tolist()
    [3.0, 3.0, 3.0]
    """
    # A product, not a sum over the first axis, which XLA:CPU runs ten times slower.
    return jnp.tensordot(coefficients, values, 1, precision="highest")


def column(per_expert: jax.Array, axes: int) -> jax.Array:
    """The same numbers with axes of length 1 behind, to broadcast.

    Args:
      per_expert: [E].
      axes: how many axes are added.

    >>> column(jnp.ones(3), 2).shape
    (3, 1, 1)
    """
    return per_expert.reshape(-1, *[1] * axes)


def _gram(experts: LoraWeight) -> jax.Array:
    """``<delta_e, delta_f>``, [..., E, E]."""
    rows = jax.vmap(jax.vmap(spectrum.inner, (None, 0)), (0, None))(experts, experts)
    return jnp.moveaxis(rows, (0, 1), (-2, -1))
