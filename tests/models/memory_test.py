"""A decoder with a memory is the decoder whose layers all have a copy of that MLP."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from decoders import TEXT, TINY
from jaxlora import lora, models, route
from jaxlora import tree as named
from jaxlora.models import Decoder, Decoding, config_out, statistics

LAYERS, PASSES = 2, 2
TOKENS = jnp.array([[1, 2, 3, 4], [9, 0, 5, 5]], jnp.int32)
CONFIGS = {
    "plain": dataclasses.replace(TINY, shared_mlp=True),
    "gated, looped": dataclasses.replace(TEXT, shared_mlp=True, passes=PASSES),
    "remat": dataclasses.replace(TEXT, shared_mlp=True, remat=True, unroll=2),
}
run = jax.jit(models.apply, static_argnums=0)


def copied(params, axis=0):
    """The same parameters, or library, with the memory copied into each layer."""
    return named.unflatten(
        {
            name.replace("memory/", "layers/mlp/", 1): jax.tree.map(
                lambda x: jnp.stack([x] * LAYERS, axis), leaf
            )
            if name.startswith("memory/")
            else leaf
            for name, leaf in named.flatten(params, lora.is_lora).items()
        }
    )


def apart(config):
    """The decoder whose layers have an MLP each."""
    return dataclasses.replace(config, shared_mlp=False)


@pytest.fixture(scope="module", params=CONFIGS)
def world(request):
    config = CONFIGS[request.param]
    base = decoders.shaken(Decoder(config))
    return config, base, decoders.adapter(base)


def test_the_memory_is_declared_once_and_adapted_by_default(world):
    config, base, adapter = world
    shapes = {name: x.shape for name, x in named.flatten(base).items()}
    assert shapes["memory/up_proj/kernel"] == (8, 12)
    assert shapes["layers/attn/q_proj/kernel"] == (LAYERS, 8, 8)
    assert not any(name.startswith("layers/mlp/") for name in shapes)
    assert lora.sites(adapter)["memory/down_proj/kernel"].a.shape == (12, 2)
    per_layer = decoders.fresh(Decoder(apart(config)))
    assert jax.tree.map(jnp.shape, copied(base)) == jax.tree.map(jnp.shape, per_layer)


def test_logits_equal_those_of_copies(world):
    config, base, adapter = world
    model, copies = Decoder(config), Decoder(apart(config))
    plain = run(model, base, TOKENS)
    np.testing.assert_allclose(plain, run(copies, copied(base), TOKENS), atol=1e-5)
    got = run(model, base, TOKENS, adapter=adapter)
    want = run(copies, copied(base), TOKENS, adapter=copied(adapter))
    np.testing.assert_allclose(got, want, atol=1e-5)
    fused = run(model, lora.fuse(base, adapter), TOKENS)
    np.testing.assert_allclose(got, fused, atol=1e-4)
    memory = {"memory": adapter["memory"]}
    assert np.abs(run(model, base, TOKENS, adapter=memory) - plain).max() > 1e-2


@pytest.mark.slow
def test_gradients_are_summed_over_the_layers(world):
    config, base, adapter = world

    def gradient(model, base, adapter):
        def total(base, adapter):
            return jnp.sum(jnp.sin(models.apply(model, base, TOKENS, adapter=adapter)))

        return jax.jit(jax.grad(total, argnums=(0, 1)))(base, adapter)

    got = gradient(Decoder(config), base, adapter)
    want = gradient(Decoder(apart(config)), copied(base), copied(adapter))
    for ours, theirs in zip(got, want, strict=True):
        flat = named.flatten(theirs)
        for name, leaf in named.flatten(ours).items():
            copy = flat[name.replace("memory/", "layers/mlp/", 1)]
            copy = copy.sum(0) if name.startswith("memory/") else copy
            bound = 1e-5 * max(1, np.abs(copy).max())
            np.testing.assert_allclose(leaf, copy, atol=bound)


def test_experts_run_at_once_under_vmap_and_generate(world):
    config, base, _ = world
    model, library = Decoder(config), decoders.library(base, 3)

    def single(adapter):
        return models.apply(model, base, TOKENS, adapter=adapter)

    every = jax.jit(jax.vmap(single))(library)
    texts = models.generate(model, base, TOKENS, Decoding(2), library=library)
    for i, adapter in enumerate(lora.unstack(library)):
        want = run(model, base, TOKENS, adapter=adapter)
        np.testing.assert_allclose(every[i], want, atol=1e-5)
        longer = jnp.concatenate([TOKENS, texts.tokens[i, :, :1]], axis=1)
        last = run(model, base, longer, adapter=adapter)[:, -1]
        np.testing.assert_array_equal(texts.tokens[i, :, 1], jnp.argmax(last, -1))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_route_reads_the_memory_as_it_reads_copies(name):
    config, way = CONFIGS[name], route.Route(gate=route.arrow, top_k=2)
    model, copies = Decoder(config, way), Decoder(apart(config), way)
    base = decoders.shaken(Decoder(config))
    library = decoders.library(base, 3)
    many = copied(library, axis=1)
    got = run(model, base, TOKENS, library=library)
    want = run(copies, copied(base), TOKENS, library=many)
    np.testing.assert_allclose(got, want, atol=1e-4)
    ours = models.routes(model, base, TOKENS, library=library)
    theirs = models.routes(copies, copied(base), TOKENS, library=many)
    weights = named.flatten(theirs.weights)
    for site, found in named.flatten(ours.weights).items():
        copy = weights[site.replace("memory/", "layers/mlp/", 1)]
        np.testing.assert_allclose(found, copy, atol=1e-4)


def test_second_moments_are_means_over_the_layers(world):
    config, base, adapter = world
    weights = jnp.ones(TOKENS.shape)
    got, want = (
        statistics.input_grams(Decoder(c), p, TOKENS, weights, adapter=a)
        for c, p, a in (
            (config, base, adapter),
            (apart(config), copied(base), copied(adapter)),
        )
    )
    for name, gram in got.items():
        copy = want[name.replace("memory/", "layers/mlp/", 1)]
        copy = copy.mean(0) if name.startswith("memory/") else copy
        np.testing.assert_allclose(gram, copy, atol=1e-4 * np.abs(copy).max())


def test_what_a_memory_cannot_do_is_refused():
    config = CONFIGS["gated, looped"]
    with pytest.raises(ValueError, match=r"shared_mlp=True has no Hugging Face"):
        config_out.to_json(dataclasses.replace(config, passes=1))
    base = decoders.fresh(Decoder(config))
    library = decoders.library(base, 2)
    layered = Decoder(config, route.Route(gate=route.Uniform(per="layer")))
    with pytest.raises(ValueError, match="decides per layer, but shared_mlp"):
        models.apply(layered, base, TOKENS, library=library)
    pooled = Decoder(config, route.Route(gate=route.arrow, granularity="sequence"))
    with pytest.raises(ValueError, match=r"shared_mlp=True: a place keeps one"):
        models.generate(pooled, base, TOKENS, Decoding(2), library=library)
