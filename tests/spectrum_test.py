import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora import lora, spectrum
from jaxlora.lora import LoraWeight

LEAD = (2, 3)
# D, F, R: thin, wide, tall, and ranks above D, above F and above both.
SHAPES = [(6, 5, 2), (3, 9, 2), (9, 3, 2), (4, 9, 6), (9, 4, 6), (4, 5, 8), (1, 1, 1)]
REL = 1e-5  # of the largest singular value: float32 through two QRs and one SVD


def make(seed, d, f, r, lead=LEAD):
    rng = np.random.default_rng(seed)
    return LoraWeight(
        a=jnp.asarray(rng.standard_normal((*lead, d, r)), jnp.float32),
        b=jnp.asarray(rng.standard_normal((*lead, r, f)), jnp.float32),
        scale=jnp.asarray(rng.uniform(-2, 2, lead), jnp.float32),
    )


def dense(weight):
    a, b, s = (np.asarray(x, np.float64) for x in (weight.a, weight.b, weight.scale))
    return s[..., None, None] * (a @ b)


def check_svd(weight):
    """Compares with NumPy's SVD of the dense delta; returns u, s, vt."""
    u, s, vt = (np.asarray(x, np.float64) for x in spectrum.svd(weight))
    delta = dense(weight)
    (d, r), f = weight.a.shape[-2:], weight.b.shape[-1]
    k = min(d, r, f)
    assert u.shape[-2:] == (d, k)
    assert vt.shape[-2:] == (k, f)
    want = np.linalg.svd(delta, compute_uv=False)
    atol = REL * max(want.max(), 1e-6)
    np.testing.assert_allclose(s, want[..., :k], atol=atol)
    np.testing.assert_allclose(want[..., k:], 0, atol=1e-9 + 1e-12 * want.max())
    np.testing.assert_allclose((u * s[..., None, :]) @ vt, delta, atol=atol)
    eye = np.broadcast_to(np.eye(k), (*u.shape[:-2], k, k))
    np.testing.assert_allclose(np.swapaxes(u, -1, -2) @ u, eye, atol=1e-5)
    np.testing.assert_allclose(vt @ np.swapaxes(vt, -1, -2), eye, atol=1e-5)
    return u, s, vt


@pytest.mark.parametrize("shape", SHAPES)
def test_svd_equals_numpy_of_the_dense_delta(shape):
    u, s, _ = check_svd(make(0, *shape))
    assert (np.diff(s, axis=-1) <= 0).all()
    # NumPy's first left vector, up to the sign that ours fixes.
    v = np.linalg.svd(dense(make(0, *shape)))[0][..., 0]
    np.testing.assert_allclose(np.abs(np.sum(u[..., 0] * v, -1)), 1, atol=1e-4)


def test_svd_fixes_the_sign():
    w = make(1, 6, 5, 3)
    u, _, _ = spectrum.svd(w)
    peak = np.take_along_axis(u, np.abs(u).argmax(-2, keepdims=True), -2)
    assert (peak > 0).all()
    flipped = w.replace(a=-w.a, b=-w.b)
    chex.assert_trees_all_close(spectrum.svd(flipped), spectrum.svd(w), atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.replace(b=jnp.zeros_like(w.b)),
        lambda w: w.replace(a=jnp.zeros_like(w.a), b=jnp.zeros_like(w.b)),
        lambda w: w.replace(scale=jnp.zeros_like(w.scale)),
        lambda w: lora.pad(w, 4),
        lambda w: lora.pad(w, 9),
        lambda w: w.replace(a=jnp.concatenate([w.a] * 2, -1), b=jnp.repeat(w.b, 2, -2)),
    ],
    ids=["b = 0", "all 0", "scale 0", "padded", "padded above D and F", "repeated"],
)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.vmap])
def test_svd_above_the_true_rank(change, transform):
    weight = change(make(2, 6, 5, 2))
    check_svd(weight)
    chex.assert_tree_all_finite(transform(spectrum.svd)(weight))


@pytest.mark.parametrize("shape", [(6, 5, 2), (4, 5, 8)])
def test_jit_vmap_and_a_loop_agree(shape):
    weight = make(3, *shape)
    eager = spectrum.svd(weight)
    chex.assert_trees_all_close(jax.jit(spectrum.svd)(weight), eager, atol=1e-4)
    mapped = jax.vmap(jax.vmap(spectrum.svd))(weight)
    chex.assert_trees_all_close(mapped, eager, atol=1e-4)
    single = jax.tree.map(lambda x: x[1, 2], weight)
    alone = spectrum.svd(single)
    chex.assert_trees_all_close(
        alone, jax.tree.map(lambda x: x[1, 2], eager), atol=1e-4
    )


def test_no_dense_delta_is_formed():
    weight = make(0, 300, 200, 2, ())
    text = str(jax.make_jaxpr(lambda w: spectrum.canonical({"k": w}, rank=1))(weight))
    assert "300,2]" in text
    assert "300,200]" not in text
    assert "200,300]" not in text


def test_bfloat16_is_computed_in_float32():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), make(0, 6, 5, 2))
    assert {x.dtype for x in spectrum.svd(half)} == {jnp.dtype(jnp.float32)}
    check_svd(half)


@pytest.mark.parametrize("shape", SHAPES)
def test_canonical_is_balanced_and_keeps_the_delta(shape):
    weight = make(4, *shape)
    form = spectrum.canonical({"k": weight})["k"]
    np.testing.assert_array_equal(form.scale, np.ones(LEAD))
    assert form.rank == min(shape)
    want = dense(weight)
    np.testing.assert_allclose(dense(form), want, atol=REL * np.abs(want).max() * 10)
    s = np.linalg.svd(want, compute_uv=False)[..., : form.rank]
    diagonal = s[..., None] * np.eye(form.rank)
    a, b = np.asarray(form.a), np.asarray(form.b)
    atol = REL * max(s.max(), 1)
    np.testing.assert_allclose(np.swapaxes(a, -1, -2) @ a, diagonal, atol=atol)
    np.testing.assert_allclose(b @ np.swapaxes(b, -1, -2), diagonal, atol=atol)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_canonical_does_not_see_the_gauge(seed):
    weight = make(seed, 6, 5, 2)
    g = np.random.default_rng(seed).standard_normal((*LEAD, 2, 2)) + 4 * np.eye(2)
    other = LoraWeight(
        a=jnp.asarray(np.asarray(weight.a) @ g, jnp.float32),
        b=jnp.asarray(np.linalg.solve(g, np.asarray(weight.b)) / 2, jnp.float32),
        scale=2 * weight.scale,
    )
    assert not np.allclose(other.a, weight.a, atol=0.1)
    x, y = spectrum.canonical({"k": weight})["k"], spectrum.canonical({"k": other})["k"]
    # Vectors are as well determined as singular values are apart.
    s = np.sum(np.square(x.a), axis=-2)
    apart = ((s[..., 0] - s[..., 1]) > 0.1 * s[..., 0]) & (s[..., 0] > 0.1)
    pivots = np.sort(np.abs(x.a), axis=-2)[..., -2:, :]
    clear = (pivots[..., 1, :] - pivots[..., 0, :] > 1e-2).all(-1)
    np.testing.assert_allclose(
        np.asarray(x.a)[apart & clear], np.asarray(y.a)[apart & clear], atol=2e-3
    )
    np.testing.assert_allclose(
        np.asarray(x.b)[apart & clear], np.asarray(y.b)[apart & clear], atol=2e-3
    )


def test_canonical_zeroes_singular_values_that_are_rounding():
    weight = make(5, 6, 5, 2)
    twice = weight.replace(
        a=jnp.concatenate([weight.a] * 2, -1), b=jnp.concatenate([weight.b] * 2, -2)
    )
    form = spectrum.canonical({"k": twice})["k"]
    assert form.rank == 4
    np.testing.assert_array_equal(form.a[..., 2:], 0)
    np.testing.assert_array_equal(form.b[..., 2:, :], 0)
    assert (np.abs(form.a[..., :2]).max(-2) > 0).all()
    np.testing.assert_allclose(dense(form), 2 * dense(weight), atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 4, 7])
def test_canonical_of_a_rank_is_the_best_approximation(rank):
    weight = make(6, 6, 5, 4)
    form = spectrum.canonical({"k": weight}, rank)["k"]
    assert form.a.shape == (*LEAD, 6, rank)
    assert form.b.shape == (*LEAD, rank, 5)
    u, s, vt = np.linalg.svd(dense(weight), full_matrices=False)
    want = (u[..., :rank] * s[..., None, :rank]) @ vt[..., :rank, :]
    np.testing.assert_allclose(dense(form), want, atol=REL * 10 * s.max())


@pytest.mark.parametrize("rank", [0, -3])
def test_canonical_refuses_a_rank_below_one(rank):
    with pytest.raises(ValueError, match=f"is {rank}, expected at least 1"):
        spectrum.canonical({"k": make(0, 6, 5, 2)}, rank)


@pytest.mark.parametrize("ranks", [(2, 2), (2, 4), (8, 1)])
def test_inner_and_norm_equal_numpy(ranks):
    x, y = (make(i, 6, 5, rank) for i, rank in enumerate(ranks))
    want = np.sum(dense(x) * dense(y), axis=(-2, -1))
    scale = np.linalg.norm(dense(x), axis=(-2, -1)) * np.linalg.norm(
        dense(y), axis=(-2, -1)
    )
    assert (np.abs(np.asarray(spectrum.inner(x, y)) - want) < REL * scale).all()
    norms = np.linalg.norm(dense(x), axis=(-2, -1))
    np.testing.assert_allclose(spectrum.norm(x), norms, rtol=1e-4)
    chex.assert_trees_all_close(jax.jit(spectrum.inner)(x, y), spectrum.inner(x, y))


def test_norm_of_nothing_is_zero():
    zero = make(0, 6, 5, 2)
    zero = zero.replace(b=jnp.zeros_like(zero.b))
    np.testing.assert_array_equal(spectrum.norm(zero), np.zeros(LEAD))
