"""Merging by least squares over inputs: WUDI, RegMean and Fisher merging.

Each asks for one delta that does to some inputs what every expert would have done.
WUDI takes the experts' own deltas for their inputs and needs no data. RegMean takes the
inputs' second moments, Fisher the parameters' importance: both see the experts' own
data, as arrays. On deltas all are exact, since the base is common and drops out.

A delta is [D, F] here, inputs first; the papers' matrices are [F, D].

WUDI: Cheng et al., Whoever Started the Interference Should End It (arXiv 2503.08099).
RegMean: Jin et al., Dataless Knowledge Fusion (arXiv 2212.09849).
Fisher: Matena and Raffel, Merging Models with Fisher-Weighted Averaging (2111.09832).
"""

import dataclasses
from typing import ClassVar, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlora import spectrum
from jaxlora.lora import LoraWeight
from jaxlora.merge.geodesic import check_shares
from jaxlora.merge.linear import Data, Reduction, absent_removed, column, concatenate
from jaxlora.merge.spectral import (
    TOLERANCE,
    Svd,
    as_weight,
    beside,
    check_tolerance,
    live,
    matmul,
    one_by_one,
    thin_svd,
)

Side: TypeAlias = Literal["inputs", "outputs"]
"""The side of a delta on which experts must not disturb each other."""


def wudi(side: Side = "inputs", tolerance: float = TOLERANCE) -> Reduction:
    """WUDI in closed form: the least-squares minimum that its peers step towards.

    Minimises ``sum_e w_e |delta_e^T (x - delta_e)|^2 / |delta_e|^2`` over x. With
    ``G_e = delta_e delta_e^T / |delta_e|^2`` [D, D] the least x is
    ``(sum_e w_e G_e)^+ sum_e w_e G_e delta_e``. (The paper's tau = x^T is [F, D], and
    its loss ``|(tau - tau_e) tau_e^T|^2`` the same number.) It is solved through an SVD
    of ``[sqrt(w_e) delta_e / |delta_e|]``, which squares no condition number.

    The weights are relative. Where the experts' input directions are independent the
    loss falls to 0 whatever the weights, and each expert is kept in full on its own
    inputs: ``U_e^T x = U_e^T delta_e``. The result has rank E * R at most, and does not
    depend on an orthonormal change of coordinates.

    Args:
      side: ``outputs`` is the same on the transposed deltas, as in mttl.
      tolerance: singular values below this share of the largest are null.

    Raises:
      ValueError: if the side is unknown, or tolerance is not between 0 and 1.

    >>> values = jnp.asarray([[[2.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]]])
    >>> wudi().leaf(values, jnp.asarray([1.0, 5.0]), None, None).round(4).tolist()
    [[2.0, 1.0], [0.0, 3.0]]
    """
    return _Wudi(side=_check_side(side), tolerance=check_tolerance(tolerance))


def wudi_steps(
    steps: int = 300,
    learning_rate: float = 1e-5,
    divide: bool = False,
    side: Side = "inputs",
) -> Reduction:
    """WUDI as its peers run it: k steps of Adam from the weighted sum.

    Starts at ``sum_e w_e delta_e`` and descends the loss of :func:`wudi`. Adam moves no
    entry by much more than steps * learning_rate (3e-3), whatever the size of the
    deltas: on large deltas the result is hardly more than their sum. Adam also works
    entry by entry, and so gives another result in every coordinates: ``delta`` is the
    peers' space, ``core`` is smaller and is another method.

    fusion_bench: 300 or 400 steps, no division. mttl stops after five steps that change
    the loss by less than 1e-4, which is not done here, divides by the number of
    experts, and works on [D, F] with the paper's formula for [F, D], hence on the
    outputs; its ``wudi_merge`` does so on a and b apart, its ``wudi_merge_after`` on
    a @ b without their scale, and without the division by ``|delta_e|^2``.

    Args:
      steps: at least 0.
      learning_rate: of Adam with betas 0.9 and 0.999 and epsilon 1e-8.
      divide: by the number of present experts, at the end.
      side: see :func:`wudi`.

    Raises:
      ValueError: if steps are negative, the learning rate is not positive, or the side
        is unknown.

    >>> values = jnp.ones((2, 2, 2))
    >>> x = wudi_steps(2, 0.1).leaf(values, jnp.ones(2), None, None)
    >>> round(float(x[0, 0]), 3)
    1.8
    """
    if steps < 0:
        raise ValueError(f"wudi_steps has {steps} steps, expected 0 or more.")
    if not learning_rate > 0:
        raise ValueError(f"The learning rate is {learning_rate}, expected above 0.")
    return _WudiSteps(steps, learning_rate, divide, _check_side(side))


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
class _Wudi(Reduction):
    side: Side
    tolerance: float

    def check(self, weights: np.ndarray) -> None:
        check_shares("wudi", weights)

    def leaf(self, values, weights, key, data):
        del key, data
        if self.side == "outputs":
            return matmul(*self._merge(thin_svd(values.mT), weights)).mT
        return matmul(*self._merge(thin_svd(values), weights))

    def factors(self, experts, weights, data):
        del data
        u, s, vt = spectrum.svd(absent_removed(experts, weights))
        if self.side == "outputs":
            a, b = self._merge((vt.mT, s, u.mT), weights)
            return as_weight(b.mT, a.mT)
        return as_weight(*self._merge((u, s, vt), weights))

    def _merge(self, svd: Svd, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        # |delta^T (x - delta)|^2 = |S (U^T x - S V^T)|^2: rows of a least squares.
        u, s, vt = live(svd, self.tolerance)
        size = jnp.linalg.norm(s, axis=-1, keepdims=True)
        row = column(jnp.sqrt(weights), s.ndim - 1) * s / jnp.where(size > 0, size, 1)
        left = beside(row[..., None, :] * u)
        right = beside((row * s)[..., None, :] * vt.mT).mT
        p, sigma, qt = live(thin_svd(left), self.tolerance)
        inverse = jnp.where(sigma > 0, 1 / jnp.where(sigma > 0, sigma, 1), 0)
        return matmul(p * inverse[..., None, :], qt), right


@dataclasses.dataclass(frozen=True)
class _WudiSteps(Reduction):
    steps: int
    learning_rate: float
    divide: bool
    side: Side

    def check(self, weights: np.ndarray) -> None:
        check_shares("wudi_steps", weights)

    def leaf(self, values, weights, key, data):
        del key, data
        if self.side == "outputs":
            return self._descend(values.mT, weights).mT
        return self._descend(values, weights)

    def _descend(self, values: jax.Array, weights: jax.Array) -> jax.Array:
        energy = jnp.sum(values**2, (-2, -1))
        share = 2 * weights / jnp.where(energy > 0, energy, 1)
        metric = column(share, 2) * matmul(values, values.mT)  # [E, M, M]
        adam = optax.adam(self.learning_rate)

        def step(carry, _):
            x, state = carry
            # Differences first: what is already an expert has a gradient of exactly 0,
            # and Adam would make full steps out of rounding.
            gradient = jnp.einsum(
                "emk,ekn->mn", metric, x[None] - values, precision="highest"
            )
            with jax.numpy_dtype_promotion("standard"):  # optax counts in int32
                updates, state = adam.update(gradient, state)
            return (optax.apply_updates(x, updates), state), None

        start = jnp.einsum("e,emn->mn", weights, values, precision="highest")
        carry = (start, adam.init(start))
        (x, _), _ = jax.lax.scan(step, carry, None, length=self.steps)
        count = jnp.sum((weights != 0).astype(jnp.float32))
        return x / count if self.divide else x


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
        joined = concatenate(present, jnp.ones_like(present.scale))
        a = _solve(jnp.sum(grams, 0), beside(matmul(grams, present.a)))
        return LoraWeight(a, joined.b, joined.scale)

    def _grams(self, data, weights, shape) -> jax.Array:
        """``w_e G_e``, [E, ..., D, D], with the ridge."""
        grams = _present_data("regmean", data, weights, (*shape, shape[-1]))
        eye = jnp.eye(shape[-1], dtype=jnp.float32)
        diagonal = jnp.diagonal(grams, axis1=-2, axis2=-1)
        mass = column(weights, diagonal.ndim - 1)
        level = jnp.sum(mass * diagonal, 0).mean(-1) / jnp.sum(weights)
        ridge = self.ridge * jnp.where(level > 0, level, 1.0)[..., None, None]
        own = diagonal[..., None] * jnp.broadcast_to(eye, grams.shape)
        grams = self.off_diagonal * grams + (1 - self.off_diagonal) * own
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
    there = column(weights != 0, len(shape) - 1)
    return jnp.where(there, jnp.asarray(data).astype(jnp.float32), 0.0)


@one_by_one
def _solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """``matrix^-1 right`` for symmetric positive matrices, by Cholesky."""
    lower = jnp.linalg.cholesky(matrix)
    solve = jax.lax.linalg.triangular_solve
    half = solve(lower, right, left_side=True, lower=True)
    return solve(lower, half, left_side=True, lower=True, transpose_a=True)


def _check_side(side: Side) -> Side:
    if side not in ("inputs", "outputs"):
        raise ValueError(f"The side is {side!r}, expected 'inputs' or 'outputs'.")
    return side
