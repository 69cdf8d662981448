"""A looped decoder is the decoder of P L layers whose parameters repeat."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from decoders import TINY, WINDOW
from jaxlora import lora, models, route
from jaxlora import tree as named
from jaxlora.models import Decoder, Decoding, Inputs, cache, config_out, statistics

PASSES, LAYERS = 3, 2
CONFIGS = {"learned": TINY, "rope and window": WINDOW}
TOKENS = jnp.array([[1, 2, 3, 4], [9, 0, 5, 5]], jnp.int32)
MASK = jnp.array([[0, 1, 1, 1], [1, 1, 1, 1]], bool)
run = jax.jit(models.apply, static_argnums=0)


def looped(config, **changes):
    return Decoder(dataclasses.replace(config, passes=PASSES, **changes))


def unrolled(config):
    """A decoder with a layer for each pass."""
    many = PASSES * config.num_layers
    local = PASSES * config.local_layers
    return Decoder(dataclasses.replace(config, num_layers=many, local_layers=local))


def tiled(params):
    """Params, or an adapter, with the layers repeated for each pass."""

    def repeat(name, leaf):
        inside = name.startswith("layers/")
        return jnp.concatenate([leaf] * PASSES) if inside else leaf

    return named.map_named(repeat, params)


@pytest.fixture(scope="module", params=CONFIGS)
def world(request):
    config = CONFIGS[request.param]
    base = decoders.shaken(looped(config))
    return config, base, decoders.adapter(base)


def test_a_loop_has_the_parameters_of_a_single_pass(world):
    config, base, _ = world
    single = decoders.fresh(Decoder(config))
    assert jax.tree.map(jnp.shape, base) == jax.tree.map(jnp.shape, single)
    # The first kernels are the same draw; outputs are scaled by the depth, P L.
    ours, theirs = (
        named.flatten(decoders.fresh(m)) for m in (looped(config), Decoder(config))
    )
    np.testing.assert_array_equal(
        ours["layers/attn/q_proj/kernel"], theirs["layers/attn/q_proj/kernel"]
    )
    np.testing.assert_allclose(
        ours["layers/mlp/down_proj/kernel"] * PASSES**0.5,
        theirs["layers/mlp/down_proj/kernel"],
        rtol=1e-5,
    )


@pytest.mark.parametrize("changes", [{}, {"remat": True, "unroll": 2}], ids=str)
def test_a_loop_equals_its_unrolled_layers(world, changes):
    config, base, adapter = world
    inputs = Inputs(TOKENS, MASK)
    for mine in (None, adapter):
        got = run(looped(config, **changes), base, inputs, adapter=mine)
        many = None if mine is None else tiled(mine)
        want = run(unrolled(config), tiled(base), inputs, adapter=many)
        np.testing.assert_allclose(got, want, atol=1e-6 * np.abs(want).max())
    single = run(Decoder(config), base, inputs, adapter=adapter)
    assert np.abs(got - single).max() > 1e-2


def test_gradients_are_summed_over_the_passes(world):
    config, base, adapter = world

    def gradient(model, base, adapter):
        def total(base, adapter):
            return jnp.sum(jnp.sin(models.apply(model, base, TOKENS, adapter=adapter)))

        return jax.jit(jax.grad(total, argnums=(0, 1)))(base, adapter)

    def summed(name, leaf):
        if not name.startswith("layers/"):
            return leaf
        return leaf.reshape(PASSES, -1, *leaf.shape[1:]).sum(0)

    got = gradient(looped(config), base, adapter)
    want = gradient(unrolled(config), tiled(base), tiled(adapter))
    want = [named.map_named(summed, part) for part in want]
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        bound = 1e-5 * max(1, np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, atol=bound)


def test_each_pass_has_keys_of_its_own(world):
    config, base, adapter = world
    model = looped(config)
    store = cache.empty(model.config, 2, 6)
    assert store.keys.shape[0] == PASSES * LAYERS
    more, out = jax.jit(models.extend, static_argnums=0), []
    for part in (TOKENS[:, :3], TOKENS[:, 3:]):
        x, store = more(model, base, part, store, adapter=adapter)
        out.append(models.unembed(model, base, x))
    want = run(model, base, TOKENS, adapter=adapter)
    np.testing.assert_allclose(np.concatenate(out, 1), want, atol=1e-5)
    assert np.asarray(store.keys)[..., :4, :].any((2, 4)).all()


def test_generation_is_greedy_with_and_without_a_cache(world):
    config, base, adapter = world
    model, text = looped(config), TOKENS
    got = models.generate(model, base, TOKENS, Decoding(3), adapter=adapter).tokens
    for _ in range(3):
        last = run(model, base, text, adapter=adapter)[:, -1]
        text = jnp.concatenate([text, jnp.argmax(last, -1)[:, None]], axis=1)
    np.testing.assert_array_equal(got, text[:, 4:])


GATES = {
    "site": (route.arrow, None),
    "layer": (route.Linear(per="layer"), ("layers/router", (3, LAYERS, 8))),
    "model": (route.Linear(per="model"), ("router", (3, 8))),
}


@pytest.mark.slow
@pytest.mark.parametrize("per", GATES)
def test_a_route_chooses_anew_in_each_pass(per):
    gate, place = GATES[per]
    way = route.Route(gate=gate, top_k=2)
    model, deep = (Decoder(m.config, way) for m in (looped(TINY), unrolled(TINY)))
    base = decoders.shaken(Decoder(TINY))
    library = decoders.library(base, 3)
    many = lora.stack([tiled(adapter) for adapter in lora.unstack(library)])
    data = place and {place[0]: jax.random.normal(jax.random.key(1), place[1])}
    repeats = 1 if per == "model" else PASSES
    deeper = jax.tree.map(lambda x: jnp.concatenate([x] * repeats, axis=1), data)
    state = models.gate_state(model, library, data=data)
    theirs = models.gate_state(deep, many, data=deeper)
    ours = models.routes(model, base, TOKENS, library=library, gate=state)
    wants = models.routes(deep, tiled(base), TOKENS, library=many, gate=theirs)
    for got, want in zip(jax.tree.leaves(ours), jax.tree.leaves(wants), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    got = run(model, base, TOKENS, library=library, gate=state)
    want = run(deep, tiled(base), TOKENS, library=many, gate=theirs)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_labels_of_the_oracle_are_used_again_in_each_pass():
    way = route.Route(gate=route.oracle)
    model, deep = (Decoder(m.config, way) for m in (looped(TINY), unrolled(TINY)))
    base = decoders.shaken(Decoder(TINY))
    library = decoders.library(base, 3)
    many = lora.stack([tiled(adapter) for adapter in lora.unstack(library)])
    labels = jax.random.uniform(jax.random.key(0), (LAYERS, *TOKENS.shape, 3))
    got = run(model, base, TOKENS, library=library, labels=labels)
    repeated = jnp.concatenate([labels] * PASSES)
    want = run(deep, tiled(base), TOKENS, library=many, labels=repeated)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("per", GATES)
def test_sums_of_a_route_by_sequence_are_refused_within_the_loop(per):
    gate, place = GATES[per]
    base = decoders.shaken(Decoder(TINY))
    library = decoders.library(base, 3)
    model = Decoder(looped(TINY).config, route.Route(gate=gate, granularity="sequence"))
    data = place and {place[0]: jax.random.normal(jax.random.key(1), place[1])}
    both = {"library": library, "gate": models.gate_state(model, library, data=data)}
    scores = run(model, base, TOKENS, **both)  # all at once needs no sums
    if per != "model":
        with pytest.raises(ValueError, match=r"passes=3 .* keeps one running sum"):
            models.generate(model, base, TOKENS, Decoding(2), **both)
        return
    first = models.generate(model, base, TOKENS, Decoding(1), **both).tokens[:, 0]
    np.testing.assert_array_equal(first, jnp.argmax(scores[:, -1], -1))


def test_second_moments_are_means_over_the_passes():
    base = decoders.shaken(Decoder(TINY))
    adapter = decoders.adapter(base)
    weights = jnp.ones(TOKENS.shape)
    got = statistics.input_grams(looped(TINY), base, TOKENS, weights, adapter=adapter)
    want = statistics.input_grams(
        unrolled(TINY), tiled(base), TOKENS, weights, adapter=tiled(adapter)
    )
    for name, gram in got.items():
        mean = want[name].reshape(PASSES, *gram.shape).mean(0)
        np.testing.assert_allclose(gram, mean, atol=1e-4 * np.abs(mean).max())


def test_a_loop_has_no_hugging_face_checkpoint():
    config = dataclasses.replace(decoders.TEXT, passes=2)
    with pytest.raises(ValueError, match=r"decoder of 2 passes .* has no"):
        config_out.to_json(config)
    with pytest.raises(ValueError, match="passes is 0, expected >= 1"):
        dataclasses.replace(TINY, passes=0)
