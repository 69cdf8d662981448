"""Merging by singular vectors: TSV-M and Iso-C, restricted to what the experts hold.

Both come from full fine-tuning, where an update has min(D, F) directions. A LoRA delta
has R, and its other singular vectors are arbitrary: taken literally, Iso-C puts most of
its energy there, outside every expert. Here a direction whose singular value is below
``tolerance`` times the largest is null, and stays zero.

Neither depends on an orthonormal change of coordinates, so that ``delta``, ``knots``
and ``core`` give one result; ``factors`` gives it from QR and SVD of thin matrices.

TSV-M: Gargiulo et al., Task Singular Vectors (arXiv 2412.00081).
Iso-C: Marczak et al., No Task Left Behind (arXiv 2502.04959).
"""

import dataclasses
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxlora import spectrum
from jaxlora.lora import LoraWeight
from jaxlora.merge.linear import (
    Reduction,
    absent_removed,
    beside,
    column,
    concatenate,
    over_experts,
)
from jaxlora.spectrum import matmul, thin_svd

Svd: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]
"""u [..., M, K], s [..., K], vt [..., K, N]."""

TOLERANCE = 1e-5
"""Null is what is below this share of the largest: above rounding, below use."""


def tsv(keep: int | None = None, tolerance: float = TOLERANCE) -> Reduction:
    """TSV-M: makes the experts' singular vectors orthogonal to each other, then sums.

    With ``delta_e = U_e S_e V_e^T``, ``U = [U_1 ... U_E]`` and ``V`` likewise, the
    result is ``polar(U) diag(w_1 S_1 ... w_E S_E) polar(V)^T``. The polar factor
    ``P Q^T`` of ``U = P S Q^T`` is the nearest matrix with orthonormal columns. Where
    experts share directions U has no such neighbour; its null directions are then left
    out (an expert given twice counts once, at the mean of its two weights).

    The paper and its ports (fusion_bench, mttl) keep min(D, F) / E triplets of each
    expert, null ones with them; their "lossless" variant keeps all of them. For LoRA
    all live triplets fit as long as the ranks sum to no more than min(D, F).

    Args:
      keep: triplets kept of each expert, the largest; None keeps all live ones.
      tolerance: singular values below this share of the largest are null; so are the
        directions of U and V.

    Raises:
      ValueError: if keep is below 1, or tolerance is not between 0 and 1.

    >>> values = jnp.asarray([[[2.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]]])
    >>> tsv().leaf(values, jnp.ones(2), None, None).tolist()
    [[2.0, 0.0], [0.0, 3.0]]
    """
    if keep is not None and keep < 1:
        raise ValueError(
            f"tsv keeps {keep} singular triplets of each expert, expected at least 1; "
            f"leave keep out to keep all of them."
        )
    return _Tsv(keep=keep, tolerance=check_tolerance(tolerance))


def iso_c(tolerance: float = TOLERANCE) -> Reduction:
    """Iso-C: the weighted sum, with all its live singular values made equal.

    ``sum_e w_e delta_e = U diag(s) V^T`` becomes ``mean(s) U V^T``, over live s only.

    The paper and its ports (fusion_bench, mttl) take the mean over min(D, F) singular
    values and give it to null directions too, whose vectors are arbitrary. Their
    multiplier lambda, 1 by default, is here a common factor in the weights.

    Args:
      tolerance: singular values below this share of the largest are null; one just
        above it is raised to the mean.

    Raises:
      ValueError: if tolerance is not between 0 and 1.

    >>> values = jnp.asarray([[[4.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]])
    >>> iso_c().leaf(values, jnp.ones(1), None, None).tolist()
    [[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]]
    """
    return _IsoC(tolerance=check_tolerance(tolerance))


@dataclasses.dataclass(frozen=True)
class _Tsv(Reduction):
    keep: int | None
    tolerance: float

    def leaf(self, values, weights, key, data):
        del key, data
        return matmul(*self._merge(thin_svd(values), weights))

    def factors(self, experts, weights, data):
        del data
        return as_weight(
            *self._merge(spectrum.svd(absent_removed(experts, weights)), weights)
        )

    def _merge(self, svd: Svd, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        u, s, vt = svd
        weights = column(weights, s.ndim - 1)
        s = jnp.where(weights != 0, s, 0.0)  # absent experts turn nobody's vectors
        u, s, vt = live((u, s, vt), self.tolerance)
        u, s, vt = u[..., : self.keep], s[..., : self.keep], vt[..., : self.keep, :]
        weighted = weights * s
        sizes = beside(weighted[..., None, :]).mT  # [..., EK, 1]
        # Without the polar factors shared directions would be counted once an expert.
        left, right = (_polar(beside(x), self.tolerance) for x in (u, vt.mT))
        return left, sizes * right.mT


@dataclasses.dataclass(frozen=True)
class _IsoC(Reduction):
    tolerance: float

    def leaf(self, values, weights, key, data):
        del key, data
        total = over_experts(weights, values)
        return matmul(*self._merge(thin_svd(total)))

    def factors(self, experts, weights, data):
        del data
        present = absent_removed(experts, weights)
        lead = present.scale.ndim - 1
        coefficients = jnp.broadcast_to(column(weights, lead), present.scale.shape)
        total = concatenate(present, coefficients)
        # The SVD of a thin product, from two QR and a small core.
        qa, ra = spectrum.qr(total.a)
        qb, rb = spectrum.qr(total.b.mT)
        left, right = self._merge(thin_svd(matmul(ra, rb.mT)))
        return as_weight(matmul(qa, left), matmul(right, qb.mT))

    def _merge(self, svd: Svd) -> tuple[jax.Array, jax.Array]:
        u, s, vt = live(svd, self.tolerance)
        # The mean is over live values: null ones would dilute it by min(D, F) / rank.
        count = jnp.sum((s > 0).astype(jnp.float32), -1)
        mean = jnp.sum(s, -1) / jnp.maximum(count, 1.0)
        return mean[..., None, None] * u, vt


def live(svd: Svd, tolerance: float) -> Svd:
    """Zeros in the place of null triplets, vectors included.

    Args:
      svd: u [..., M, K], s [..., K] in falling order, vt [..., K, N].
      tolerance: singular values below this share of the largest are null.

    >>> svd = (jnp.eye(2), jnp.asarray([1.0, 1e-7]), jnp.eye(2))
    >>> [x.tolist() for x in live(svd, 1e-5)[:2]]
    [[[1.0, 0.0], [0.0, 0.0]], [1.0, 0.0]]
    """
    u, s, vt = svd
    keep = s > tolerance * s[..., :1]
    return (
        jnp.where(keep[..., None, :], u, 0.0),
        jnp.where(keep, s, 0.0),
        jnp.where(keep[..., :, None], vt, 0.0),
    )


def as_weight(a: jax.Array, b: jax.Array) -> LoraWeight:
    """``a @ b`` at scale 1.

    Args:
      a: [..., D, R].
      b: [..., R, F].
    """
    return LoraWeight(a, b, jnp.ones(a.shape[:-2], jnp.float32))


def check_tolerance(tolerance: float) -> float:
    """Returns a tolerance that is a share.

    Args:
      tolerance: of null singular values.

    Raises:
      ValueError: if it is not at least 0 and below 1.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(
            f"The tolerance is {tolerance}, expected at least 0 and below 1: it is a "
            f"share of the largest singular value."
        )
    return tolerance


def _polar(x: jax.Array, tolerance: float) -> jax.Array:
    """The polar factor of [..., M, K], without the null directions of x."""
    p, s, qt = thin_svd(x)
    return matmul(live((p, s, qt), tolerance)[0], qt)
