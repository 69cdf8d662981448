"""Merging by what the experts' own data say: RegMean and Fisher merging.

RegMean takes the second moments of each expert's inputs, Fisher the importance of each
parameter to each expert. Both come as arrays; on deltas both are exact, since the base
is common and drops out.

A delta is [D, F] here, inputs first; the papers' matrices are [F, D].

RegMean: Jin et al., Dataless Knowledge Fusion (arXiv 2212.09849).
Fisher: Matena and Raffel, Merging Models with Fisher-Weighted Averaging (2111.09832).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.lora import LoraWeight
from jaxlora.merge.geodesic import check_shares
from jaxlora.merge.linear import (
    Data,
    Reduction,
    absent_removed,
    beside,
    column,
    concatenate,
)
from jaxlora.spectrum import matmul, one_by_one


def regmean(off_diagonal: float = 0.9, ridge: float = 1e-6) -> Reduction:
    """RegMean: the delta whose outputs are nearest to each expert's on its own inputs.

    Minimises ``sum_e w_e E|x^T delta - x^T delta_e|^2`` over inputs x of expert e:
    ``(sum_e w_e G_e)^-1 sum_e w_e G_e delta_e`` with ``G_e = E[x x^T]``. ``factors``
    applies the matrices to a_e, exactly. The weights are relative.

    Needs the data of the experts' own tasks: for each kernel [..., D, F] an array
    ``G`` [E, ..., D, D], symmetric with no negative eigenvalue, such as
    ``einsum("end,enk->edk", x, x) / n``.

    fusion_bench scales by 1 in its function, by 0.1 to 0.95 in its configurations,
    uses 256 examples, and inverts without a ridge.

    Args:
      off_diagonal: multiplies the off-diagonal entries of each G_e, 0 to 1. At 1 the
        least squares is exact, but with fewer inputs than D it rests on the ridge.
      ridge: this share of the mean diagonal, over experts, is added to the diagonal of
        every G_e alike: one expert is given back as it is, and where no input reaches,
        the result is the weighted mean.

    Raises:
      ValueError: if off_diagonal is not between 0 and 1, or ridge is negative.

    >>> grams = jnp.asarray([[[1.0]], [[3.0]]])  # D = 1
    >>> values = jnp.asarray([[[4.0]], [[8.0]]])
    >>> regmean().leaf(values, jnp.ones(2), None, grams).round(4).tolist()
    [[7.0]]
    """
    if not 0 <= off_diagonal <= 1:
        raise ValueError(f"off_diagonal is {off_diagonal}, expected between 0 and 1.")
    if not ridge >= 0:
        raise ValueError(f"The ridge is {ridge}, expected 0 or more.")
    return _RegMean(off_diagonal, ridge)


def fisher(floor: float = 1e-6) -> Reduction:
    """Fisher merging: every entry is a mean, weighted by its importance to each expert.

    ``sum_e w_e F_e delta_e / sum_e w_e F_e``, entry by entry, where F_e is at least
    ``floor``. The weights are relative. Where all F_e are below the floor it is the
    weighted mean, so scale the F: squared gradients are often smaller than 1e-6.

    Needs the data of the experts' own tasks: for each kernel an array F
    [E, ..., D, F], no entry below 0, such as the mean squared gradient of the
    log-likelihood with respect to the *dense* kernel.

    The original takes the larger of F_e and the floor, as here (by default for the
    first model only); MergeLM and fusion_bench add the floor. All three first divide
    F_e by its norm over the whole model: the caller's task, as one site has no others.

    Args:
      floor: above 0.

    Raises:
      ValueError: if the floor is not above 0.

    >>> importance = jnp.asarray([[[1.0, 0.0]], [[3.0, 0.0]]])
    >>> values = jnp.asarray([[[4.0, 4.0]], [[8.0, 8.0]]])
    >>> fisher().leaf(values, jnp.ones(2), None, importance).tolist()
    [[7.0, 6.0]]
    """
    if not floor > 0:
        raise ValueError(
            f"The floor is {floor}, expected above 0: entries that matter to no expert "
            f"would be 0 / 0."
        )
    return _Fisher(floor)


@dataclasses.dataclass(frozen=True)
class _RegMean(Reduction):
    data: ClassVar[Data] = "own"
    off_diagonal: float
    ridge: float

    def check(self, weights: np.ndarray) -> None:
        check_shares("regmean", weights)

    def leaf(self, values, weights, key, data):
        del key
        grams = self._grams(data, weights, values.shape[:-1])
        return _solve(jnp.sum(grams, 0), jnp.sum(matmul(grams, values), 0))

    def factors(self, experts, weights, data):
        present = absent_removed(experts, weights)
        grams = self._grams(data, weights, present.a.shape[:-1])
        # The solution is applied to each a_e, so the result keeps rank E * R.
        joined = concatenate(present, jnp.ones_like(present.scale))
        a = _solve(jnp.sum(grams, 0), beside(matmul(grams, present.a)))
        return LoraWeight(a, joined.b, joined.scale)

    def _grams(self, data, weights, shape) -> jax.Array:
        """``w_e G_e``, [E, ..., D, D], with the ridge."""
        grams = _present_data("regmean", data, weights, (*shape, shape[-1]))
        eye = jnp.eye(shape[-1], dtype=jnp.float32)
        diagonal = jnp.diagonal(grams, axis1=-2, axis2=-1)
        mass = column(weights, diagonal.ndim - 1)
        # A ridge common to all: each expert alone is then given back as it is.
        size = jnp.sum(mass * diagonal, 0).mean(-1) / jnp.sum(weights)
        ridge = self.ridge * jnp.where(size > 0, size, 1.0)[..., None, None]
        diagonals = diagonal[..., None] * jnp.broadcast_to(eye, grams.shape)
        grams = self.off_diagonal * grams + (1 - self.off_diagonal) * diagonals
        added = ridge * jnp.broadcast_to(eye, grams.shape[1:])
        return mass[..., None] * (grams + added[None])


@dataclasses.dataclass(frozen=True)
class _Fisher(Reduction):
    data: ClassVar[Data] = "own"
    floor: float

    def check(self, weights: np.ndarray) -> None:
        check_shares("fisher", weights)

    def leaf(self, values, weights, key, data):
        del key
        importance = _present_data("fisher", data, weights, values.shape)
        importance = column(weights, 2) * jnp.maximum(importance, self.floor)
        return jnp.sum(importance * values, 0) / jnp.sum(importance, 0)


def _present_data(method: str, data, weights: jax.Array, shape) -> jax.Array:
    """Float32, and zeros where an expert is absent, whatever its data hold."""
    got = None if data is None else jnp.shape(data)
    if got != shape:
        raise ValueError(
            f"{method} got data of shape {got}, expected {shape} for one site: "
            f"{'input Grams' if method == 'regmean' else 'importances'} of every "
            f"expert, given to the merge as data={{site name: array}}."
        )
    # An absent expert's data may be anything, also NaN.
    there = column(weights != 0, len(shape) - 1)
    return jnp.where(there, jnp.asarray(data).astype(jnp.float32), 0.0)


@one_by_one
def _solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """``matrix^-1 right`` for symmetric positive matrices, by Cholesky."""
    lower = jnp.linalg.cholesky(matrix)
    solve = jax.lax.linalg.triangular_solve
    half = solve(lower, right, left_side=True, lower=True)
    return solve(lower, half, left_side=True, lower=True, transpose_a=True)
