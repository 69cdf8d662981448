import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, merge


def double(key, library):
    del key
    return lora.lora_map(lambda w: w.replace(scale=2 * w.scale), library)


def shift(key, library):
    del key
    return lora.lora_map(lambda w: w.replace(scale=w.scale + 1), library)


def noise(key, library):
    def perturb(w):
        return w.replace(scale=jax.random.uniform(key, w.scale.shape))

    return lora.lora_map(perturb, library)


def halve(key, x):
    del key
    return dataclasses.replace(x, values={n: 0.5 * v for n, v in x.values.items()})


def test_prepare_runs_in_order_before_the_space(make_library, dense):
    library = make_library()
    mean = merge.weighted_mean()
    chained = merge.chain(mean, space="delta", prepare=[double, shift])
    by_hand = merge.preset("mean")(shift(None, double(None, library)))
    chex.assert_trees_all_close(chained(library), by_hand)
    other = merge.chain(mean, space="delta", prepare=[shift, double])
    assert not np.allclose(
        dense(other(library))["k_proj/kernel"], dense(by_hand)["k_proj/kernel"]
    )


def test_steps_see_coordinates(make_library, dense):
    library = make_library()
    half = merge.chain(halve, merge.weighted_sum(), space="delta")
    want = dense(merge.preset("sum")(library))
    with jax.disable_jit():
        halves = dense(half(library))
    for name, got in halves.items():
        np.testing.assert_allclose(got, 0.5 * want[name], rtol=1e-5, atol=1e-5)


def test_everything_that_draws_gets_a_fold_of_its_own(make_library):
    seen = []

    def spy(key, x):
        seen.append(jax.random.key_data(key).tolist())
        return x

    sum_of = merge.weighted_sum()
    chained = merge.chain(spy, spy, sum_of, space="delta", prepare=[spy, spy])
    with jax.disable_jit():
        chained(make_library(), key=jax.random.key(3))
    assert len(seen) == 2 + 2 * 4  # two transforms; two steps at two sites and layers
    assert len(set(map(tuple, seen))) == len(seen)
    assert seen[:2] == [
        jax.random.key_data(jax.random.fold_in(jax.random.key(3), i)).tolist()
        for i in (0, 1)
    ]


def test_vmap_over_keys_equals_a_loop(make_library):
    library = make_library()
    method = merge.chain(merge.weighted_mean(), space="factor", prepare=[noise])
    keys = jax.random.split(jax.random.key(0), 3)
    batched = jax.vmap(lambda key: method(library, key=key))(keys)
    rows = [method(library, key=key) for key in keys]
    chex.assert_trees_all_close(
        batched, jax.tree.map(lambda *x: jnp.stack(x), *rows), rtol=1e-5, atol=1e-6
    )
    assert not np.allclose(rows[0]["k_proj"]["kernel"].b, rows[1]["k_proj"]["kernel"].b)


def test_merges_are_values(make_library):
    perturb = merge.chain(merge.weighted_mean(), space="delta", laws=merge.LAWS)
    assert perturb == merge.preset("mean")
    assert hash(perturb) == hash(merge.preset("mean"))
    assert perturb != merge.preset("sum")
    chex.clear_trace_counter()

    @functools.partial(jax.jit, static_argnums=0)
    @chex.assert_max_traces(n=1)
    def run(method, library):
        return method(library)

    for method in (perturb, merge.preset("mean")):
        run(method, make_library())


def test_does_not_change_the_library(make_library):
    library = make_library()
    merge.preset("sum")(library, rank=1)
    chex.assert_trees_all_equal(library, make_library())


def test_a_chain_promises_nothing_by_default():
    assert merge.chain(merge.weighted_mean(), space="delta").laws == frozenset()


@pytest.mark.parametrize(
    ("steps", "space", "laws", "message"),
    [
        ((), "delta", (), "ends in nothing, expected a reduction"),
        ((double,), "delta", (), r"ends in <function double.*expected a reduction"),
        (
            (merge.weighted_mean(), merge.weighted_sum()),
            "delta",
            (),
            r"has the reduction WeightedSum\(normalize=True\) before its end",
        ),
        (
            (merge.weighted_mean(),),
            "delat",
            (),
            r"Unknown space 'delat'; did you mean 'delta'.*'core', 'delta', 'factor'",
        ),
        (
            (merge.weighted_mean(),),
            "delta",
            ("linear",),
            "Unknown law 'linear'; did you mean 'linearity'",
        ),
    ],
)
def test_chain_refuses(steps, space, laws, message):
    with pytest.raises(ValueError, match=message):
        merge.chain(*steps, space=space, laws=laws)


@pytest.mark.parametrize("rank", [0, -1, 7])
def test_refuses_a_rank_that_cannot_be(rank, make_library):
    message = f"adapter is {rank}, expected at least 1 and at most 6, the sum of 3"
    with pytest.raises(ValueError, match=message):
        merge.preset("mean")(make_library(), rank=rank)


@pytest.mark.parametrize("rank", [1, 6])
@pytest.mark.parametrize("name", ["sum", "factor-mean", "delta-ties"])
def test_rank_gives_the_best_approximation(name, rank, make_library, dense):
    library, method = make_library(), merge.preset(name)
    with jax.disable_jit():
        full, got = dense(method(library)), method(library, rank=rank)
    for site, want in full.items():
        u, s, vt = np.linalg.svd(want, full_matrices=False)
        best = (u[..., :rank] * s[..., None, :rank]) @ vt[..., :rank, :]
        assert lora.sites(got)[site].rank == rank
        error = np.linalg.norm(dense(got)[site] - best) / np.linalg.norm(want)
        assert error < 1e-5


@pytest.mark.parametrize("weights", [[1.0], [1.0] * 4, 1.0, np.ones((3, 1))])
def test_refuses_the_wrong_number_of_weights_in_and_out_of_jit(weights, make_library):
    mean, library = merge.preset("mean"), make_library()
    with pytest.raises(ValueError, match=r"expected \(3,\): one weight for each of"):
        mean(library, weights)
    with pytest.raises(ValueError, match=r"expected \(3,\): one weight for each of"):
        jax.eval_shape(lambda w: mean(library, w), jnp.asarray(weights))


@pytest.mark.parametrize("weights", [[1.0, np.nan, 1], [np.inf, 1.0, 1]])
def test_refuses_weights_that_are_not_finite(weights, make_library):
    with pytest.raises(ValueError, match=r"expected finite.*0 to leave it out"):
        merge.preset("ties")(make_library(), weights)


def test_values_of_weights_are_not_checked_inside_jit(make_library):
    run = jax.jit(lambda w: merge.preset("mean")(make_library(), w))
    assert np.isnan(run(jnp.zeros(3))["k_proj"]["kernel"].b).all()
    ones = jax.jit(lambda x: merge.preset("sum")(make_library(), [x, x, x]))(1.0)
    chex.assert_trees_all_close(ones, merge.preset("sum")(make_library()))


def test_data_must_be_of_the_librarys_sites(make_library):
    library, cat = make_library(), merge.preset("cat")
    with pytest.raises(ValueError, match="sees no data, but got some"):
        merge.preset("mean")(library, data={"k_proj": {"kernel": jnp.ones(3)}})
    with pytest.raises(ValueError, match=r"needs data.* got none; .*k_proj/kernel"):
        cat(library)
    some = {"k_proj/kernel": jnp.ones((3, 2)), "v_proj/kernel": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match=r"other sites; .*q_proj/kernel, v_proj"):
        cat(library, data=some)


def test_refuses_what_is_no_library(make_library):
    adapters = lora.unstack(make_library())
    with pytest.raises(ValueError, match=r"list of 3 adapters.*lora\.stack"):
        merge.preset("mean")(adapters)
    with pytest.raises(ValueError, match="Not a library"):
        merge.preset("mean")(lora.unstack(adapters[0])[0])
    with pytest.raises(ValueError, match="Not a library"):
        merge.preset("mean")({})
