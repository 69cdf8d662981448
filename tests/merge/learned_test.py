"""Do learned weights find what was planted, and only within what they may move?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora
from jaxlora.lora import LoraWeight
from jaxlora.merge import chain, learned, search

PLANTED = {
    "k_proj/kernel": np.asarray([[0.7, 0.1], [0.2, 0.3], [0.1, 0.6]]),
    "q_proj/kernel": np.asarray([[0.2, 0.5], [0.5, 0.25], [0.3, 0.25]]),
}


def distance_to(dense, library, planted):
    """A loss: the squared distance to the planted sum, and that sum by site."""
    deltas = dense(library)
    wanted = {k: np.einsum("el,eldf->ldf", c, deltas[k]) for k, c in planted.items()}
    target = {k: jnp.asarray(x, jnp.float32) for k, x in wanted.items()}

    def loss(adapter):
        sites = lora.sites(adapter).items()
        return sum(jnp.mean((lora.delta(w) - target[k]) ** 2) for k, w in sites)

    return loss, wanted


def test_scales_of_every_site_and_layer_are_found_and_give_the_planted_sum(
    make_library, dense
):
    library = make_library()
    loss, wanted = distance_to(dense, library, PLANTED)
    result = learned.learn_scales(loss, library, steps=400, learning_rate=0.1)
    for name, planted in PLANTED.items():
        np.testing.assert_allclose(result[name], planted, atol=0.01)
        np.testing.assert_allclose(np.sum(result[name], 0), 1, rtol=1e-5)
    of_scales = chain(learned.scaled_sum(), space="delta")
    merged = of_scales(library, data=result)
    for name, delta in dense(merged).items():
        np.testing.assert_allclose(delta, wanted[name], atol=0.1)
    one_step = learned.learn_scales(loss, library, steps=1, learning_rate=1e-9)
    for scales in one_step.values():
        np.testing.assert_allclose(scales, 1 / 3, rtol=1e-5)
    equal = of_scales(library, data=one_step)
    assert float(loss(merged)) < 1e-3 * float(loss(equal))


def test_shared_scales_are_those_that_suit_all_libraries(make_library, dense):
    """Two libraries that ask for the same scalars, and then for different ones."""
    both = [make_library(seed=seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *both)
    how = {"steps": 400, "learning_rate": 0.1}

    def train(planted):
        one, two = (distance_to(dense, *x)[0] for x in zip(both, planted, strict=True))

        def loss(adapters):
            first, second = (
                jax.tree.map(lambda x, k=k: x[k], adapters) for k in (0, 1)
            )
            return one(first) + two(second)

        return learned.learn_scales(loss, stacked, **how, shared=True)

    same = train((PLANTED, PLANTED))
    for name, planted in PLANTED.items():
        assert same[name].shape == planted.shape
        np.testing.assert_allclose(same[name], planted, atol=0.02)
    swapped = {name: np.asarray(c)[::-1] for name, c in PLANTED.items()}
    between = train((PLANTED, swapped))
    for name, planted in PLANTED.items():
        far = np.abs(np.asarray(between[name]) - planted).max()
        assert far > 0.05


def test_free_scales_may_be_negative_and_softmax_may_not(make_library, dense):
    library = make_library()
    planted = {name: c - 0.5 for name, c in PLANTED.items()}
    loss, _ = distance_to(dense, library, planted)
    arguments = {"steps": 300, "learning_rate": 0.05}
    free = learned.learn_scales(loss, library, softmax=False, **arguments)
    bound = learned.learn_scales(loss, library, **arguments)
    for name, scales in planted.items():
        np.testing.assert_allclose(free[name], scales, atol=0.02)
        assert float(bound[name].min()) >= 0


def test_a_key_gives_the_loss_a_new_key_each_step_and_repeats(make_library):
    library = make_library(experts=2, layers=1)

    def noisy(adapter, key):
        pull = jax.random.normal(key, ())
        return pull * jnp.sum(lora.delta(lora.sites(adapter)["k_proj/kernel"]))

    def train(seed, steps):
        return learned.learn_scales(
            noisy, library, steps=steps, learning_rate=0.1, key=jax.random.key(seed)
        )["k_proj/kernel"]

    first = train(0, 6)
    np.testing.assert_array_equal(first, train(0, 6))
    assert not np.allclose(first, train(1, 6))
    # With one key for all steps Adam would move by its full rate in one direction.
    drift = jnp.abs(jnp.log(first[0] / first[1]))
    assert float(drift.max()) < 0.9 * 2 * 0.1 * 6


def test_training_that_diverges_or_asks_for_nothing_is_refused(make_library):
    library = make_library()
    with pytest.raises(ValueError, match=r"not finite after training .* of 0.1"):
        learned.learn_scales(
            lambda adapter: jnp.nan * adapter["k_proj"]["kernel"].b.sum(),
            library,
            steps=2,
            learning_rate=0.1,
        )
    for wrong in ({"steps": 0, "learning_rate": 1}, {"steps": 1, "learning_rate": -1}):
        with pytest.raises(ValueError, match="expected at least 1 step"):
            learned.learn_scales(lambda _: jnp.zeros(()), library, **wrong)


def test_scaled_sum_is_weights_times_scalars_times_deltas(make_library, dense):
    library = make_library()
    reduction, name = learned.scaled_sum(), "q_proj/kernel"
    weights, scales = jnp.asarray([2.0, 0.0, -1.0]), jnp.asarray(PLANTED[name])
    scales = scales.astype(jnp.float32)
    broken = jax.tree.map(lambda x: x.at[1].set(jnp.nan), lora.sites(library)[name])
    merged = reduction.factors(broken, weights, scales)
    deltas = dense(library)[name]
    wanted = np.einsum("e,el,eldf->ldf", weights, scales, deltas)
    np.testing.assert_allclose(dense({"": merged})[""], wanted, atol=1e-5)
    values = jnp.asarray(deltas[:, 0], jnp.float32)
    leaf = reduction.leaf(values, weights, None, scales[:, 0])
    np.testing.assert_allclose(leaf, wanted[0], atol=1e-5)
    flat = jax.tree.map(lambda x: x[:, 0], lora.sites(library)[name])
    single = reduction.factors(flat, weights, scales[:, 0])
    np.testing.assert_allclose(dense({"": single})[""], wanted[0], atol=1e-5)
    assert reduction.data == "target"
    assert hash(reduction) == hash(learned.scaled_sum())
    with pytest.raises(ValueError, match="got no scalars"):
        reduction.factors(flat, weights, None)


TOP = np.asarray([0.8, -0.4, 0.3])


def bowl(weights):
    return jnp.sum((weights - TOP.astype(np.float32)[None]) ** 2, axis=-1)


def test_search_finds_the_optimum_inside_the_box_and_at_its_edge():
    arguments = {"key": jax.random.key(0), "budget": 320, "penalty": 0.0}
    result = search.search_weights(bowl, 3, **arguments)
    np.testing.assert_allclose(result.weights, TOP, atol=0.03)
    np.testing.assert_allclose(result.loss, bowl(result.weights[None])[0], rtol=1e-5)
    edge = search.search_weights(bowl, 3, low=-0.2, high=0.5, **arguments)
    np.testing.assert_allclose(edge.weights, np.clip(TOP, -0.2, 0.5), atol=0.03)


def test_the_penalty_shrinks_weights_by_its_closed_form():
    result = search.search_weights(
        bowl, 3, key=jax.random.key(1), budget=400, penalty=1.2
    )
    # d/dw of (w - t)^2 + p |w| / E: soft thresholding by p / (2 E) = 0.2.
    np.testing.assert_allclose(result.weights, [0.6, -0.2, 0.1], atol=0.04)


def test_search_sees_whole_generations_starts_at_zero_and_keeps_the_best():
    seen = []

    def losses(weights):
        seen.append(np.asarray(weights))
        values = np.asarray(bowl(weights), np.float64)
        return np.where(np.arange(8) == 3, np.nan, values)

    result = search.search_weights(losses, 3, key=jax.random.key(2), budget=47)
    assert [x.shape for x in seen] == [(8, 3)] * 5
    np.testing.assert_array_equal(seen[0][0], 0)
    every = np.concatenate(seen)
    assert np.abs(every).max() <= 1.5
    objective = np.asarray(bowl(every)) + 0.05 * np.abs(every).mean(-1)
    objective = np.where(np.arange(40) % 8 == 3, np.inf, objective)
    np.testing.assert_array_equal(result.weights, every[objective.argmin()])
    lowest = np.minimum.accumulate(objective.reshape(5, 8).min(1))
    np.testing.assert_allclose(result.history, lowest, rtol=1e-5)
    again = search.search_weights(losses, 3, key=jax.random.key(2))
    np.testing.assert_array_equal(again.weights, result.weights)
    other = search.search_weights(losses, 3, key=jax.random.key(3))
    assert not np.array_equal(other.weights, result.weights)


def test_search_without_a_finite_loss_stays_at_the_base():
    result = search.search_weights(
        lambda weights: jnp.full(8, jnp.nan), 3, key=jax.random.key(0)
    )
    np.testing.assert_array_equal(result.weights, 0)
    assert np.isinf(result.loss)
    worse = search.search_weights(
        lambda weights: jnp.sum(weights**2, -1), 3, key=jax.random.key(0)
    )
    np.testing.assert_array_equal(worse.weights, 0)


def test_search_runs_over_merges_as_one_forward(make_library, dense):
    library = make_library()
    one_for_all = {
        name: np.asarray([[0.9] * 2, [-0.5] * 2, [0.2] * 2]) for name in PLANTED
    }
    loss, _ = distance_to(dense, library, one_for_all)

    def merged(weights):
        def single(w: LoraWeight) -> LoraWeight:
            return learned.scaled_sum().factors(w, weights, jnp.ones((3, 2)))

        return loss(lora.lora_map(single, library))

    forward = jax.jit(jax.vmap(merged))
    result = search.search_weights(
        forward, 3, key=jax.random.key(0), budget=240, penalty=0.0
    )
    np.testing.assert_allclose(result.weights, [0.9, -0.5, 0.2], atol=0.05)
    assert forward._cache_size() == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"library_size": 0}, "library of 0 experts"),
        ({"budget": 7}, "a budget of 7 candidates"),
        ({"population": 3}, "population of 3"),
        ({"low": 0.5}, r"box is \[0.5, 1.5\]"),
        ({"low": 0.0, "high": 0.0}, "more than 0"),
        ({"losses": lambda weights: jnp.zeros(3)}, r"shape \(3,\), expected \(8,\)"),
    ],
)
def test_a_search_of_nothing_is_refused(wrong, words):
    arguments = {"losses": bowl, "library_size": 3, "key": jax.random.key(0)} | wrong
    with pytest.raises(ValueError, match=words):
        search.search_weights(**arguments)
