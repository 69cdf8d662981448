"""Joint coordinates of several low-rank updates, without dense matrices.

The *core* frame of experts ``delta_e = s_e a_e b_e`` is a pair of orthonormal bases, of
all inputs [D, K] and of all outputs [F, H], K = min(D, ER) and H = min(F, ER), in which
every delta is a small matrix: ``delta_e = inputs @ core_e @ outputs^T``, exactly. The
bases are the singular vectors of the experts' balanced factors put side by side, and so
depend neither on the gauge nor on the order of experts (up to signs, and to rotations
where singular values coincide). A plain QR basis would depend on both.

Core Space merging: arXiv 2509.17786. KnOTS: Stoica et al., arXiv 2410.19735.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlora import spectrum
from jaxlora.lora import LoraWeight
from jaxlora.merge.linear import beside
from jaxlora.spectrum import matmul


class Core(NamedTuple):
    """Experts of one site and layer in their core frame."""

    values: jax.Array
    """[E, K, H]."""
    inputs: jax.Array
    """Orthonormal columns, [D, K]."""
    outputs: jax.Array
    """Orthonormal columns, [F, H]."""
    live_in: jax.Array
    """Which columns of ``inputs`` some expert uses, [K]."""
    live_out: jax.Array
    """Which columns of ``outputs`` some expert uses, [H]."""


class Basis(NamedTuple):
    """An orthonormal basis, in falling order of how much the experts use it."""

    basis: jax.Array
    """[F, K]."""
    live: jax.Array
    """Which columns some expert uses, [K]."""


def core(experts: LoraWeight) -> Core:
    """Returns the core frame of experts.

    Args:
      experts: of one site and layer, a [E, D, R]; zeros where one is absent.

    >>> a, b = jnp.eye(3)[:2, :, None], jnp.ones((2, 1, 4))
    >>> frame = core(LoraWeight(a, b, jnp.ones(2)))
    >>> back = frame.inputs @ frame.values @ frame.outputs.T
    >>> bool(jnp.allclose(back, a @ b, atol=1e-6))
    True
    """
    e, d, r = experts.a.shape
    f = experts.b.shape[-1]
    # Everything after these two QR is of size E * R, whatever D and F are.
    qa, ra = spectrum.qr(beside(experts.a))  # [D, K], [K, ER]
    qb, rb = spectrum.qr(beside(experts.b.mT))
    # Each expert within the two QR bases, balanced: small, and free of its gauge.
    small = spectrum.canonical(
        {
            "": LoraWeight(
                jnp.moveaxis(ra.reshape(-1, e, r), 1, 0),
                jnp.moveaxis(rb.reshape(-1, e, r), 1, 0).mT,
                experts.scale,
            )
        }
    )[""]
    left, live_in = _basis(beside(small.a), d, f)
    right, live_out = _basis(beside(small.b.mT), d, f)
    values = matmul(matmul(left.T[None], small.a), matmul(small.b, right[None]))
    return Core(values, matmul(qa, left), matmul(qb, right), live_in, live_out)


def outputs(experts: LoraWeight) -> Basis:
    """Right singular vectors of all deltas stacked, [E D, F].

    Args:
      experts: of one site and layer, a [E, D, R]; zeros where one is absent.

    >>> a, b = jnp.eye(3)[:2, :, None], jnp.ones((2, 1, 4))
    >>> outputs(LoraWeight(a, b, jnp.ones(2))).live.tolist()
    [True, False]
    """
    e, d, _ = experts.a.shape
    f = experts.b.shape[-1]
    _, ra = spectrum.qr(experts.a)  # rows that a's orthonormal part leaves out
    rows = experts.scale[:, None, None] * matmul(ra, experts.b)
    q, small = spectrum.qr(rows.reshape(-1, f).T)  # [F, K], [K, E min(D, R)]
    inside, live = _basis(small, e * d, f)
    return Basis(matmul(q, inside), live)


def svd(
    dense: jax.Array, rank: int | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The thin SVD of a dense matrix [D, F], cut to a rank.

    For a rank far below full the answer is looked for in the space of the leading
    eigenvectors of the Gram matrix of the shorter side, some more than asked for, and
    one product with the matrix makes up for the squares in it. Else the longer side is
    first reduced by QR.

    Args:
      dense: [D, F].
      rank: K, how many triplets are returned; None for min(D, F).

    Returns:
      u [D, K], s [K] in falling order, v transposed [K, F].

    >>> svd(2 * jnp.eye(3, 5), 2)[1].tolist()
    [2.0, 2.0]
    """
    d, f = dense.shape
    if d > f:
        u, s, vt = svd(dense.T, rank)
        return vt.T, s, u.T
    if rank is not None and 4 * (rank + 16) <= d:
        # Ascending order: the last columns are the leading ones.
        _, vectors = jnp.linalg.eigh(matmul(dense, dense.T), symmetrize_input=False)
        v, _ = spectrum.qr(matmul(dense.T, vectors[:, -rank - 16 :]))
        q, small = spectrum.qr(matmul(dense, v))
        u, s, vt = spectrum.thin_svd(small)
        return (
            matmul(q, u[:, :rank]),
            s[:rank],
            matmul(vt[:rank], v.T),
        )
    q, small = spectrum.qr(dense.T)
    u, s, vt = spectrum.thin_svd(small.T)
    return u[:, :rank], s[:rank], matmul(vt[:rank], q.T)


def _basis(columns: jax.Array, d: int, f: int) -> tuple[jax.Array, jax.Array]:
    """Left singular vectors of a small matrix, and which of them are not rounding."""
    u, s, _ = spectrum.thin_svd(columns)
    # As numpy's matrix_rank: below it a direction is rounding.
    smallest = max(d, f) * jnp.finfo(jnp.float32).eps * s[:1]
    return u, s > smallest
