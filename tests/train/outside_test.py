"""Adapters of head and table, tied or not, are trained as their sum with the base."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, models
from jaxlora import tree as named
from jaxlora.lora import LoraConfig, LoraWeight
from jaxlora.models import sites
from jaxlora.models.replaced_leaves import untie
from jaxlora.tasks.packing import Rows
from jaxlora.train.step import cross_entropy

CONFIG = models.DecoderConfig(
    vocab_size=12,
    hidden_size=8,
    num_layers=1,
    num_heads=2,
    num_kv_heads=2,
    head_dim=4,
    mlp_size=8,
)
NAMES = ("lm_head", "embed_tokens")
ROWS = Rows(
    tokens=np.asarray([[1, 4, 2, 9]]),
    targets=np.asarray([[4, 2, 9, 3]]),
    weights=np.ones((1, 4), np.float32),
    segments=np.ones((1, 4), np.int32),
    positions=np.arange(4)[None],
)


@pytest.mark.parametrize("tied", [pytest.param(False, marks=pytest.mark.slow), True])
def test_loss_and_gradients_are_those_of_the_sum(tied):
    model = models.Decoder(dataclasses.replace(CONFIG, tie_head=tied))
    base = jax.jit(models.init, static_argnums=1)(jax.random.key(0), model)
    config = LoraConfig(rank=2, targets=(*NAMES, "q_proj"))
    fresh = lora.sites(lora.init(jax.random.key(1), base, config))
    assert set(fresh) == {"embed/embedding", "head", "layers/attn/q_proj/kernel"}
    rng = np.random.default_rng(0)

    def draw(like):
        return jnp.asarray(0.3 * rng.standard_normal(like.shape), jnp.float32)

    drawn = {
        name: LoraWeight(draw(w.a), draw(w.b), w.scale) for name, w in fresh.items()
    }
    adapter = named.unflatten(drawn)
    run = functools.partial(cross_entropy, model, base, ROWS)
    value, slope = jax.jit(jax.value_and_grad(lambda x: run(adapter=x)[0]))(adapter)
    free, leaves = untie(model, base)
    flat = {
        name: sites.fused(leaf, name, drawn)
        for name, leaf in named.flatten(leaves).items()
    }
    loss = jax.jit(
        jax.value_and_grad(lambda x: cross_entropy(free, named.unflatten(x), ROWS)[0])
    )
    want, outer = loss(flat)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for name, got in lora.sites(slope).items():
        w = drawn[name]
        a = w.scale[..., None, None] * outer[name] @ jnp.swapaxes(w.b, -1, -2)
        np.testing.assert_allclose(got.a, a, atol=1e-4)
        assert float(jnp.abs(a).max()) > 1e-3
