"""The tangent kernel: NumPy by hand, a real step of a real decoder, the mean over a."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from decoders import TINY, shaken
from jaxlora import lora, models
from jaxlora import tree as named
from jaxlora.theory import tangent

TARGETS = (r"layers/.*_proj/kernel",)
RATE = 1e-5
# Effects are up to 1000 here: second order is 1 % at this rate, rounding 0.1 %.
STEP_RTOL = 0.02
# Of a mean over 200 draws of a: about 1 / sqrt(200 R) of the largest effect.
DRAW_ATOL = 0.15


@pytest.fixture(scope="module")
def model():
    return models.Decoder(dataclasses.replace(TINY, unroll=1))


@pytest.fixture(scope="module")
def base(model):
    return shaken(model)


ROWS = jnp.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 5, 9]])
ANSWERS = jnp.array([3, 6, 9, 10])
QUESTIONS = jnp.array([[1, 2, 7], [4, 5, 8], [0, 0, 1]])


def at_last(model, params, tokens):
    return models.apply(model, params, tokens)[:, -1]


def of_adapter(model, base, adapter):
    """Functions of the factors b of a fresh adapter."""

    def logits(b):
        params = lora.fuse(base, tangent.with_outputs(adapter, b))
        return at_last(model, params, QUESTIONS)

    def likelihood(b, row):
        tokens, answer = row
        params = lora.fuse(base, tangent.with_outputs(adapter, b))
        return jax.nn.log_softmax(at_last(model, params, tokens[None])[0])[answer]

    return logits, likelihood, tangent.outputs(adapter)


def fresh(base, key, rank=2):
    config = lora.LoraConfig(rank=rank, targets=TARGETS)
    return lora.init(key, base, config)


def test_a_linear_memory_by_hand():
    rng = np.random.default_rng(0)
    w, keys, asked = (rng.standard_normal(s) for s in ((5, 7), (4, 5), (3, 5)))
    answers = np.array([6, 0, 3, 3])
    wanted = np.zeros((3, 4))
    for i in range(4):
        scores = np.exp(keys[i] @ w)
        error = np.eye(7)[answers[i]] - scores / scores.sum()
        gradient = np.outer(keys[i], error)  # of log p(y_i) in w
        wanted[:, i] = asked @ gradient[:, answers[i]]
    moved = tangent.kernel(
        lambda w: jnp.asarray(asked, jnp.float32) @ w,
        lambda w, row: jax.nn.log_softmax(row[0] @ w)[row[1]],
        jnp.asarray(w, jnp.float32),
        (jnp.asarray(keys, jnp.float32), jnp.asarray(answers)),
        jnp.asarray(answers),
    )
    np.testing.assert_allclose(moved, wanted, rtol=1e-4, atol=1e-5)


def test_it_is_what_a_small_step_of_a_decoder_does(model, base):
    logits, likelihood, b = of_adapter(model, base, fresh(base, jax.random.key(1)))
    moved = jax.jit(functools.partial(tangent.kernel, logits, likelihood))(
        b, (ROWS, ANSWERS), ANSWERS
    )

    @jax.jit
    def change_by(row, answer):
        gradient = jax.grad(likelihood)(b, (row, answer))
        after = jax.tree.map(lambda x, g: x + RATE * g, b, gradient)
        return (logits(after) - logits(b))[:, answer] / RATE

    for i in range(len(ROWS)):
        change = change_by(ROWS[i], ANSWERS[i])
        largest = float(jnp.abs(moved).max())
        np.testing.assert_allclose(
            moved[:, i], change, rtol=STEP_RTOL, atol=STEP_RTOL * largest
        )
    assert float(jnp.abs(moved).max()) > 0.01


@functools.partial(jax.jit, static_argnums=(0, 2))
def of_base(model, base, layers=None, rank=2):
    """The mean over a, in the kernels of the base themselves."""
    config = lora.LoraConfig(rank=rank, targets=TARGETS)
    weights = tangent.metric(base, config, layers)
    flat = named.flatten(base)
    free = {name: flat[name] for name in weights}

    def logits(kernels):
        return at_last(model, named.unflatten(flat | kernels), QUESTIONS)

    def likelihood(kernels, row):
        params = named.unflatten(flat | kernels)
        scores = at_last(model, params, row[0][None])[0]
        return jax.nn.log_softmax(scores)[row[1]]

    return tangent.kernel(logits, likelihood, free, (ROWS, ANSWERS), ANSWERS, weights)


@pytest.mark.parametrize("layers", [None, (True, False)])
def test_the_metric_gives_the_mean_over_a(model, base, layers):
    @jax.jit
    def drawn(key):
        adapter = fresh(base, key)
        if layers is not None:
            adapter = lora.confine(adapter, jnp.array(layers))
        logits, likelihood, b = of_adapter(model, base, adapter)
        return tangent.kernel(logits, likelihood, b, (ROWS, ANSWERS), ANSWERS)

    draws = jax.lax.map(drawn, jax.random.split(jax.random.key(0), 200))
    mean, wanted = np.asarray(draws).mean(0), np.asarray(of_base(model, base, layers))
    largest = np.abs(wanted).max()
    np.testing.assert_allclose(mean, wanted, atol=DRAW_ATOL * largest)
    # A mask must do something, or this test would pass without it.
    if layers is not None:
        assert np.abs(wanted - np.asarray(of_base(model, base))).max() > 0.1 * largest


def test_parts_of_layers_add_up(model, base):
    first, second = ((True, False), (False, True))
    parts = of_base(model, base, first) + of_base(model, base, second)
    np.testing.assert_allclose(parts, of_base(model, base), rtol=1e-3, atol=1e-4)


def test_it_is_traced_once_for_one_shape(model, base):
    logits, likelihood, b = of_adapter(model, base, fresh(base, jax.random.key(1)))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(b, rows, answers):
        return tangent.kernel(logits, likelihood, b, (rows, answers), answers)

    run(b, ROWS, ANSWERS)
    run(b, ROWS[::-1], ANSWERS[::-1])


MATRICES = arrays.arrays(
    float,
    st.tuples(st.integers(1, 6), st.integers(1, 6)).map(lambda s: (min(s), max(s))),
    elements=st.floats(-5, 5, width=16),
)


@settings(deadline=None)
@given(MATRICES, st.randoms(use_true_random=False))
def test_selectivity_by_loops(effects, random):
    q, n = effects.shape
    own = np.array([random.randrange(n) for _ in range(q)])
    summed = tangent.selectivity(effects, own)
    largest = [
        all(effects[j, own[j]] > effects[j, i] for i in range(n) if i != own[j])
        for j in range(q)
    ]
    assert summed.share == pytest.approx(np.mean(largest))
    assert summed.effect == pytest.approx(
        np.mean([effects[j, own[j]] for j in range(q)])
    )
    # It does not matter in which order rows come.
    order = np.array(random.sample(range(n), n))
    moved = tangent.selectivity(effects[:, order], np.argsort(order)[own])
    np.testing.assert_allclose(moved, summed, rtol=1e-6, atol=1e-9)


def test_effects_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        tangent.selectivity(np.array([[np.nan, 1.0]]), np.array([0]))
