"""Spectra of low-rank updates, from their factors alone.

An update ``delta = scale * a @ b`` has many pairs of factors: (a G, G^-1 b) is the same
update for every invertible G, its *gauge*. What is computed here depends on the delta
only, and no dense D x F matrix is ever formed: with the QR decompositions a = Qa Ra and
b^T = Qb Rb, the SVD of the small core ``scale * Ra @ Rb^T`` gives that of the delta.

Everything is batched over leading axes (E, L, ...) and computed in float32. Gradients
through a decomposition are undefined where singular values coincide, for example in
padded columns.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from jaxlora import lora
from jaxlora.lora import Adapter, LoraWeight


def svd(
    weight: LoraWeight, rank: int | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The exact thin SVD of a delta: ``delta = u @ diag(s) @ vt``.

    Ranks above the true one are fine (b = 0, padded columns, repeated experts): their
    singular values are zero and their vectors arbitrary, but orthonormal and finite.
    Vectors of equal singular values are determined only up to a rotation.

    Args:
      weight: a [..., D, R], b [..., R, F], scale [...], of any sign.
      rank: leave out all but so many of the largest singular values.

    Returns:
      u [..., D, K], s [..., K] in falling order, vt [..., K, F], where
      K = min(D, F, R, rank), in float32. The largest entry of each column of u is
      positive.

    >>> w = LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 3)), jnp.asarray(2.0))
    >>> u, s, vt = svd(w)
    >>> (u.shape, vt.shape, round(float(s[0] ** 2)))
    ((2, 1), (1, 3), 24)
    """
    qa, ra = qr(weight.a.astype(jnp.float32))
    qb, rb = qr(weight.b.astype(jnp.float32).mT)
    # All that is not orthonormal is in an R x R core: its SVD is that of the delta.
    core = _scale(weight) * matmul(ra, rb.mT)
    u, s, vt = thin_svd(core)
    u, s, vt = u[..., :rank], s[..., :rank], vt[..., :rank, :]
    u, vt = matmul(qa, u), matmul(vt, qb.mT)
    # The sign of a pair of vectors is free: fixed, equal deltas have equal vectors.
    pivot = jnp.argmax(jnp.abs(u), axis=-2, keepdims=True)
    flip = jnp.where(jnp.take_along_axis(u, pivot, axis=-2) < 0, -1.0, 1.0)
    return u * flip, s, vt * flip.mT


def one_by_one(
    fn: Callable[..., Any], on_cpu: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """``fn`` of matrices [..., M, N], on CPU one after another.

    There, batched decompositions of several sites in one program wait for each other's
    worker threads: several batched QR never return (seen with jaxlib 0.10.2 on two
    cores), and SVDs of matrices of 64 or more can stall. On a mesh each device takes a
    part of them.

    Args:
      fn: takes and returns arrays with the same leading axes.
      on_cpu: a function of single matrices to use there instead.

    >>> one_by_one(jnp.linalg.inv)(2 * jnp.ones((3, 2, 1, 1))).shape
    (3, 2, 1, 1)
    """

    @jax.custom_batching.sequential_vmap
    def mapped(*args):
        lead = args[0].shape[:-2]
        flat = [x.reshape(-1, *x.shape[-2:]) for x in args]
        rows = jax.lax.map(lambda row: (on_cpu or fn)(*row), flat)
        return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), rows)

    def run(*args):
        return jax.lax.platform_dependent(*args, cpu=mapped, default=fn)

    return functools.partial(_in_parts, run)


def _in_parts(run: Callable[..., Any], *args: jax.Array) -> Any:
    """Calls ``run`` of matrices [..., M, N], on a mesh in parts of the leading axes.

    The compiler cannot cut a decomposition, and would gather all matrices everywhere.
    """
    lead = args[0].shape[:-2]
    axes = _dividing(math.prod(lead))
    if not axes:
        return run(*args)
    flat = [x.reshape(-1, *x.shape[-2:]) for x in args]
    spec = jax.P(axes)
    share = jax.shard_map(run, in_specs=spec, out_specs=spec, check_vma=False)
    return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), share(*flat))


def _dividing(count: int) -> tuple[str, ...]:
    """The first axes of the mesh in use whose devices divide a number."""
    mesh = jax.sharding.get_abstract_mesh()
    # Within shard_map or pmap each device has its part already.
    if mesh.empty or any(kind != AxisType.Auto for kind in mesh.axis_types):
        return ()
    axes: list[str] = []
    for name, size in mesh.shape.items():
        if size > 1 and count % size == 0:
            axes.append(name)
            count //= size
    return tuple(axes)


@jax.custom_jvp
def qr(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``jnp.linalg.qr`` in reduced form, safe on any number of CPU cores.

    On CPU the matrices are factored one after another, since batched ones may never
    return, and tall ones by products where that is safe.

    Args:
      x: [..., M, N].

    >>> q, r = qr(jnp.ones((2, 3, 1)))
    >>> (q.shape, r.shape)
    ((2, 3, 1), (2, 1, 1))
    """
    return _qr(x)


@qr.defjvp
def _qr_jvp(primals, tangents):
    # Walter and Lehmann, arXiv 1009.6112; for R of full rank, as in JAX.
    (x,), (dx,) = primals, tangents
    q, r = qr(x)
    right = jax.lax.linalg.triangular_solve(r, dx)
    inside = matmul(q.mT, right)
    lower = jnp.tril(inside, -1)
    turn = lower - lower.mT
    return (q, r), (right + matmul(q, turn - inside), matmul(inside - turn, r))


def _batched(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    q, r = jnp.linalg.qr(x)
    return q, r


def _tall_or_not(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows, columns = x.shape
    tall = columns >= 32 and rows >= 2 * columns
    return _cholesky_or_householder(x) if tall else _batched(x)


def _cholesky_or_householder(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """QR of one tall matrix by products, or by Householder if that is not safe.

    CholeskyQR2 (Yamamoto et al., ETNA 44, 2015): x = q r twice over, r from the
    Cholesky factor of x^T x. Its second pass is orthogonal to rounding if the first is
    nearly so, which is looked at; dependent columns are left to Householder.
    """
    once, r1, _ = _cholesky(x)
    twice, r2, gram = _cholesky(once)
    near = jnp.abs(gram - jnp.eye(gram.shape[0], dtype=gram.dtype)) < 0.1
    # NaN, which a singular x^T x gives, is not near.
    return jax.lax.cond(
        jnp.all(near), lambda: (twice, matmul(r2, r1)), lambda: _batched(x)
    )


def _cholesky(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``x = q r`` and ``x^T x``, whose columns are brought to one length first."""
    gram = matmul(x.T, x)
    size = jnp.sqrt(jnp.diagonal(gram))
    scaled = gram / (size[:, None] * size[None, :])
    lower = jax.lax.linalg.cholesky(scaled, symmetrize_input=False)
    eye = jnp.eye(gram.shape[0], dtype=gram.dtype)
    inverse = jax.lax.linalg.triangular_solve(lower, eye, left_side=True, lower=True)
    return matmul(x, (inverse / size[None, :]).T), lower.T * size[None, :], gram


def canonical(adapter: Adapter, rank: int | None = None) -> Adapter:
    """The balanced, gauge-free form: ``a = u sqrt(s)``, ``b = sqrt(s) vt``, scale 1.

    Two adapters with the same deltas have the same canonical form (up to rotations
    among equal singular values). Singular values below rounding, max(D, F) * eps * s_0,
    are set to zero. Takes an adapter or a library, and returns float32.

    Args:
      adapter: any tree of :class:`LoraWeight`.
      rank: keep the ``rank`` largest singular values of each site, the best
        approximation of that rank (Eckart and Young, 1936), with zero columns where a
        site has fewer. None keeps min(D, F, R), all of them: deltas are unchanged.

    Raises:
      ValueError: if the rank is below 1.

    >>> w = LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 3)), jnp.asarray(2.0))
    >>> lora.delta(canonical({"kernel": w})["kernel"]).round(3).tolist()
    [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    """
    if rank is not None and rank < 1:
        raise ValueError(
            f"The rank of a re-ranked adapter is {rank}, expected at least 1; leave "
            f"rank out to keep every singular value."
        )

    def balance(weight: LoraWeight) -> LoraWeight:
        u, s, vt = svd(weight, rank)
        size = max(u.shape[-2], vt.shape[-1])
        # Rounding would else be scaled up to unit vectors by whoever divides by s.
        smallest = size * jnp.finfo(jnp.float32).eps * s[..., :1]
        root = jnp.sqrt(jnp.where(s > smallest, s, 0.0))
        form = LoraWeight(
            a=u * root[..., None, :],
            b=root[..., :, None] * vt,
            scale=jnp.ones(weight.scale.shape, jnp.float32),
        )
        return form if rank is None else lora.pad(form, rank)

    return lora.lora_map(balance, adapter)


def inner(x: LoraWeight, y: LoraWeight) -> jax.Array:
    """The Frobenius inner product ``<delta_x, delta_y>``, one for each leading index.

    ``tr(delta_x^T delta_y) = scale_x scale_y sum((a_x^T a_y) * (b_x b_y^T))``: two
    R_x x R_y products. The ranks may differ; leading axes, D and F may not.

    Args:
      x: a [..., D, R], b [..., R, F].
      y: a [..., D, R'], b [..., R', F].

    Returns:
      [...], float32.

    >>> w = LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 3)), jnp.asarray(2.0))
    >>> float(inner(w, w))
    24.0
    """
    ax, ay = x.a.astype(jnp.float32), y.a.astype(jnp.float32)
    bx, by = x.b.astype(jnp.float32), y.b.astype(jnp.float32)
    # The trace is cyclic, so that no D x F matrix is needed.
    product = jnp.sum(matmul(ax.mT, ay) * matmul(bx, by.mT), axis=(-2, -1))
    return x.scale.astype(jnp.float32) * y.scale.astype(jnp.float32) * product


def norm(weight: LoraWeight) -> jax.Array:
    """The Frobenius norm of a delta, one for each leading index.

    Args:
      weight: a [..., D, R], b [..., R, F].

    >>> w = LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 2)), jnp.asarray(-2.0))
    >>> float(norm(w))
    4.0
    """
    return jnp.sqrt(jnp.maximum(inner(weight, weight), 0.0))


_qr = one_by_one(_batched, _tall_or_not)


@one_by_one
def thin_svd(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``jnp.linalg.svd`` in its thin form, safe on any number of CPU cores.

    Args:
      x: [..., M, N].

    >>> thin_svd(jnp.ones((2, 3, 4)))[1].shape
    (2, 3)
    """
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    return u, s, vt


def _scale(weight: LoraWeight) -> jax.Array:
    return weight.scale.astype(jnp.float32)[..., None, None]


def matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    """``x @ y`` in full float32, on every accelerator.

    Args:
      x: [..., M, K].
      y: [..., K, N].

    >>> matmul(jnp.ones((2, 3)), jnp.ones((3, 1))).shape
    (2, 1)
    """
    return jnp.matmul(x, y, precision="highest")
