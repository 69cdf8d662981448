"""Merging without interference: WUDI, in closed form and as its peers run it.

It asks for one delta that does to each expert's inputs what that expert would have
done, and takes the rows of the expert's own delta for its inputs: no data are needed.

A delta is [D, F] here, inputs first; the paper's matrices are [F, D].

Cheng et al., Whoever Started the Interference Should End It (arXiv 2503.08099).
"""

import dataclasses
import functools
from typing import ClassVar, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlora import spectrum
from jaxlora.lora import LoraWeight
from jaxlora.merge.geodesic import check_shares
from jaxlora.merge.linear import (
    Reduction,
    absent_removed,
    beside,
    column,
    over_experts,
)
from jaxlora.merge.spectral import TOLERANCE, Svd, as_weight, check_tolerance, live
from jaxlora.spectrum import matmul, thin_svd

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
    depend on an orthonormal change of coordinates. Where the ranks sum to more than D
    they are not independent, and the minimum may be many times larger than its experts:
    it divides by singular values as small as ``tolerance``.

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
      side: ``inputs`` or ``outputs``: on which side experts must not disturb each
        other; ``outputs`` is the same on the transposed deltas.

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
        # The inner where keeps the division finite: a gradient sees both branches.
        inverse = jnp.where(sigma > 0, 1 / jnp.where(sigma > 0, sigma, 1), 0)
        return matmul(p * inverse[..., None, :], qt), right


@dataclasses.dataclass(frozen=True)
class _WudiSteps(Reduction):
    homogeneous: ClassVar[bool] = False  # Adam's steps have a size of their own

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

    def factors(self, experts, weights, data):
        """As ``leaf`` on deltas, with products of the factors: not of low rank."""
        del data
        if self.side == "outputs":
            experts = LoraWeight(experts.b.mT, experts.a.mT, experts.scale)
        present = absent_removed(experts, weights)
        lead = present.scale.ndim - 1
        layers = jax.tree.map(lambda x: jnp.moveaxis(x, 0, lead), present)
        run = functools.partial(self._descend_factors, weights)
        for _ in range(lead):
            run = functools.partial(jax.lax.map, run)
        # One layer after another: a dense delta is in memory for one layer only.
        x = run(layers)
        dense = x.mT if self.side == "outputs" else x
        d, f = dense.shape[-2:]
        eye = jnp.broadcast_to(
            jnp.eye(min(d, f)), (*dense.shape[:-2], *[min(d, f)] * 2)
        )
        return as_weight(eye, dense) if d <= f else as_weight(dense, eye)

    def _descend_factors(self, weights: jax.Array, experts: LoraWeight) -> jax.Array:
        a = column(experts.scale, 2) * experts.a
        values = matmul(a, experts.b)
        # delta_e delta_e^T = a_e (b_e b_e^T) a_e^T: thin products, no M x M matrix.
        right = matmul(experts.b, experts.b.mT)

        def apply(share: jax.Array, difference: jax.Array) -> jax.Array:
            low = matmul(right, matmul(a.mT, difference))  # [E, R, N]
            return jnp.einsum("emr,ern->mn", column(share, 2) * a, low)

        return self._steps(values, weights, apply)

    def _descend(self, values: jax.Array, weights: jax.Array) -> jax.Array:
        gram = matmul(values, values.mT)  # [E, M, M]

        def apply(share: jax.Array, difference: jax.Array) -> jax.Array:
            return jnp.einsum("emk,ekn->mn", column(share, 2) * gram, difference)

        return self._steps(values, weights, apply)

    def _steps(self, values: jax.Array, weights: jax.Array, apply) -> jax.Array:
        """Adam; ``apply`` is ``sum_e share_e delta_e delta_e^T difference_e``."""
        energy = jnp.sum(values**2, (-2, -1))
        share = 2 * weights / jnp.where(energy > 0, energy, 1)
        adam = optax.adam(self.learning_rate)

        def step(carry, _):
            x, state = carry
            # Differences first: what is already an expert has a gradient of exactly 0,
            # and Adam would make full steps out of rounding.
            with jax.default_matmul_precision("highest"):
                gradient = apply(share, x[None] - values)
            with jax.numpy_dtype_promotion("standard"):  # optax counts in int32
                updates, state = adam.update(gradient, state)
            return (optax.apply_updates(x, updates), state), None

        start = over_experts(weights, values)
        carry = (start, adam.init(start))
        (x, _), _ = jax.lax.scan(step, carry, None, length=self.steps)
        count = jnp.sum((weights != 0).astype(jnp.float32))
        # mttl's convention; fusion_bench returns the sum.
        return x / count if self.divide else x


def _check_side(side: Side) -> Side:
    if side not in ("inputs", "outputs"):
        raise ValueError(f"The side is {side!r}, expected 'inputs' or 'outputs'.")
    return side
