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
    def one(w):
        return w.replace(scale=jax.random.uniform(key, w.scale.shape))

    return lora.lora_map(one, library)


def test_a_chain_is_its_steps_in_order(make_library, dense):
    library = make_library()
    chained = merge.chain(double, shift, merge.weighted_mean(), space="delta")
    by_hand = merge.preset("mean")(shift(None, double(None, library)))
    chex.assert_trees_all_close(chained(library), by_hand)
    other = merge.chain(shift, double, merge.weighted_mean(), space="delta")
    assert not np.allclose(
        dense(other(library))["k_proj/kernel"], dense(by_hand)["k_proj/kernel"]
    )


def test_transforms_get_their_own_fold_of_the_key(make_library):
    seen = []

    def spy(key, library):
        seen.append(key)
        return library

    key = jax.random.key(3)
    merge.chain(spy, spy, merge.weighted_sum(), space="delta")(make_library(), key=key)
    assert [jax.random.key_data(k).tolist() for k in seen] == [
        jax.random.key_data(jax.random.fold_in(key, i)).tolist() for i in (0, 1)
    ]


def test_vmap_over_keys_equals_a_loop(make_library):
    library = make_library()
    method = merge.chain(noise, merge.weighted_mean(), space="factor")
    keys = jax.random.split(jax.random.key(0), 3)
    batched = jax.vmap(lambda key: method(library, key=key))(keys)
    rows = [method(library, key=key) for key in keys]
    chex.assert_trees_all_close(
        batched, jax.tree.map(lambda *x: jnp.stack(x), *rows), rtol=1e-5
    )
    assert not np.allclose(rows[0]["k_proj"]["kernel"].b, rows[1]["k_proj"]["kernel"].b)


def test_merges_are_values(make_library):
    one = merge.chain(merge.weighted_mean(), space="delta", laws=merge.LAWS)
    assert one == merge.preset("mean")
    assert hash(one) == hash(merge.preset("mean"))
    assert one != merge.preset("sum")
    chex.clear_trace_counter()

    @functools.partial(jax.jit, static_argnums=0)
    @chex.assert_max_traces(n=1)
    def run(method, library):
        return method(library)

    for method in (one, merge.preset("mean")):
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
            r"has the reduction Reduction\(normalize=True\) before its end",
        ),
        (
            (merge.weighted_mean(),),
            "delat",
            (),
            r"Unknown space 'delat'; did you mean 'delta'.*'delta', 'factor'",
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


@pytest.mark.parametrize("rank", [0, -1])
def test_refuses_a_rank_below_one(rank, make_library):
    with pytest.raises(ValueError, match=f"adapter is {rank}, expected at least 1"):
        merge.preset("mean")(make_library(), rank=rank)


def test_refuses_what_is_no_library(make_library):
    adapters = lora.unstack(make_library())
    with pytest.raises(ValueError, match=r"list of 3 adapters.*lora\.stack"):
        merge.preset("mean")(adapters)
    with pytest.raises(ValueError, match="Not a library"):
        merge.preset("mean")(lora.unstack(adapters[0])[0])
    with pytest.raises(ValueError, match="Not a library"):
        merge.preset("mean")({})
