import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, merge
from jaxlora.merge import interference

E, R, M, N = 3, 2, 9, 8
WEIGHTS = np.asarray([[1, 1, 1], [1, 3, 0.5], [2, 0, 1]], np.float32)


@functools.partial(jax.jit, static_argnums=0)
def leaves(reduction, values, weights, data):
    """[W, M, N] for weights [W, E], at once."""
    return jax.vmap(lambda w: reduction.leaf(values, w, None, data))(weights)


@functools.partial(jax.jit, static_argnums=0)
def merged(reduction, weight, weights, data):
    return reduction.factors(weight, weights, data)


def solve(reduction, values, weights, data=None):
    """One weight vector, through the program that takes three."""
    rows = np.tile(np.asarray(weights, np.float32), (3, 1))
    data = None if data is None else jnp.asarray(data, jnp.float32)
    got = leaves(reduction, jnp.asarray(values, jnp.float32), rows, data)
    return np.asarray(got[0], np.float64)


def draw(seed=0, rank=R):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((E, M, rank)), rng.standard_normal((E, rank, N))
    return np.asarray([[[1.0]], [[4.0]], [[0.3]]]) * (a @ b)


def inputs(seed=0, samples=40):
    """Each expert's own inputs, [E, samples, M], of unequal size and shape."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((E, M, M))
    return np.asarray([[[1.0]], [[2.0]], [[0.5]]]) * (
        rng.standard_normal((E, samples, M)) @ mix
    )


def close(got, want, tolerance=1e-5):
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


def wudi_reference(values, weights):
    grams = [x @ x.T / np.sum(x * x) for x in values]
    total = sum(w * g for w, g in zip(weights, grams, strict=True))
    right = sum(w * g @ x for w, g, x in zip(weights, grams, values, strict=True))
    return np.linalg.pinv(total, rcond=1e-10, hermitian=True) @ right


def wudi_loss(x, values, weights):
    """As the paper writes it, on [F, D]."""
    return sum(
        w * np.sum(((x.T - tau) @ tau.T) ** 2) / np.sum(tau**2)
        for w, tau in zip(weights, values.mT, strict=True)
    )


@pytest.mark.parametrize("rank", [2, 4])  # input directions independent, and not
def test_wudi_closed_form_for_many_weights_at_once(rank):
    values = draw(rank=rank)
    got = leaves(interference.wudi(), jnp.asarray(values, jnp.float32), WEIGHTS, None)
    for row, weights in zip(got, WEIGHTS, strict=True):
        close(row, wudi_reference(values, np.float64(weights)))


def test_wudi_has_the_least_loss():
    values, weights = draw(1, rank=4), np.asarray([1, 3, 0.5])
    best = solve(interference.wudi(), values, weights)
    least = wudi_loss(best, values, weights)
    rng = np.random.default_rng(0)
    assert least > 1e-3
    for _ in range(20):
        other = best + 0.01 * rng.standard_normal(best.shape)
        assert wudi_loss(other, values, weights) > least


def test_wudi_keeps_independent_experts_whatever_their_weights():
    values = draw(2)
    got = solve(interference.wudi(), values, [1, 3, 0.5])
    close(solve(interference.wudi(), values, [1, 1, 1]), got)
    start = wudi_loss(values.sum(0), values, np.ones(E))
    assert wudi_loss(got, values, np.ones(E)) < 1e-9 * start
    for x in values:
        u = np.linalg.svd(x)[0][:, :R]
        close(u.T @ got, u.T @ x)


def test_wudi_on_outputs_is_wudi_of_the_transposes():
    values = draw(3)
    flipped = interference.wudi(side="outputs")
    got = solve(flipped, values, [1, 3, 0.5])
    close(got, wudi_reference(values.mT, [1, 3, 0.5]).T)
    inputs = solve(interference.wudi(), values, [1, 3, 0.5])
    assert np.linalg.norm(got - inputs) > 0.1 * np.linalg.norm(inputs)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_wudi_in_factors_is_the_same_method(side, make_library, dense):
    """Per layer, for any gauge and padding, and blind to the absent."""
    method = interference.wudi(side=side)
    weight = make_library()["q_proj"]["kernel"]
    weights = jnp.asarray([1.0, 0.0, 3.0])
    got = merged(method, weight, weights, None)
    assert got.rank == 6
    got = dense({"": got})[""]
    deltas = dense({"": weight})[""]
    for layer in range(2):
        values = deltas[[0, 2], layer]
        values = values if side == "inputs" else values.mT
        want = wudi_reference(values, [1, 3])
        close(got[layer], want if side == "inputs" else want.T, 5e-5)
    turn = jnp.asarray([[2.0, 1.0], [0.0, -0.5]])
    turned = weight.replace(
        a=(weight.a @ turn).at[1].set(jnp.nan),
        b=(jnp.linalg.inv(turn) @ weight.b).at[1].set(jnp.inf),
    )
    padded = lora.pad({"": turned}, 4)[""]
    close(dense({"": merged(method, padded, weights, None)})[""], got, 5e-5)


def test_wudi_of_nothing_and_of_one():
    values = draw()
    single = solve(interference.wudi(), values * [[[0]], [[1]], [[0]]], [0, 2, 0])
    close(single, values[1])
    np.testing.assert_array_equal(
        solve(interference.wudi(), 0 * values, [1, 1, 1]), np.zeros((M, N))
    )


def adam_reference(values, weights, steps, rate):
    """The peers' loop, in NumPy: torch's Adam on [F, D], gradient by the chain rule."""
    taus = values.mT
    x = np.tensordot(weights, taus, 1)
    first, second = np.zeros_like(x), np.zeros_like(x)
    for k in range(1, steps + 1):
        gradient = sum(
            2 * w * (x - t) @ t.T @ t / np.sum(t * t)
            for w, t in zip(weights, taus, strict=True)
        )
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        size = np.sqrt(second / (1 - 0.999**k)) + 1e-8
        x = x - rate * first / (1 - 0.9**k) / size
    return x.T


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 3, 0.5]])
def test_wudi_steps_are_adams(weights):
    values = draw(4)
    got = solve(interference.wudi_steps(7, 0.05), values, weights)
    close(got, adam_reference(values, weights, 7, 0.05))


def test_wudi_steps_divided_by_who_is_present():
    values = draw(4)
    values[1] = 0
    got = solve(interference.wudi_steps(7, 0.05, divide=True), values, [1, 0, 1])
    close(got, adam_reference(values[[0, 2]], [1, 1], 7, 0.05) / 2)


def test_wudi_steps_on_outputs():
    values = draw(4)
    got = solve(interference.wudi_steps(7, 0.05, side="outputs"), values, [1, 1, 1])
    close(got, adam_reference(values.mT, [1, 1, 1], 7, 0.05).T)


def test_wudi_steps_of_the_peers_hardly_leave_the_sum():
    values = draw(5)
    got = solve(interference.wudi_steps(), values, [1, 1, 1])
    moved = np.abs(got - values.sum(0)).max()
    assert 1e-4 < moved < 4e-3
    best = solve(interference.wudi(), values, [1, 1, 1])
    assert np.abs(best - values.sum(0)).max() > 0.1


def test_wudi_steps_do_not_make_steps_of_rounding():
    values = draw(6) * [[[1]], [[0]], [[0]]]
    got = solve(interference.wudi_steps(7, 0.05), values, [1, 0, 0])
    np.testing.assert_array_equal(got, np.float32(values[0]))


def grams_of(x):
    return np.einsum("end,enk->edk", x, x) / x.shape[1]


def test_regmean_is_least_squares_on_everyones_inputs():
    values, x = draw(7), inputs()
    exact = merge.regmean(off_diagonal=1.0, ridge=0.0)
    data = jnp.asarray(grams_of(x), jnp.float32)
    got = leaves(exact, jnp.asarray(values, jnp.float32), WEIGHTS, data)
    for row, weights in zip(got, np.float64(WEIGHTS), strict=True):
        root = np.sqrt(weights)[:, None, None]
        rows = (root * x).reshape(-1, M)
        answers = (root * (x @ values)).reshape(-1, N)
        close(row, np.linalg.lstsq(rows, answers)[0], 5e-5)


@pytest.mark.parametrize("off_diagonal", [0.9, 0.1, 0.0])
def test_regmean_with_smaller_off_diagonals_and_a_ridge(off_diagonal):
    values, grams = draw(8), grams_of(inputs(1))
    method = merge.regmean(off_diagonal, ridge=0.01)
    weights = np.asarray([1, 3, 0.5])
    eye = np.eye(M)
    level = np.average(np.trace(grams, axis1=1, axis2=2), weights=weights) / M
    used = grams * (eye + off_diagonal * (1 - eye)) + 0.01 * level * eye
    total = np.tensordot(weights, used, 1)
    want = np.linalg.solve(total, np.einsum("e,edk,ekf->df", weights, used, values))
    close(solve(method, values, weights, grams), want)


def test_regmean_where_no_input_reaches_is_the_weighted_mean():
    values, x = draw(9), inputs(2, samples=3)
    x[:, :, 4:] = 0
    got = solve(merge.regmean(), values, [1, 3, 0], grams_of(x))
    mean = np.average(values, axis=0, weights=[1, 3, 0])
    close(got[4:], mean[4:])
    assert np.linalg.norm(got[:4] - mean[:4]) > 0.1 * np.linalg.norm(mean[:4])
    got = solve(merge.regmean(), values, [1, 3, 0], np.zeros((E, M, M)))
    close(got, mean)


def test_regmean_of_one_expert_is_that_expert():
    grams = grams_of(inputs(3, samples=3))
    close(solve(merge.regmean(), draw(), [0, 1, 0], grams), draw()[1], 2e-5)


def test_regmean_in_factors_is_the_same_method(make_library, dense):
    """Low rank and exact, for any gauge, and blind to who is absent."""
    weight = make_library()["q_proj"]["kernel"]
    weights = jnp.asarray([1.0, 0.0, 3.0])
    rng = np.random.default_rng(0)
    x = rng.standard_normal((E, 2, 20, 5))
    grams = np.einsum("elnd,elnk->eldk", x, x)
    grams[1] = np.nan
    method = merge.regmean()
    got = merged(method, weight, weights, jnp.asarray(grams, jnp.float32))
    assert got.a.shape == (2, 5, 6)
    got = dense({"": got})[""]
    deltas = dense({"": weight})[""]
    deltas[1] = 0
    for layer in range(2):
        want = method.leaf(
            jnp.asarray(deltas[:, layer], jnp.float32),
            weights,
            None,
            jnp.asarray(grams[:, layer], jnp.float32),
        )
        close(got[layer], want, 2e-5)
    turn = jnp.asarray([[2.0, 1.0], [0.0, -0.5]])
    turned = weight.replace(
        a=(weight.a @ turn).at[1].set(jnp.nan), b=jnp.linalg.inv(turn) @ weight.b
    )
    again = merged(method, turned, weights, jnp.asarray(grams, jnp.float32))
    close(dense({"": again})[""], got, 2e-5)


def test_fisher_is_a_mean_by_importance():
    values = draw(10, rank=4)
    importance = np.random.default_rng(0).uniform(0, 2e-3, (E, M, N)) ** 2
    data = jnp.asarray(importance, jnp.float32)
    got = leaves(merge.fisher(), jnp.asarray(values, jnp.float32), WEIGHTS, data)
    floored = np.maximum(importance, 1e-6)
    assert 0.2 < np.mean(importance < 1e-6) < 0.8
    for row, weights in zip(got, np.float64(WEIGHTS), strict=True):
        mass = weights[:, None, None] * floored
        close(row, (mass * values).sum(0) / mass.sum(0))


@pytest.mark.parametrize("method", ["regmean", "fisher"])
def test_absent_experts_may_have_any_data(method):
    values = draw() * [[[1]], [[0]], [[1]]]
    shape = (E, M, M) if method == "regmean" else (E, M, N)
    data = np.abs(np.random.default_rng(0).standard_normal(shape))
    if method == "regmean":
        data = data @ data.mT
    reduction = getattr(merge, method)()
    want = solve(reduction, values, [1, 0, 2], data)
    data[1] = np.nan
    np.testing.assert_array_equal(solve(reduction, values, [1, 0, 2], data), want)


@pytest.mark.parametrize("method", ["regmean", "fisher"])
def test_for_given_data_they_are_linear_in_the_experts(method):
    x, y = draw(11), draw(12)
    shape = (E, M, M) if method == "regmean" else (E, M, N)
    data = np.abs(np.random.default_rng(1).standard_normal(shape))
    if method == "regmean":
        data = data @ data.mT
    run = functools.partial(
        solve, getattr(merge, method)(), weights=[1, 2, 3], data=data
    )
    close(run(x + y), run(x) + run(y), 2e-5)
    assert getattr(merge, method)().data == "own"


@pytest.mark.parametrize(
    "make", [interference.wudi, interference.wudi_steps, merge.fisher]
)
def test_order_does_not_matter(make):
    values, order = draw(13), [2, 0, 1]
    data = np.abs(draw(14, rank=4)) if make is merge.fisher else None
    turned = None if data is None else data[order]
    weights = np.asarray([1, 3, 0.5])
    got = solve(make(), values, weights, data)
    close(solve(make(), values[order], weights[order], turned), got)


@pytest.mark.parametrize("method", ["wudi", "wudi_steps", "regmean", "fisher"])
def test_refuses_weights_that_are_no_shares(method):
    check = getattr(merge, method)().check
    with pytest.raises(ValueError, match=f"none below 0: in {method} they"):
        check(np.asarray([1.0, -0.5]))
    with pytest.raises(ValueError, match="divides by their sum"):
        check(np.zeros(2))
    check(np.asarray([1.0, 0.0]))


@pytest.mark.parametrize(
    ("method", "what"), [("regmean", "input Grams"), ("fisher", "importances")]
)
@pytest.mark.parametrize("data", [None, np.ones((E, M), np.float32)])
def test_refuses_data_that_do_not_fit(method, what, data):
    values, weights = jnp.ones((E, M, N)), jnp.ones(E)
    got = "None" if data is None else r"\(3, 9\)"
    with pytest.raises(ValueError, match=rf"{method} got data of shape {got}.*{what}"):
        getattr(merge, method)().leaf(values, weights, None, data)


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        ("wudi", {"side": "left"}, "side is 'left', expected 'inputs' or 'outputs'"),
        ("wudi", {"tolerance": 1.5}, "tolerance is 1.5"),
        ("wudi_steps", {"side": "left"}, "side is 'left'"),
        ("wudi_steps", {"steps": -1}, "-1 steps"),
        ("wudi_steps", {"learning_rate": 0.0}, "learning rate is 0.0"),
        ("regmean", {"off_diagonal": 1.1}, "off_diagonal is 1.1"),
        ("regmean", {"ridge": -0.1}, "ridge is -0.1"),
        ("fisher", {"floor": 0.0}, "floor is 0.0, expected above 0"),
    ],
)
def test_refuses_fields_out_of_range(make, fields, message):
    with pytest.raises(ValueError, match=message):
        getattr(merge, make)(**fields)


@pytest.mark.parametrize(("d", "f", "rank"), [(8, 6, 16), (6, 8, 16), (16, 16, 16)])
def test_ranks_that_fill_the_layer_give_the_least_squares(d, f, rank):
    rng = np.random.default_rng(rank)
    a, b = rng.standard_normal((2, d, rank)), rng.standard_normal((2, rank, f))
    parts = (jnp.asarray(x, jnp.float32) for x in (a, b, np.ones(2)))
    library = {"k": lora.LoraWeight(*parts)}
    merged = jax.jit(merge.preset("wudi"))(library, jnp.ones(2))["k"]
    deltas = a @ b
    norms = np.linalg.norm(deltas, axis=(1, 2), keepdims=True)
    left = np.concatenate((deltas / norms).swapaxes(1, 2))
    right = np.concatenate(deltas.swapaxes(1, 2) @ deltas / norms)
    want = np.linalg.lstsq(left, right, rcond=1e-5)[0]
    assert np.linalg.norm(want) > norms.max()  # larger than either, and so it must be
    size = np.linalg.norm(want)
    np.testing.assert_allclose(lora.delta(merged) / size, want / size, atol=1e-4)
