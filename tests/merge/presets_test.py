"""One battery for all presets: a new merge joins the list and is tested."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora import lora, merge, spectrum

REL = 1e-5  # float32 products of a few terms
REL_BF16 = 3e-2  # two factors with 8 bits each
WEIGHTS = (0.5, -0.25, 1.5)


def difference(got, want):
    """The largest relative error over sites."""
    assert got.keys() == want.keys()
    return max(
        np.linalg.norm(got[name] - want[name]) / np.linalg.norm(want[name])
        for name in want
    )


def factors(library):
    for name, w in lora.sites(library).items():
        yield name, *(np.asarray(x, np.float64) for x in (w.a, w.b, w.scale))


def numpy_sum(library, weights):
    return {
        name: sum(
            w * s[e][..., None, None] * (a[e] @ b[e]) for e, w in enumerate(weights)
        )
        for name, a, b, s in factors(library)
    }


def numpy_mean(library, weights):
    return numpy_sum(library, np.asarray(weights) / np.sum(weights))


def numpy_factor_mean(library, weights):
    c = np.asarray(weights) / np.sum(weights)
    return {
        name: sum(
            c[e] * c[f] * s[f][..., None, None] * (a[e] @ b[f])
            for e in range(len(c))
            for f in range(len(c))
        )
        for name, a, b, s in factors(library)
    }


CLOSED_FORM = {"mean": numpy_mean, "sum": numpy_sum, "factor-mean": numpy_factor_mean}


def regauge(library, seed=0):
    """The same deltas with every expert's rank basis changed."""
    rng = np.random.default_rng(seed)

    def one(w):
        g = rng.standard_normal((*w.a.shape[:-2], w.rank, w.rank)) + 3 * np.eye(w.rank)
        return lora.LoraWeight(
            a=jnp.asarray(np.asarray(w.a) @ g, jnp.float32),
            b=jnp.asarray(np.linalg.solve(g, np.asarray(w.b)), jnp.float32),
            scale=w.scale,
        )

    return lora.lora_map(one, library)


def add_deltas(x, y, dense):
    """The library of the sums of two libraries' deltas, in factors of its own."""

    def one(delta):
        u, s, vt = np.linalg.svd(delta, full_matrices=False)
        return lora.LoraWeight(
            a=jnp.asarray(u * s[..., None, :], jnp.float32),
            b=jnp.asarray(vt, jnp.float32),
            scale=jnp.ones(s.shape[:-1], jnp.float32),
        )

    dx, dy = dense(x), dense(y)
    tree = {name.split("/")[0]: {"kernel": one(dx[name] + dy[name])} for name in dx}
    assert max(w.rank for w in lora.sites(tree).values()) >= 4
    return tree


def law_identity(run, make, dense):
    one = make(experts=1)
    return dense(run(one, None)), {name: x[0] for name, x in dense(one).items()}


def law_permutation(run, make, dense):
    library, order = make(), np.asarray([2, 0, 1])
    moved = jax.tree.map(lambda x: x[order], library)
    return (
        dense(run(moved, np.asarray(WEIGHTS)[order])),
        dense(run(library, WEIGHTS)),
    )


def law_gauge(run, make, dense):
    return dense(run(regauge(make()), WEIGHTS)), dense(run(make(), WEIGHTS))


def law_linearity(run, make, dense):
    x, y = make(1), make(2)
    dx, dy = dense(run(x, WEIGHTS)), dense(run(y, WEIGHTS))
    return (
        dense(run(add_deltas(x, y, dense), WEIGHTS)),
        {name: dx[name] + dy[name] for name in dx},
    )


def law_zero_weight(run, make, dense):
    poisoned = jax.tree.map(lambda x: x.at[1].set(jnp.nan), make())
    present = jax.tree.map(lambda x: x[np.asarray([0, 2])], make())
    return dense(run(poisoned, [1.0, 0.0, 3.0])), dense(run(present, [1.0, 3.0]))


def law_padding(run, make, dense):
    return dense(run(lora.pad(make(), 5), WEIGHTS)), dense(run(make(), WEIGHTS))


LAW_TESTS = {
    "identity": law_identity,
    "permutation": law_permutation,
    "gauge": law_gauge,
    "linearity": law_linearity,
    "zero_weight": law_zero_weight,
    "padding": law_padding,
}


def test_every_law_has_a_test_and_every_preset_a_closed_form():
    assert LAW_TESTS.keys() == merge.LAWS.keys()
    assert CLOSED_FORM.keys() == set(merge.names())


@pytest.mark.parametrize("law", LAW_TESTS)
@pytest.mark.parametrize("name", merge.names())
def test_keeps_the_laws_it_declares_and_no_other(name, law, make_library, dense):
    got, want = LAW_TESTS[law](merge.preset(name), make_library, dense)
    if law in merge.preset(name).laws:
        assert difference(got, want) < REL
    else:
        assert difference(got, want) > 0.1


def test_declared_laws():
    everything = frozenset(merge.LAWS)
    assert merge.preset("mean").laws == merge.preset("sum").laws == everything
    assert merge.preset("factor-mean").laws == everything - {"gauge", "linearity"}


@pytest.mark.parametrize("weights", [None, (1.0, 1.0, 2.0), WEIGHTS, (0.0, 1.0, -3.0)])
@pytest.mark.parametrize("name", merge.names())
def test_equals_the_closed_form(name, weights, make_library, dense):
    library = make_library()
    got = merge.preset(name)(library, weights)
    want = CLOSED_FORM[name](library, (1.0, 1.0, 1.0) if weights is None else weights)
    assert difference(dense(got), want) < REL
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(got))
    assert all((np.asarray(w.scale) == 1).all() for w in lora.sites(got).values())


@pytest.mark.parametrize("name", merge.names())
def test_two_known_experts_by_hand(name):
    # delta_0 = 2 * 3 * 5 and delta_1 = 1 * 7 * 11, all numbers 1 x 1.
    library = {
        "kernel": lora.LoraWeight(
            a=jnp.asarray([3.0, 7.0]).reshape(2, 1, 1),
            b=jnp.asarray([5.0, 11.0]).reshape(2, 1, 1),
            scale=jnp.asarray([2.0, 1.0]),
        )
    }
    want = {"mean": 53.5, "sum": 107.0, "factor-mean": 5.0 * (2 * 5 + 11) / 2}[name]
    assert lora.delta(merge.preset(name)(library)["kernel"]).item() == want


def test_merges_adapters_of_mixed_ranks(make_library, dense):
    small, large = (
        lora.unstack(make_library(rank, experts=1, rank=rank))[0] for rank in (1, 4)
    )
    got = dense(merge.preset("mean")(lora.stack([small, large])))
    x, y = dense(small), dense(large)
    assert difference(got, {name: (x[name] + y[name]) / 2 for name in x}) < REL


@pytest.mark.parametrize("rank", [1, 3, 40])
@pytest.mark.parametrize("name", merge.names())
def test_rank_gives_the_best_approximation(name, rank, make_library, dense):
    library = make_library()
    got = merge.preset(name)(library, WEIGHTS, rank=rank)
    for site, full in CLOSED_FORM[name](library, WEIGHTS).items():
        u, s, vt = np.linalg.svd(full, full_matrices=False)
        want = (u[..., :rank] * s[..., None, :rank]) @ vt[..., :rank, :]
        assert lora.sites(got)[site].rank == rank
        error = np.linalg.norm(dense(got)[site] - want) / np.linalg.norm(full)
        assert error < REL


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("name", merge.names())
def test_jit_equals_eager_and_does_not_trace_twice(name, rank, make_library, dense):
    method = merge.preset(name)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(library, weights):
        return method(library, weights, rank=rank)

    for seed, weights in enumerate([(1.0, 2.0, 3.0), WEIGHTS]):
        library = make_library(seed)
        eager = method(library, weights, rank=rank)
        jitted = run(library, jnp.asarray(weights))
        assert difference(dense(jitted), dense(eager)) < REL
    as_object = jax.jit(method, static_argnames="rank")(library, weights, rank=rank)
    assert difference(dense(as_object), dense(eager)) < REL


@pytest.mark.parametrize("name", merge.names())
def test_vmap_equals_a_loop_over_weights_and_libraries(name, make_library, dense):
    method = merge.preset(name)
    grid = np.asarray([[1, 0, 0], [0.5, 0.5, 0], [0.2, -0.3, 0.7]], np.float32)
    libraries = [make_library(seed) for seed in range(len(grid))]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *libraries)
    over_weights = dense(jax.vmap(lambda w: method(libraries[0], w))(grid))
    over_both = dense(jax.vmap(method)(stacked, grid))
    for i, weights in enumerate(grid):
        row = {site: x[i] for site, x in over_weights.items()}
        assert difference(row, dense(method(libraries[0], weights))) < REL
        row = {site: x[i] for site, x in over_both.items()}
        assert difference(row, dense(method(libraries[i], weights))) < REL


@pytest.mark.parametrize("name", merge.names())
def test_bfloat16_is_close_to_float32(name, make_library, dense):
    library = make_library()
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), library)
    rounded = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    method = merge.preset(name)
    got = dense(method(half, WEIGHTS))
    assert difference(got, dense(method(rounded, WEIGHTS))) < REL
    assert difference(got, dense(method(library, WEIGHTS))) < REL_BF16


@pytest.mark.parametrize("name", merge.names())
def test_gradient_with_respect_to_weights(name, make_library):
    library, method = make_library(), merge.preset(name)

    @jax.jit
    def loss(weights):
        merged = lora.sites(method(library, weights))
        return sum(jnp.sum(spectrum.inner(w, w)) for w in merged.values())

    weights, step = jnp.asarray([0.5, 0.7, 0.9]), 1e-2
    got = jax.grad(loss)(weights)
    for e in range(3):
        move = step * jax.nn.one_hot(e, 3)
        want = (loss(weights + move) - loss(weights - move)) / (2 * step)
        np.testing.assert_allclose(got[e], want, rtol=2e-2, atol=0.05)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    weights=st.lists(st.floats(0.25, 2.0), min_size=3, max_size=3),
    order=st.permutations(range(3)),
)
def test_gauge_and_order_as_properties(seed, weights, order, make_library, dense):
    library = make_library(seed)
    moved = jax.tree.map(lambda x: x[np.asarray(order)], regauge(library, seed))
    shuffled = [weights[e] for e in order]
    for name in ("mean", "sum"):
        method = merge.preset(name)
        got, want = dense(method(moved, shuffled)), dense(method(library, weights))
        assert difference(got, want) < 1e-4  # the rotation itself is rounded
    method = merge.preset("factor-mean")
    got, want = dense(method(moved, shuffled)), dense(method(library, weights))
    assert difference(got, want) > 1e-2


def test_factor_mean_equals_the_mean_only_where_a_is_shared(make_library, dense):
    library = make_library()
    shared = lora.lora_map(
        lambda w: w.replace(a=jnp.broadcast_to(w.a[:1], w.a.shape)), library
    )
    factor, exact = merge.preset("factor-mean"), merge.preset("mean")
    assert difference(dense(factor(shared)), dense(exact(shared))) < REL
    assert difference(dense(factor(library)), dense(exact(library))) > 0.1


def test_names_the_nearest_merge():
    with pytest.raises(ValueError, match=r"'factor_mean'; did you mean 'factor-mean'"):
        merge.preset("factor_mean")
    with pytest.raises(ValueError, match=r"There are 'factor-mean', 'mean', 'sum'"):
        merge.preset("zzz")
