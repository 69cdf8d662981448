"""Statistics of experts' data against what is computed by hand."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoders
from decoders import TINY
from jaxlora import lora, models, route
from jaxlora import tree as named
from jaxlora.models import statistics

TOKENS = jnp.asarray([[1, 2, 3], [4, 5, 0]])
MASK = TOKENS != 0
INPUTS = models.Inputs(TOKENS, MASK)
WEIGHTS = jnp.asarray([[1.0, 1.0, 1.0], [0.0, 2.0, 0.0]])
ATTENTION = ("layers/attn/q_proj/kernel", "layers/attn/v_proj/kernel")
TARGETS = (*ATTENTION, "layers/mlp/down_proj/kernel")
E = 2


@pytest.fixture(scope="module")
def world(make_base):
    """A model, its params, and a library of two experts."""
    model = models.Decoder(TINY)
    base = make_base(model)
    return model, base, [decoders.adapter(base, e, targets=TARGETS) for e in range(E)]


def normed(x, scale):
    x = np.asarray(x, np.float64)
    size = np.sqrt((x * x).mean(-1, keepdims=True) + TINY.norm_eps)
    return x / size * np.asarray(scale)


@pytest.fixture(scope="module")
def grams(world):
    """Of both experts in one program, [E, L, D, D]."""
    model, base, adapters = world
    measure = functools.partial(statistics.input_grams, model, base, INPUTS, WEIGHTS)
    library = lora.stack(adapters)
    return jax.jit(jax.vmap(lambda adapter: measure(adapter=adapter)))(library)


def test_grams_are_of_every_adapted_kernel(grams):
    shapes = {name: gram.shape for name, gram in grams.items()}
    square = dict.fromkeys(ATTENTION, (E, 2, 8, 8))
    assert shapes == square | {TARGETS[2]: (E, 2, 12, 12)}


@pytest.mark.parametrize("expert", range(E))
def test_grams_of_the_first_layer_are_those_of_its_normed_embeddings(
    world, grams, expert
):
    _, base, _ = world
    x = np.asarray(base["embed"]["embedding"])[np.asarray(TOKENS)]
    if "positions" in base:
        x = x + np.asarray(base["positions"])[None, :3]
    x = normed(x, base["layers"]["attn_norm"]["scale"][0]).reshape(-1, 8)
    share = np.asarray(WEIGHTS).ravel() / np.asarray(WEIGHTS).sum()
    want = (share[:, None] * x).T @ x
    for name in ATTENTION:  # the same inputs; they meet no adapter before
        np.testing.assert_allclose(grams[name][expert, 0], want, rtol=1e-4, atol=1e-6)


def test_grams_say_what_a_kernels_outputs_are(world, grams):
    """``E|x^T d|^2 = tr(d^T G d)``, in the last layer: where the adapter is felt."""
    model, base, adapters = world
    name, d = TARGETS[2], np.asarray(jax.random.normal(jax.random.key(5), (12, 8)))
    params = named.flatten(lora.fuse(base, adapters[1]))

    @jax.jit
    def after(step):
        moved = params | {name: params[name].at[-1].add(step * d)}
        return before_the_last_norm(model, named.unflatten(moved))

    difference = np.asarray(after(1.0) - after(0.0)).reshape(-1, 8)
    share = np.asarray(WEIGHTS).ravel() / np.asarray(WEIGHTS).sum()
    want = (share * (difference**2).sum(-1)).sum()
    got = np.trace(d.T @ np.asarray(grams[name][1, -1], np.float64) @ d)
    np.testing.assert_allclose(got, want, rtol=1e-3)


def before_the_last_norm(model, params):
    """The residual stream after all layers."""
    kept = []

    def keep(call, args, kwargs, context):
        if context.module.name == "final_norm":
            kept.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(keep):
        model.apply({"params": params}, INPUTS)
    return kept[0]


def likelihood(model, params, row):
    tokens, target = row
    inputs = models.Inputs(tokens[None], (tokens != 0)[None])
    logits = models.apply(model, params, inputs)
    return -optax.softmax_cross_entropy_with_integer_labels(logits[0, 1], target)


def test_squared_gradients_are_means_of_squares_not_squares_of_means(world):
    model, base, adapters = world
    rows, weights = (TOKENS, jnp.asarray([7, 8])), jnp.asarray([1.0, 3.0])
    score = functools.partial(likelihood, model)
    with jax.numpy_dtype_promotion("standard"):
        found = jax.jit(
            lambda adapter: statistics.squared_gradients(
                score, base, rows, weights, adapter=adapter
            )
        )(adapters[0])
        params = lora.fuse(base, adapters[0])
        gradient = jax.jit(jax.grad(score))
        each = [
            named.flatten(gradient(params, jax.tree.map(lambda x, i=i: x[i], rows)))
            for i in range(2)
        ]
    assert set(found) == set(TARGETS)
    for name, got in found.items():
        one, two = (np.asarray(x[name], np.float64) for x in each)
        np.testing.assert_allclose(got, (one**2 + 3 * two**2) / 4, rtol=1e-3, atol=1e-9)
        assert float(got.max()) > 0


def test_mean_inputs_are_weighted_means_of_what_each_kernel_gets(world, grams):
    """Of the first layer by hand; of the last by what the mean output must be."""
    model, base, adapters = world
    mean = functools.partial(statistics.mean_inputs, model, base, INPUTS, WEIGHTS)
    found = jax.jit(lambda adapter: mean(adapter=adapter))(adapters[1])
    assert {name: x.shape for name, x in found.items()} == {
        TARGETS[0]: (2, 8),
        TARGETS[1]: (2, 8),
        TARGETS[2]: (2, 12),
    }
    share = np.asarray(WEIGHTS).ravel() / np.asarray(WEIGHTS).sum()
    x = np.asarray(base["embed"]["embedding"])[np.asarray(TOKENS)]
    if "positions" in base:
        x = x + np.asarray(base["positions"])[None, :3]
    first = normed(x, base["layers"]["attn_norm"]["scale"][0]).reshape(-1, 8)
    for name in ATTENTION:
        np.testing.assert_allclose(found[name][0], share @ first, rtol=1e-4, atol=1e-6)
    # A step along d in the last kernel moves the mean output by mean @ d.
    d = np.asarray(jax.random.normal(jax.random.key(6), (12, 8)))
    params = named.flatten(lora.fuse(base, adapters[1]))

    @jax.jit
    def after(step):
        moved = params | {TARGETS[2]: params[TARGETS[2]].at[-1].add(step * d)}
        return before_the_last_norm(model, named.unflatten(moved))

    difference = np.asarray(after(1.0) - after(0.0)).reshape(-1, 8)
    want = share @ difference
    np.testing.assert_allclose(
        np.asarray(found[TARGETS[2]][-1]) @ d, want, rtol=1e-3, atol=1e-5
    )


class Seen(route.Nearest):
    """Scores that are the input itself, so that weights tell what a gate sees."""

    def score(self, keys, x):
        return x

    def width(self, keys):
        return None


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_embeddings_are_what_a_gate_of_the_whole_model_sees(make_base, positions):
    config = dataclasses.replace(TINY, embed_scale=3.0, positions=positions)
    model = models.Decoder(config)
    base = make_base(model)
    found = statistics.embeddings(model, base, TOKENS, MASK)
    # By hand.
    x = 3.0 * np.asarray(base["embed"]["embedding"], np.float64)[np.asarray(TOKENS)]
    if positions == "learned":
        x = x + np.asarray(base["positions"])[None, :3]
    mask = np.asarray(MASK)[:, :, None]
    np.testing.assert_allclose(found, (x * mask).sum(1) / mask.sum(1), rtol=1e-5)
    # By the decoder: softmax of the mean embedding, of as many experts as D.
    how = route.Route(gate=Seen(), granularity="sequence")
    fresh = [
        lora.init(jax.random.key(e), base, lora.LoraConfig(rank=1, targets=TARGETS[:1]))
        for e in range(8)
    ]
    library = lora.lora_map(lambda w: w.replace(b=w.b + 1.0), lora.stack(fresh))
    gate = models.gate_state(
        models.Decoder(config, how), library, data={"router": jnp.ones((8, 1, 8))}
    )
    told = models.routes(
        models.Decoder(config, how), base, INPUTS, library=library, gate=gate
    )
    (weights,) = named.flatten(told.weights).values()
    for row, last in enumerate(np.asarray(MASK).sum(1) - 1):
        np.testing.assert_allclose(
            weights[0, row, last], jax.nn.softmax(found[row]), atol=1e-6
        )
