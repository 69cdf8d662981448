import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxlora import lora
from jaxlora.merge import spectral

E, R, M, N = 3, 2, 9, 8
METHODS = {"tsv": spectral.tsv(), "iso": spectral.iso_c()}
WEIGHTS = np.asarray([[1, 1, 1], [1, 3, 0.5], [2, 0, -1]], np.float32)


@functools.partial(jax.jit, static_argnums=0)
def leaves(reduction, values, weights):
    """[W, M, N] for weights [W, E], at once."""
    return jax.vmap(lambda w: reduction.leaf(values, w, None, None))(weights)


@functools.partial(jax.jit, static_argnums=0)
def merged(reduction, weight, weights):
    return reduction.factors(weight, weights, None)


def solve(reduction, values, weights):
    """One weight vector, through the program that takes three."""
    rows = np.tile(np.asarray(weights, np.float32), (3, 1))
    got = leaves(reduction, jnp.asarray(values, jnp.float32), rows)
    return np.asarray(got[0], np.float64)


def draw(seed=0, rank=R):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((E, M, rank)), rng.standard_normal((E, rank, N))
    return np.asarray([[[1.0]], [[4.0]], [[0.3]]]) * (a @ b)


def close(got, want, tolerance=1e-5):
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


def live_svd(x):
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    k = int((s > 1e-9 * max(s[0], 1e-300)).sum())
    return u[:, :k], s[:k], vt[:k]


def tsv_reference(values, weights, keep=None):
    parts = [
        (u[:, :keep], w * s[:keep], vt[:keep])
        for w, x in zip(weights, values, strict=True)
        if w
        for u, s, vt in [live_svd(x)]
    ]
    left = scipy.linalg.polar(np.concatenate([u for u, _, _ in parts], 1))[0]
    right = scipy.linalg.polar(np.concatenate([vt for *_, vt in parts]))[0]
    return left @ np.diag(np.concatenate([s for _, s, _ in parts])) @ right


def iso_reference(values, weights):
    u, s, vt = live_svd(np.tensordot(weights, values, 1))
    return s.mean() * u @ vt


@pytest.mark.parametrize(
    ("name", "reference"), [("tsv", tsv_reference), ("iso", iso_reference)]
)
def test_closed_form_for_many_weights_at_once(name, reference):
    values = draw()
    got = leaves(METHODS[name], jnp.asarray(values, jnp.float32), jnp.asarray(WEIGHTS))
    for row, weights in zip(got, WEIGHTS, strict=True):
        close(row, reference(values, np.asarray(weights, np.float64)))


def test_tsv_has_every_weighted_singular_value_of_every_expert():
    # What orthogonal singular vectors are for; those of the plain sum are others.
    values = draw(1)
    sizes = [w * live_svd(x)[1] for w, x in zip((1, 3, 0.5), values, strict=True)]
    want = np.sort(np.concatenate(sizes))[::-1]
    got = np.linalg.svd(solve(METHODS["tsv"], values, WEIGHTS[1]), compute_uv=False)
    np.testing.assert_allclose(got[: E * R], want, rtol=1e-5)
    np.testing.assert_allclose(got[E * R :], 0, atol=1e-5)
    plain = np.linalg.svd(np.tensordot(WEIGHTS[1], values, 1), compute_uv=False)
    assert np.abs(plain[: E * R] / want - 1).max() > 0.05


def test_tsv_keeps_the_largest():
    values = draw(2)
    close(
        solve(spectral.tsv(keep=1), values, WEIGHTS[1]),
        tsv_reference(values, WEIGHTS[1], keep=1),
    )


def test_tsv_of_an_expert_given_twice_is_the_mean_of_its_weights():
    values = draw(3)
    values[1] = values[0]
    close(solve(METHODS["tsv"], values, [1, 3, 0]), 2 * values[0])


def test_tsv_of_more_directions_than_there_are():
    # Ranks sum to 12 > min(M, N): no orthonormal columns, but still the polar factor.
    values = draw(4, rank=4)
    close(
        solve(METHODS["tsv"], values, [1, 1, 1]), tsv_reference(values, [1, 1, 1]), 2e-5
    )


def test_iso_has_one_singular_value_and_no_direction_of_its_own():
    values = draw(5)
    got = solve(METHODS["iso"], values, [1, 1, 1])
    total = np.sum(values, 0)
    u, s, vt = live_svd(total)
    spectrum = np.linalg.svd(got, compute_uv=False)
    np.testing.assert_allclose(spectrum[: E * R], s.mean(), rtol=1e-5)
    np.testing.assert_allclose(spectrum[E * R :], 0, atol=1e-5)
    close(u @ (u.T @ got), got)
    close(got @ vt.T @ vt, got)
    # The peers' reading, on the same update: a direction that no expert has.
    p, sigma, qt = np.linalg.svd(total, full_matrices=False)
    peers = sigma.mean() * p @ qt
    assert np.linalg.norm(peers - u @ (u.T @ peers)) > 0.3 * np.linalg.norm(peers)


@pytest.mark.parametrize("name", METHODS)
def test_zeros_stay_zeros(name):
    values = draw()
    np.testing.assert_array_equal(solve(METHODS[name], 0 * values, [1, 1, 1]), 0)
    values[1] = 0  # present, but with no direction: as if absent
    close(
        solve(METHODS[name], values, [1, 1, 1]),
        solve(METHODS[name], values, [1, 0, 1]),
    )


def test_one_expert_is_given_back_by_tsv_and_flattened_by_iso():
    values = draw()
    close(solve(METHODS["tsv"], values * [[[1]], [[0]], [[0]]], [1, 0, 0]), values[0])
    got = solve(METHODS["iso"], values * [[[1]], [[0]], [[0]]], [1, 0, 0])
    assert np.linalg.norm(got - values[0]) > 0.1 * np.linalg.norm(values[0])


@pytest.mark.parametrize("name", METHODS)
def test_any_orthonormal_coordinates_and_any_order(name):
    values, rng = draw(6), np.random.default_rng(0)
    left = np.linalg.qr(rng.standard_normal((M, M)))[0]
    right = np.linalg.qr(rng.standard_normal((N, N)))[0]
    want = solve(METHODS[name], values, WEIGHTS[1])
    close(
        left.T @ solve(METHODS[name], left @ values @ right, WEIGHTS[1]), want @ right
    )
    order = [2, 0, 1]
    close(solve(METHODS[name], values[order], WEIGHTS[1][order]), want)


@pytest.mark.parametrize("name", METHODS)
def test_factors_are_the_same_method(name, make_library, dense):
    """Of rank E * R, per layer, for any gauge and padding, and blind to the absent."""
    weight = make_library()["q_proj"]["kernel"]
    weights = jnp.asarray([1.0, 0.0, -3.0])
    got = merged(METHODS[name], weight, weights)
    assert got.a.shape == (2, 5, 6 if name == "tsv" else 5)  # iso: min(D, E * R)
    got = dense({"": got})[""]
    values = dense({"": weight})[""]
    reference = {"tsv": tsv_reference, "iso": iso_reference}[name]
    for layer in range(2):
        close(got[layer], reference(values[:, layer], [1, 0, -3]), 2e-5)

    turn = jnp.asarray([[2.0, 1.0], [0.0, -0.5]])
    turned = weight.replace(
        a=(weight.a @ turn).at[1].set(jnp.nan),
        b=(jnp.linalg.inv(turn) @ weight.b).at[1].set(jnp.inf),
    )
    padded = lora.pad({"": turned}, 4)[""]
    close(dense({"": merged(METHODS[name], padded, weights)})[""], got, 2e-5)


@pytest.mark.parametrize("make", [spectral.tsv, spectral.iso_c])
@pytest.mark.parametrize("tolerance", [-1e-9, 1.0, float("nan")])
def test_refuses_a_tolerance_that_is_no_share(make, tolerance):
    with pytest.raises(ValueError, match=r"tolerance is .*at least 0 and below 1"):
        make(tolerance=tolerance)


def test_refuses_to_keep_nothing():
    with pytest.raises(ValueError, match=r"keeps 0 .*leave keep out"):
        spectral.tsv(keep=0)


def test_null_is_relative_to_the_largest():
    values = np.zeros((E, M, N))
    values[0, 0, 0], values[0, 1, 1], values[0, 2, 2] = 3e4, 1e4, 2e-2
    got = solve(METHODS["iso"], values, [1, 0, 0])
    np.testing.assert_allclose(np.diag(got)[:3], [2e4, 2e4, 0], rtol=1e-5)
    fine = solve(spectral.iso_c(tolerance=1e-8), values, [1, 0, 0])
    np.testing.assert_allclose(np.diag(fine)[:3], 4e4 / 3, rtol=1e-5)
