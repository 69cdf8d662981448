"""Gates and mixing on arrays, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxlora import lora, route
from jaxlora.lora import LoraWeight
from jaxlora.route import Route

E, D, F, R, N = 3, 6, 4, 2, 5
ATOL = 1e-5
X = jnp.asarray(np.random.default_rng(9).standard_normal((N, D)), jnp.float32)
G = jnp.asarray(np.random.default_rng(8).standard_normal((N, E)), jnp.float32)


def dense(w):
    a, b, s = (np.asarray(x, np.float64) for x in (w.a, w.b, w.scale))
    return s[..., None, None] * (a @ b)


def loop(w, x, g):
    """One token and one expert at a time."""
    out = np.zeros((len(x), w.b.shape[-1]))
    for n, e in np.ndindex(*g.shape):
        out[n] += float(g[n, e]) * np.asarray(x[n], np.float64) @ dense(w)[e]
    return out


def weigh(gate, state, x, labels=None, **fields):
    return Route(gate=gate, **fields).weights(state, x, labels)


# Mixing.


def test_mix_equals_a_loop_over_tokens_and_experts(make_site):
    w = make_site(0, E)
    got = route.mix(w, X, G)
    np.testing.assert_allclose(got, loop(w, X, G), atol=ATOL)
    single = jnp.zeros((N, E)).at[:, 1].set(1.0)
    alone = np.asarray(X, np.float64) @ dense(w)[1]
    np.testing.assert_allclose(route.mix(w, X, single), alone, atol=ATOL)


@pytest.mark.parametrize("absent", ["weight", "scale", "b"])
def test_an_expert_of_zero_adds_nothing(make_site, absent):
    w = make_site(0, E)
    rest = jax.tree.map(lambda x: x[:2], w)
    want = loop(rest, X, G[:, :2])
    g = G.at[:, 2].set(0.0) if absent == "weight" else G
    if absent != "weight":
        w = w.replace(**{absent: getattr(w, absent).at[2].set(0.0)})
    np.testing.assert_allclose(route.mix(w, X, g), want, atol=ATOL)


def test_padding_the_rank_changes_nothing(make_site):
    w = make_site(0, E)
    padded = lora.pad({"kernel": w}, 5)["kernel"]
    np.testing.assert_allclose(route.mix(padded, X, G), route.mix(w, X, G), atol=ATOL)


def test_mix_keeps_the_type_of_its_input(make_site):
    w = make_site(0, E)
    got = route.mix(w, X.astype(jnp.bfloat16), G)
    assert got.dtype == jnp.bfloat16
    error = np.abs(got.astype(jnp.float32) - loop(w, X, G)).max()
    assert 1e-6 < error < 0.05 * np.abs(loop(w, X, G)).max()
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), w)
    assert route.mix(low, X, G).dtype == jnp.float32


def test_mix_gradients_reach_factors_and_weights(make_site):
    w = make_site(0, E)
    grads = jax.grad(lambda w, g: jnp.sum(route.mix(w, X, g) ** 2), (0, 1))(w, G)
    assert all(float(jnp.abs(leaf).min()) > 0 for leaf in jax.tree.leaves(grads))


# Top-k softmax.


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, E), st.sampled_from([0.1, 1.0, 3.0]))
def test_top_k_softmax_equals_numpy(seed, k, temperature):
    scores = np.random.default_rng(seed).standard_normal((N, E)).astype(np.float32)
    want = np.zeros((N, E))
    for n, row in enumerate(scores.astype(np.float64) / temperature):
        best = np.argsort(-row)[:k]
        want[n, best] = np.exp(row[best] - row.max())
    want /= want.sum(-1, keepdims=True)
    got = route.weigh(jnp.asarray(scores), jnp.ones(E, bool), k, temperature).weights
    np.testing.assert_allclose(got, want, atol=ATOL)
    assert (np.count_nonzero(want, axis=-1) == k).all()


def test_ties_keep_exactly_k():
    got = route.weigh(jnp.ones((1, 4)), jnp.ones(4, bool), 2, 1.0).weights
    assert got.tolist() == [[0.5, 0.5, 0.0, 0.0]]


# Gates.


def test_uniform_is_one_over_e(make_site):
    state = route.uniform.init({"kernel": make_site(0, E)})["kernel"]
    got = weigh(route.uniform, state, X)
    assert got.shape == (N, E)
    np.testing.assert_array_equal(got, np.float32(1 / 3))


def test_arrow_prototypes_are_top_singular_directions(make_site):
    w = make_site(0, E, 2)
    state = route.arrow.init({"kernel": w})["kernel"]
    assert state.live.all()
    state = state.keys[..., 0]
    assert state.shape == (E, 2, D)
    want = np.linalg.svd(dense(w))[0][..., 0]
    np.testing.assert_allclose(np.abs((state * want).sum(-1)), 1, atol=ATOL)
    np.testing.assert_allclose(np.linalg.norm(state, axis=-1), 1, atol=ATOL)


def test_arrow_equals_numpy(make_site):
    w = make_site(0, E)
    top = np.linalg.svd(dense(w))[0][..., 0]  # [E, D]
    score = np.abs(np.asarray(X) @ top.T) / 0.5
    want = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
    state = route.arrow.init({"kernel": w})["kernel"]
    np.testing.assert_allclose(
        weigh(route.arrow, state, X, temperature=0.5), want, atol=ATOL
    )


@jax.jit
def arrow_weights(w):
    return weigh(route.arrow, route.arrow.init({"k": w})["k"], X)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_arrow_does_not_depend_on_sign_or_gauge(make_site, seed):
    rng = np.random.default_rng(seed)
    w = make_site(seed, E)
    spectrum = np.linalg.svd(dense(w), compute_uv=False)
    assume((spectrum[:, 1] / spectrum[:, 0]).max() < 0.9)  # else rounding turns the top
    g = np.linalg.qr(rng.standard_normal((E, R, R)))[0] * rng.uniform(0.5, 2, (E, 1, R))
    turned = LoraWeight(
        a=jnp.asarray(np.asarray(w.a) @ g, jnp.float32),
        b=jnp.asarray(2.0 * np.linalg.inv(g) @ np.asarray(w.b), jnp.float32),
        scale=w.scale / 2.0,
    )
    flipped = w.replace(a=-w.a)  # the opposite delta has the same directions
    want = arrow_weights(w)
    for same in (turned, flipped):
        np.testing.assert_allclose(arrow_weights(same), want, atol=1e-3)
    other = arrow_weights(w.replace(a=w.a[::-1]))
    assert np.abs(other - want).max() > 1e-2


def test_arrow_keeps_the_best_expert(make_site):
    state = route.arrow.init({"k": make_site(0, E)})["k"]
    every = np.asarray(weigh(route.arrow, state, X))
    single = np.asarray(weigh(route.arrow, state, X, top_k=1))
    np.testing.assert_array_equal(single, np.eye(E)[every.argmax(-1)])
    assert len(set(every.argmax(-1))) > 1
    two = np.asarray(weigh(route.arrow, state, X, top_k=2))
    assert ((two > 0).sum(-1) == 2).all()
    assert (two[np.arange(N), every.argmin(-1)] == 0).all()


def test_temperature_from_greedy_to_uniform(make_site):
    state = route.arrow.init({"k": make_site(0, E)})["k"]
    greedy = weigh(route.arrow, state, X, top_k=1)
    cold = weigh(route.arrow, state, X, temperature=1e-4)
    np.testing.assert_allclose(cold, greedy, atol=ATOL)
    hot = weigh(route.arrow, state, X, temperature=1e6)
    np.testing.assert_allclose(hot, 1 / E, atol=ATOL)


def test_the_oracle_returns_its_labels(make_site):
    state = route.oracle.init({"k": make_site(0, E)})["k"]
    assert (weigh(route.oracle, state, X, G) == G).all()
    with pytest.raises(ValueError, match=r"needs labels \[L, B, T, E\]; got none"):
        weigh(route.oracle, state, X)


@pytest.mark.parametrize("name", ["arrow", "oracle"])
def test_permuting_experts_permutes_weights(make_site, name):
    gate, w, order = getattr(route, name), make_site(0, E), jnp.array([2, 0, 1])
    moved = jax.tree.map(lambda x: x[order], w)
    got, want = (
        weigh(gate, gate.init({"k": v})["k"], X, labels, top_k=2)
        for v, labels in ((moved, G[:, order]), (w, G))
    )
    np.testing.assert_allclose(got, want[:, order], atol=1e-6)
    np.testing.assert_allclose(
        route.mix(moved, X, got), route.mix(w, X, want), atol=ATOL
    )


@pytest.mark.parametrize("name", ["uniform", "arrow", "oracle"])
def test_jit_once_and_vmap_over_libraries(make_site, name):
    way = Route(gate=getattr(route, name), top_k=2)
    many = make_site(0, 4, E)

    traces = []

    def single(w, x, labels):
        traces.append(1)
        state = way.gate.init({"k": w})["k"]
        return route.mix(w, x, way.weights(state, x, labels))

    fast = jax.jit(jax.vmap(single, in_axes=(0, None, None)))
    got = [fast(many, x, G) for x in (-X, X)][1]
    assert len(traces) == 1
    want = [single(jax.tree.map(lambda x, i=i: x[i], many), X, G) for i in range(4)]
    np.testing.assert_allclose(got, jnp.stack(want), atol=1e-4)


# What is refused.


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"top_k": -1}, "top_k is -1, expected 1 or more"),
        ({"top_k": 0}, "top_k is 0, expected 1 or more"),
        ({"gate": "arrow"}, "gate is 'arrow', expected a Gate"),
        ({"mixing": "sum"}, "mixing is 'sum', expected one of 'outputs'"),
        ({"temperature": 0.0}, "temperature is 0.0, expected a positive"),
        ({"temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_routes_that_mean_nothing_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Route(**({"gate": route.arrow} | fields))


def test_more_experts_than_there_are_is_refused():
    state = route.State(jnp.ones((E, D, 1)), jnp.ones(E, bool), jnp.ones(E))
    with pytest.raises(ValueError, match="top_k is 4, but the library has 3 experts"):
        weigh(route.arrow, state, X, top_k=4)


def test_a_misspelt_route_is_refused():
    with pytest.raises(ValueError, match=r"Unknown route 'arow'; did you mean 'arrow'"):
        route.preset("arow")
    with pytest.raises(ValueError, match=r"'arrow' has no field 'topk'; its fields: "):
        route.preset("arrow", topk=1)
    with pytest.raises(ValueError, match="Cannot import the route 'jaxlora:nothing'"):
        route.preset("jaxlora:nothing")


def test_an_empty_library_is_refused(make_site):
    for empty in ({}, {"k": make_site(0, 0, 2)}):
        with pytest.raises(ValueError, match="Not a library"):
            route.arrow.init(empty)


def test_labels_that_name_no_expert_are_refused():
    for odd in (-2, E):
        with pytest.raises(ValueError, match=f"label is {odd}, which names no expert"):
            route.one_hot([0, odd], E)


# A state of another library, or base.


@pytest.mark.parametrize("per", ["site", "layer", "model"])
def test_a_state_of_another_library_is_refused(make_site, per):
    way = Route(gate=route.Linear(per=per))
    single, other = ({"k": make_site(seed, E, 2)} for seed in (0, 1))
    state = way.init(single, width=D)
    route.check(way, state, single)
    route.check(way, state, jax.tree.map(lambda x: x.astype(jnp.bfloat16), single))
    with pytest.raises(ValueError, match="made for another library: expert 0 is not"):
        route.check(way, state, other)
    fewer = jax.tree.map(lambda x: x[:2], single)
    with pytest.raises(ValueError, match="experts first; was it made for another lib"):
        route.check(way, state, fewer)
    with pytest.raises(ValueError, match=r"differ in .*expected 2 places|differ in"):
        route.check(way, {"other": state}, single)


def test_a_state_of_another_base_is_refused(make_site):
    way, w = Route(gate=route.arrow), make_site(0, E, 2)
    wide = LoraWeight(jnp.ones((E, 2, D + 1, R)), w.b, w.scale)
    state = way.init({"k": wide})
    with pytest.raises(ValueError, match="was it made for another base"):
        route.check(way, state, {"k": w})


# Where power iteration is wrong.


def test_prototypes_are_exact_where_two_singular_values_are_close():
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((d, R)))[0] for d in (D, F))
    delta = left * np.array([1.0, 0.99]) @ right.T
    a, b = left * np.array([1.0, 0.99]), right.T
    w = LoraWeight(*(jnp.asarray(x[None], jnp.float32) for x in (a, b)), jnp.ones(1))
    exact = np.linalg.svd(delta)[0][:, 0]
    result = np.asarray(route.arrow.init({"k": w})["k"].keys)[0, :, 0]
    np.testing.assert_allclose(abs(result @ exact), 1.0, atol=ATOL)
    v = rng.standard_normal(D)
    for _ in range(15):  # as PEFT does
        v = delta @ (delta.T @ v)
        v /= np.linalg.norm(v)
    assert abs(v @ exact) < 0.95


# Taking a general expert out.


def test_subtract_general_equals_numpy_and_counts_live_experts_only(make_site):
    w, general = make_site(0, E, 2), make_site(1, 2, 2)
    padded = jax.tree.map(lambda x: jnp.concatenate([x, 0 * x[:1]]), general)
    for common in (general, padded):
        got = route.subtract_general({"k": w}, {"k": common})["k"]
        np.testing.assert_allclose(
            dense(got), dense(w) - dense(general).mean(0), atol=ATOL
        )
        got = route.subtract_general({"k": w}, {"k": common}, form="factor")["k"]
        a, b = (np.asarray(x) for x in (general.a, general.b))
        want = (np.asarray(w.a) - a.mean(0)) @ (np.asarray(w.b) - b.mean(0))
        want = np.asarray(w.scale)[..., None, None] * want
        np.testing.assert_allclose(dense(got), want, atol=ATOL)


# Means of the sequence so far.


def test_running_means_go_on_from_call_to_call():
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    want = np.cumsum(x, axis=1) / np.arange(1, 5)[None, :, None]
    full = route.Pool(jnp.tril(jnp.ones((2, 4, 4))))
    np.testing.assert_allclose(
        route.running_mean(full, x.reshape(8, 3))[0], want.reshape(8, 3), atol=ATOL
    )
    half = jnp.tril(jnp.ones((2, 2, 2)))
    first = route.Pool(half, jnp.zeros((2, 1)))
    means, total = route.running_mean(first, x[:, :2].reshape(4, 3), jnp.zeros((2, 3)))
    later = route.Pool(half, jnp.full((2, 1), 2.0))
    more, _ = route.running_mean(later, x[:, 2:].reshape(4, 3), total)
    got = np.concatenate([means.reshape(2, 2, 3), more.reshape(2, 2, 3)], axis=1)
    np.testing.assert_allclose(got, want, atol=ATOL)


def test_nan_scores_are_passed_over_and_said():
    scores = jnp.array([[jnp.nan, 1.0, 0.0], [jnp.nan] * 3, [0.0, 0.0, jnp.nan]])
    live = jnp.array([True, True, False])
    for weighting in ("softmax", "unit", "sigmoid"):
        result = route.weigh(scores, live, 1, 1.0, weighting)
        assert result.nonfinite.tolist() == [True, True, False]
        assert np.isfinite(result.weights).all()
        assert (result.weights[:, 2] == 0).all()
        assert (result.weights > 0).argmax(-1).tolist() == [1, 0, 0]


def test_equal_routes_are_one_static_argument():
    assert hash(Route(gate=route.arrow)) == hash(route.preset("arrow"))
    assert Route(gate=route.arrow) != Route(gate=route.arrow, top_k=1)
