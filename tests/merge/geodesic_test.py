import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora
from jaxlora.merge import geodesic, linear

E = 3
FACTORIES = {
    "stock": geodesic.model_stock(),
    "slerp": geodesic.slerp(),
    "karcher": geodesic.karcher(),
}


@functools.partial(jax.jit, static_argnums=0)
def coefficients(reduction, gram, weights):
    """[W, E] for weights [W, E]."""
    run = functools.partial(reduction.coefficients, gram)
    return jax.vmap(run)(weights)


def solve(reduction, vectors, *weights):
    """Merged vectors [W, N], the sum in float64."""
    gram = jnp.asarray(vectors @ vectors.T, jnp.float32)
    result = coefficients(reduction, gram, jnp.asarray(weights, jnp.float32))
    return np.asarray(result, np.float64) @ vectors


def draw(seed=0, common=0.5):
    rng = np.random.default_rng(seed)
    shared = common * rng.standard_normal(30)
    norms = np.asarray([[1.0], [5.0], [0.2]])
    return norms * (rng.standard_normal((E, 30)) + shared)


def close(got, want, tolerance=1e-5):
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


def unit(x):
    return x / np.linalg.norm(x)


def stock_reference(vectors, weights):
    kept = [i for i, w in enumerate(weights) if w]
    pairs = [
        unit(vectors[i]) @ unit(vectors[j])
        for k, i in enumerate(kept)
        for j in kept[k + 1 :]
    ]
    n, c = len(kept), np.mean(pairs)
    mean = np.average(vectors, axis=0, weights=weights)
    return n * c / (1 + (n - 1) * c) * mean


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 3, 0.5], [0, 2, 1], [2, -1, 1]])
def test_model_stock_is_the_shrunken_mean(weights):
    vectors = draw()
    close(
        solve(geodesic.model_stock(), vectors, weights)[0],
        stock_reference(vectors, weights),
    )


def test_model_stock_of_experts_that_disagree():
    vectors = draw(common=0.0)
    vectors[1] -= 6 * vectors[0]
    assert unit(vectors[0]) @ unit(vectors[1]) < -0.5
    mergekit = solve(geodesic.model_stock(clip=False), vectors, [1, 1, 0])[0]
    close(mergekit, stock_reference(vectors, [1, 1, 0]))
    np.testing.assert_array_equal(
        solve(geodesic.model_stock(), vectors, [1, 1, 0])[0], 0
    )


def test_model_stock_puts_the_mean_on_the_nearest_point_to_the_base():
    # The paper's picture for n = 2: w_1, w_2 on a sphere around mu; the foot of the
    # perpendicular from the base onto their chord, when mu is at its right angle.
    theta = 1.0
    vectors = np.asarray([[np.cos(theta / 2), s * np.sin(theta / 2)] for s in (1, -1)])
    got = solve(geodesic.model_stock(), vectors, [1, 1])[0]
    t = 2 * np.cos(theta) / (1 + np.cos(theta))
    close(got, [t * np.cos(theta / 2), 0])


def slerp_reference(t, v0, v1):
    angle = np.arccos(unit(v0) @ unit(v1))
    return (np.sin((1 - t) * angle) * v0 + np.sin(t * angle) * v1) / np.sin(angle)


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_slerp_turns_along_the_arc(pair):
    vectors = draw(1)
    ts = np.asarray([0.05, 0.3, 0.5, 0.9])
    weights = np.zeros((4, E))
    weights[:, pair[0]], weights[:, pair[1]] = 7 * (1 - ts), 7 * ts
    got = solve(geodesic.slerp(), vectors, *weights)
    for row, t in zip(got, ts, strict=True):
        close(row, slerp_reference(t, vectors[pair[0]], vectors[pair[1]]))


def test_slerp_keeps_the_norm_where_the_mean_loses_it():
    vectors = np.eye(2, 9)
    assert np.linalg.norm(solve(geodesic.slerp(), vectors, [1, 3])[0]) == pytest.approx(
        1
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_slerp_is_linear_between_colinear_experts(sign):
    vectors = draw()[:2]
    vectors[1] = sign * 2 * vectors[0] + 1e-3 * vectors[1]
    cosine = unit(vectors[0]) @ unit(vectors[1])
    assert geodesic.COLINEAR < abs(cosine) < 1
    got = solve(geodesic.slerp(), vectors, [1, 3])[0]
    close(got, 0.25 * vectors[0] + 0.75 * vectors[1])


def test_slerp_of_a_zero_delta_takes_it_to_be_at_a_right_angle():
    vectors = draw()[:2] * [[1], [0]]
    close(solve(geodesic.slerp(), vectors, [1, 1])[0], np.sin(np.pi / 4) * vectors[0])


def test_slerp_takes_two_experts():
    with pytest.raises(ValueError, match=r"between two experts, and 3 have .* karcher"):
        geodesic.slerp().check(np.ones(3))
    geodesic.slerp().check(np.asarray([0.0, 1.0, 2.0]))
    geodesic.slerp().check(np.asarray([0.0, 1.0, 0.0]))
    assert np.isnan(solve(geodesic.slerp(), draw(), [1, 1, 1])).all()


def karcher_reference(vectors, weights, steps):
    p = np.asarray(weights) / np.sum(weights)
    units = np.stack([unit(v) for v in vectors])
    mean = unit(p @ units)
    for _ in range(steps):
        tangent = 0
        for share, u in zip(p, units, strict=True):
            angle = np.arccos(np.clip(u @ mean, -1, 1))
            tangent = tangent + share * angle / np.sin(angle) * (
                u - np.cos(angle) * mean
            )
        size = np.linalg.norm(tangent)
        mean = unit(np.cos(size) * mean + np.sin(size) * tangent / max(size, 1e-300))
    return p @ np.linalg.norm(vectors, axis=1) * mean, np.linalg.norm(tangent)


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 3, 0.5]])
def test_karcher_follows_the_geodesics(weights):
    vectors = draw(2, common=0.0)
    two, left = karcher_reference(vectors, weights, 2)
    assert left > 1e-4  # not converged, so that the steps themselves are compared
    close(solve(geodesic.karcher(steps=2), vectors, weights)[0], two)
    limit, left = karcher_reference(vectors, weights, 60)
    assert left < 1e-9
    close(solve(geodesic.karcher(steps=30), vectors, weights)[0], limit)


def test_karcher_of_two_directions_is_slerp_with_norms_made_equal():
    vectors = np.stack([unit(v) for v in draw(3)[:2]])
    weights = [[1, 1], [1, 4], [10, 1]]
    close(
        solve(geodesic.karcher(), vectors, *weights),
        solve(geodesic.slerp(), vectors, *weights),
    )


def test_karcher_without_steps_is_the_normalised_mean_of_directions():
    vectors = draw()
    mean = np.mean([unit(v) for v in vectors], axis=0)
    size = np.linalg.norm(vectors, axis=1).mean()
    close(solve(geodesic.karcher(steps=0), vectors, [1, 1, 1])[0], size * unit(mean))


def test_karcher_where_there_is_no_direction():
    vectors = draw()
    vectors[1] = 0  # counts in the mean norm, has no direction
    got = solve(geodesic.karcher(), vectors, [1, 1, 0])[0]
    close(got, vectors[0] / 2)
    vectors[1] = -vectors[0]
    got = solve(geodesic.karcher(), vectors, [1, 1, 0], [1, 3, 0])
    np.testing.assert_array_equal(got[0], 0)
    close(got[1], vectors[1])
    np.testing.assert_array_equal(
        solve(geodesic.karcher(), 0 * vectors, [1, 1, 1]), np.zeros((1, 30))
    )


@pytest.mark.parametrize("name", FACTORIES)
def test_one_expert_is_given_back(name):
    close(solve(FACTORIES[name], draw(), [0, 2.5, 0])[0], draw()[1])


@pytest.mark.parametrize("name", FACTORIES)
def test_order_and_size_of_the_weights_do_not_matter(name):
    vectors, order = draw(), [2, 0, 1]
    weights = np.asarray([1, 0, 3]) if name == "slerp" else np.asarray([1, 2, 3])
    got = solve(FACTORIES[name], vectors, weights, 10 * weights)
    close(got[0], got[1])
    close(solve(FACTORIES[name], vectors[order], weights[order])[0], got[0])


@pytest.mark.parametrize("name", FACTORIES)
def test_an_adapter_has_the_angles_of_its_deltas(name, make_library, dense):
    """Every layer for itself, exact, free of the gauge, and blind to who is absent."""
    weight = make_library()["q_proj"]["kernel"]
    weights = jnp.asarray([1.0, 0.0, 3.0])
    got = dense({"": _factors(FACTORIES[name], weight, weights)})[""]
    deltas = dense({"": weight})[""]
    for layer in range(2):
        want = solve(FACTORIES[name], deltas[:, layer].reshape(E, -1), weights)[0]
        close(got[layer].ravel(), want, 2e-5)

    turn = jnp.asarray([[2.0, 1.0], [0.0, -0.5]])
    back = jnp.linalg.inv(turn)
    turned = weight.replace(
        a=(weight.a @ turn).at[1].set(jnp.nan), b=(back @ weight.b).at[1].set(jnp.inf)
    )
    again = dense({"": _factors(FACTORIES[name], turned, weights)})[""]
    close(again, got, 2e-5)


@functools.partial(jax.jit, static_argnums=0)
def _factors(reduction, weight: lora.LoraWeight, weights):
    return reduction.factors(weight, weights, None)


@pytest.mark.parametrize("method", ["slerp", "karcher"])
@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0, -1.0], "none below 0: in METHOD"), ([0.0, 0.0], "divides by their sum")],
)
def test_refuses_weights_that_are_no_shares(method, weights, message):
    with pytest.raises(ValueError, match=message.replace("METHOD", method)):
        FACTORIES[method].check(np.asarray(weights))


def test_model_stock_refuses_weights_that_cancel():
    with pytest.raises(ValueError, match="divides by their sum"):
        geodesic.model_stock().check(np.asarray([1.0, -1.0]))


def test_karcher_refuses_negative_steps():
    with pytest.raises(ValueError, match="karcher has -1 steps"):
        geodesic.karcher(-1)


def test_they_are_plain_values():
    assert geodesic.karcher(3) == geodesic.karcher(3) != geodesic.karcher(4)
    assert len({geodesic.slerp(), geodesic.slerp()}) == 1
    assert all(isinstance(r, linear.Linear) for r in FACTORIES.values())
