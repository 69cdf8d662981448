"""A base in chunks: cut, stacked, saved and resumed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora.io import checkpoint
from jaxlora.train import pretrain
from jaxlora.train.pretrain import Data, Sizes, State
from jaxlora.train.step import Batch

SIZES = Sizes(batch=4, extra_batch=2, extra_every=5, pad=0)
OPT = pretrain.optimizer(1e-2, weight_decay=0.1, warmup=4)
fresh = jax.jit(pretrain.start, static_argnums=(0, 1))


def batch(seed, n, length, real):
    """Random rows; those past ``real`` are poison, and no step may draw them."""
    rng = np.random.default_rng(seed)
    weights = np.ones((n, length), np.float32)
    weights[real:] = np.nan
    tokens, targets = rng.integers(1, 12, (2, n, length)).astype(np.int32)
    return Batch(jnp.asarray(tokens), jnp.asarray(targets), jnp.asarray(weights))


def data(seed):
    return Data(
        batch(seed, 8, 3, 6), jnp.int32(6), batch(seed + 9, 6, 5, 4), jnp.int32(4)
    )


def advance(model, state, rows, steps):
    """``chunk`` without losing the state it donates."""
    copy = jax.tree.map(jnp.copy, state)
    return pretrain.chunk(model, OPT, SIZES, steps, copy, rows)


def plain(state: State):
    return state.replace(key=jax.random.key_data(state.key))


def assert_bit_equal(one: State, two: State):
    chex.assert_trees_all_equal(plain(one), plain(two))


@pytest.fixture(scope="module")
def runs(model):
    """States after 0, 10 and 20 steps in chunks of 10."""
    states = [fresh(model, OPT, jax.random.key(0))]
    for _ in range(2):
        states.append(advance(model, states[-1], data(0), 10)[0])
    return states


def test_two_chunks_are_one_chunk_bit_for_bit(model, runs):
    whole, direct = advance(model, runs[0], data(0), 20)
    assert_bit_equal(whole, runs[2])
    assert int(whole.step) == 20
    assert np.isfinite(direct)
    moved = jax.tree.map(
        lambda x, y: bool((x != y).any()), runs[0].params, whole.params
    )
    assert all(jax.tree.leaves(moved))


def test_a_resumed_run_is_bit_equal(model, runs, tmp_path):
    checkpoint.save(tmp_path, 10, plain(runs[1]), {"seed": 0})
    target = jax.eval_shape(
        lambda key: plain(fresh(model, OPT, key)), jax.random.key(0)
    )
    step, stored, meta = checkpoint.restore(tmp_path, target)
    assert (step, meta) == (10, {"seed": 0})
    state = stored.replace(key=jax.random.wrap_key_data(stored.key))
    assert_bit_equal(state, runs[1])
    assert_bit_equal(advance(model, state, data(0), 10)[0], runs[2])


def test_bases_at_once_are_the_bases_alone(model, runs):
    other = fresh(model, OPT, jax.random.key(1))
    alone = advance(model, other, data(1), 10)

    def stack(*trees):
        return jax.tree.map(lambda *x: jnp.stack(x), *trees)

    states = stack(runs[0], other)
    both, losses = pretrain.chunks(
        model, OPT, SIZES, 10, states, stack(data(0), data(1))
    )
    want = stack(runs[1].params, alone[0].params)
    chex.assert_trees_all_close(both.params, want, atol=1e-4)
    assert losses[1] == pytest.approx(float(alone[1]), abs=1e-4)
    assert both.step.tolist() == [10, 10]


def test_the_loss_falls_and_keys_and_steps_draw_other_rows(model, runs):
    _, first = advance(model, runs[0], data(0), 10)
    _, second = advance(model, runs[1], data(0), 10)
    assert second < first
    for other in ({"key": jax.random.key(7)}, {"step": jnp.int32(5)}):
        _, drawn = advance(model, runs[0].replace(**other), data(0), 10)
        assert drawn != first


def test_every_fifth_step_trains_on_the_extra_rows(model, runs):
    # With no weight on the direct rows, Adam moves only once an extra batch came.
    rows = data(0)
    no_direct = rows._replace(
        direct=rows.direct._replace(weights=jnp.zeros_like(rows.direct.weights))
    )
    no_extra = rows._replace(
        extra=rows.extra._replace(weights=jnp.zeros_like(rows.extra.weights))
    )
    state, direct = advance(model, runs[0], no_direct, 10)
    assert direct == 0

    def scale(s):
        return np.asarray(s.params["final_norm"]["scale"])  # is not decayed

    assert (scale(state) != scale(runs[0])).all()
    without, _ = advance(model, runs[0], no_extra, 10)
    assert (scale(without) != scale(runs[1])).all()

    # The counts of an embedding: positions 3 and 4 occur in extra rows alone.
    def later(s):
        return np.asarray(s.opt_state[0].mu["positions"])[3:]

    assert (later(without) == 0).all()
    assert (later(state) != 0).all()
