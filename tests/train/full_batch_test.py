"""Many experts in one program: what one gets alone, at once, and on eight devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxlora import lora, parallel
from jaxlora.evaluate import scoring
from jaxlora.lora import LoraConfig
from jaxlora.train.full_batch import Steps, finetune, fit_experts, fit_from
from jaxlora.train.step import ADAPTER, BASE, Fit, mean, step, sums

E, PAD, STEPS = 8, 0, 40
CONFIG = LoraConfig(rank=2, alpha=4.0)
OPT, SGD = optax.adam(3e-2), optax.sgd(0.1)
KEYS = jax.random.split(jax.random.key(5), E)
ATOL = 1e-3  # 40 Adam steps amplify the rounding of batched products


def fit(model, base, rows, keys=KEYS, steps=STEPS):
    return fit_experts(model, OPT, CONFIG, steps, PAD, base, rows, keys)


def pick(tree, *chosen):
    return jax.tree.map(lambda x: x[jnp.array(chosen)], tree)


@pytest.fixture(scope="module")
def library(model, base, rows):
    return fit(model, base, rows)


def test_every_expert_learns_its_facts_and_the_base_knows_none(
    model, base, rows, library
):
    trained, losses = library
    right = jax.vmap(lambda b, ad: scoring.right(model, PAD, base, *b, adapter=ad))
    assert right(rows, trained).all()
    assert (losses < 0.5).all()
    fresh = lora.lora_map(lambda w: w.replace(b=jnp.zeros_like(w.b)), trained)
    assert right(rows, fresh).mean() < 0.4
    # Each knows its own facts, not a common answer.
    assert not right(rows, pick(trained, *range(1, E), 0)).all()


def test_scales_are_bit_unchanged_and_the_base_untouched(model, base, rows):
    before = jax.tree.map(np.array, base)
    trained, _ = fit(model, base, rows)
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, base), before)
    for w in lora.sites(trained).values():
        assert w.scale.shape == (E, 2)
        assert w.scale.dtype == jnp.float32
        assert (w.scale == 2.0).all()
        assert not (w.b == 0).all(axis=(1, 2, 3)).any()


def test_one_expert_alone_is_the_expert_among_eight(model, base, rows, library):
    alone, last = fit(model, base, pick(rows, 3), KEYS[3:4])
    want, losses = pick(library, 3)
    chex.assert_trees_all_close(alone, want, atol=ATOL)
    np.testing.assert_allclose(last, losses, atol=ATOL)
    other = lora.sites(pick(library[0], 4))["layers/attn/q_proj/kernel"]
    mine = lora.sites(alone)["layers/attn/q_proj/kernel"]
    assert np.abs(other.a - mine.a).max() > 100 * ATOL


def test_rows_of_no_weight_do_not_matter(model, base, rows, library):
    def padded(token):
        more = {"tokens": token, "targets": token, "weights": 0}

        def pad(x, value):
            return jnp.pad(x, [(0, 0), (0, 1), (0, 0)], constant_values=value)

        return type(rows)(*(pad(getattr(rows, k), v) for k, v in more.items()))

    one, two = (fit(model, base, padded(token)) for token in (0, 7))
    chex.assert_trees_all_equal(one, two)
    chex.assert_trees_all_close(one, library, atol=ATOL)


def test_neighbours_do_not_matter_and_the_key_decides_the_start(
    model, base, rows, library
):
    # Expert 1 is given the rows of expert 0, and keeps its own key.
    other = jax.tree.map(lambda x: x.at[1].set(x[0]), rows)
    got, _ = fit(model, base, other)
    kept = (0, *range(2, E))
    chex.assert_trees_all_equal(pick(got, *kept), pick(library[0], *kept))
    w = lora.sites(got)["layers/attn/q_proj/kernel"]
    assert np.abs(w.a[0] - w.a[1]).max() > 0.1


@pytest.fixture(scope="module")
def stepping(model, base):
    """A step on one expert, and fresh fits [E, ...]."""
    scales = lora.split(lora.init(KEYS[0], base, CONFIG))[1]

    value = mean(sums(model, ADAPTER, scales, {"base": base}, PAD))

    def start(key):
        factors, _ = lora.split(lora.init(key, base, CONFIG))
        return Fit(factors, SGD.init(factors))

    def one(state, batch):
        return step(jax.value_and_grad(value), SGD, state, batch)

    return value, one, jax.jit(jax.vmap(start))(KEYS)


@pytest.fixture(scope="module")
def stepped(rows, stepping):
    return jax.jit(jax.vmap(stepping[1]))(stepping[2], rows)


def test_a_step_is_gradient_descent(rows, stepping, stepped):
    value, _, fits = stepping
    losses, grads = jax.jit(jax.vmap(jax.value_and_grad(value)))(fits.params, rows)
    want = jax.tree.map(lambda x, g: x - 0.1 * g, fits.params, grads)
    chex.assert_trees_all_close(stepped[0].params, want, atol=1e-6)
    np.testing.assert_allclose(stepped[1], losses, rtol=1e-6)
    assert not (stepped[0].params["layers"]["attn"]["q_proj"]["kernel"]["b"] == 0).all()


def test_pmap_of_vmap_of_a_step_is_vmap_alone(rows, stepping, stepped):
    _, one, fits = stepping
    devices = jax.devices()[4:]

    def cut(tree):
        return jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), tree)

    got = jax.pmap(jax.vmap(one), devices=devices)(cut(fits), cut(rows))
    placed = jax.tree.leaves(got)[0].addressable_shards
    assert {shard.device for shard in placed} == set(devices)
    assert {shard.data.shape[:2] for shard in placed} == {(1, 2)}
    flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), got)
    chex.assert_trees_all_close(flat, stepped, atol=1e-5)


def test_experts_over_eight_devices_are_the_same_library(model, base, rows, library):
    assert jax.device_count() == 8
    mesh = parallel.mesh(expert=8)
    cut = parallel.shard_experts((rows, KEYS), mesh)
    whole = jax.device_put(base, NamedSharding(mesh, PartitionSpec()))
    got, losses = fit(model, whole, *cut)
    wanted = NamedSharding(mesh, PartitionSpec("expert"))
    for w in lora.sites(got).values():
        for leaf in (w.a, w.b):
            assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)
            shapes = [shard.data.shape for shard in leaf.addressable_shards]
            assert shapes == [(1, *leaf.shape[1:])] * 8
    chex.assert_trees_all_close(
        jax.tree.map(np.asarray, got), jax.tree.map(np.asarray, library[0]), atol=ATOL
    )
    np.testing.assert_allclose(losses, library[1], atol=ATOL)


def test_finetuning_is_gradient_descent_on_copies(model, base, rows):
    two = pick(rows, 0, 1)
    copies, last = finetune(model, SGD, 1, PAD, base, two)
    grad = jax.value_and_grad(mean(sums(model, BASE, (), {}, PAD)))
    losses, grads = jax.jit(jax.vmap(grad, in_axes=(None, 0)))(base, two)
    want = jax.tree.map(lambda x, g: x[None] - 0.1 * g, base, grads)
    chex.assert_trees_all_close(copies, want, atol=1e-5)
    np.testing.assert_allclose(last, losses, rtol=1e-4)
    assert (np.asarray(copies["head"][0]) != copies["head"][1]).any()


@jax.jit
def fresh(base):
    """Untrained adapters [E, ...], as fit_experts makes them."""
    return jax.vmap(lambda key: lora.init(key, base, CONFIG))(KEYS)


def go_on(model, base, rows, begin, steps, keys=KEYS):
    return fit_from(model, OPT, steps, PAD, base, rows, begin, keys)


def test_fits_from_fresh_adapters_are_those_of_fit_experts(model, base, rows, library):
    got, losses = go_on(model, base, rows, fresh(base), Steps(STEPS))
    chex.assert_trees_all_close(got, library[0], atol=ATOL)
    np.testing.assert_allclose(losses, library[1], atol=ATOL)


def test_fits_go_on_from_where_they_are_given(model, base, rows):
    _, early = go_on(model, base, rows, fresh(base), Steps(1))
    first, _ = go_on(model, base, rows, fresh(base), Steps(STEPS))
    # A step's loss is that before the step.
    _, late = go_on(model, base, rows, first, Steps(1))
    assert (late < early - 0.5).all()


def test_confined_layers_stay_exactly_zero(model, base, rows):
    kept = jnp.asarray(np.arange(2) == np.arange(E)[:, None] % 2)  # one of two layers
    begin = jax.vmap(lora.confine)(fresh(base), kept)
    got, losses = go_on(model, base, rows, begin, Steps(STEPS))
    for w in lora.sites(got).values():
        for factor in (w.a, w.b):
            moved = np.abs(factor).max((-1, -2))  # [E, L]
            np.testing.assert_array_equal(moved > 0, kept)
        assert (w.scale == 2.0).all()
    assert (losses < go_on(model, base, rows, begin, Steps(1))[1]).all()


def test_drawn_rows_are_used_rows_only(model, base, rows):
    """Where two rows are used, two drawn ones are all there are, at every step."""
    few = rows._replace(weights=rows.weights.at[:, 2:].set(0.0))
    want, _ = go_on(model, base, few, fresh(base), Steps(STEPS))
    got, _ = go_on(model, base, few, fresh(base), Steps(STEPS, draw=2))
    chex.assert_trees_all_close(got, want, atol=ATOL)
    # The order of rows is the drawing's own: that all rows were seen is not the reason.
    every, _ = go_on(model, base, rows, fresh(base), Steps(STEPS))
    w, other = (lora.sites(x)["layers/attn/q_proj/kernel"] for x in (got, every))
    assert np.abs(w.b - other.b).max() > 10 * ATOL


def test_a_draw_is_of_its_key_and_of_all_rows_in_the_end(model, base, rows):
    count = rows.tokens.shape[1]
    assert count > 2
    two, _ = go_on(model, base, rows, fresh(base), Steps(STEPS, draw=2))
    again, _ = go_on(model, base, rows, fresh(base), Steps(STEPS, draw=2))
    chex.assert_trees_all_equal(two, again)
    keys = jax.random.split(jax.random.key(9), E)
    other, _ = go_on(model, base, rows, fresh(base), Steps(STEPS, draw=2), keys)
    a, b = (lora.sites(x)["layers/attn/q_proj/kernel"].b for x in (two, other))
    assert np.abs(a - b).max() > 10 * ATOL
    right = jax.vmap(lambda b, ad: scoring.right(model, PAD, base, *b, adapter=ad))
    assert right(rows, two).mean() > 0.9
    # As many as there are, or more: full batches.
    most, _ = go_on(model, base, rows, fresh(base), Steps(STEPS, draw=count))
    full, _ = go_on(model, base, rows, fresh(base), Steps(STEPS))
    chex.assert_trees_all_equal(most, full)
