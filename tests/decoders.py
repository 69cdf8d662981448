"""Tiny decoders and adapters that the tests share: one shape each, compiled once."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora.lora import LoraWeight
from jaxlora.models import DecoderConfig, init
from jaxlora.models.config import DeltaConfig

# Learned positions and a plain MLP, as the base of the study.
TINY = DecoderConfig(
    vocab_size=13,
    hidden_size=8,
    num_layers=2,
    num_heads=2,
    num_kv_heads=2,
    head_dim=4,
    mlp_size=12,
    max_length=13,
)
# As models of text are: rotary positions, shared key heads, a gated MLP, a tied head.
TEXT = DecoderConfig(
    vocab_size=13,
    hidden_size=8,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    mlp_size=12,
    mlp="gated",
    positions="rope",
    tie_head=True,
)
# What a cache and packed rows find hardest: a window, and scores that are capped.
WINDOW = DecoderConfig(
    vocab_size=13,
    hidden_size=8,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    mlp_size=12,
    mlp="gated",
    positions="rope",
    rope_theta=50.0,
    local_layers=(True, False),
    window=3,
    attn_softcap=2.0,
    final_softcap=20.0,
    tie_head=True,
)
# Layers of two kinds: one with attention after one of a gated delta rule, twice.
MIXED = DecoderConfig(
    vocab_size=13,
    hidden_size=8,
    num_layers=4,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    mlp_size=12,
    mlp="gated",
    positions="rope",
    output_gate=True,
    delta_layers=(True, False) * 2,
    delta=DeltaConfig(key_heads=2, value_heads=4, key_dim=4, value_dim=3, taps=4),
    tie_head=True,
)
_init = jax.jit(init, static_argnums=1)


def fresh(model):
    """Params of a model before any training."""
    return _init(jax.random.key(0), model)


def shaken(model):
    """Fresh params whose norms and biases are not trivial."""
    rng = np.random.default_rng(0)

    def shake(x):
        noise = 0.2 * rng.standard_normal(x.shape)
        return jnp.asarray(np.asarray(x) + noise.astype(x.dtype))

    return jax.tree.map(shake, fresh(model))


def trained(seed, adapter):
    """An adapter or library of the same shapes, of which no part is zero."""
    rng = np.random.default_rng(seed)

    def draw(w):
        return LoraWeight(
            a=jnp.asarray(rng.standard_normal(w.a.shape) * 0.5, w.a.dtype),
            b=jnp.asarray(rng.standard_normal(w.b.shape) * 0.5, w.b.dtype),
            scale=jnp.asarray(rng.uniform(0.5, 1.5, w.scale.shape), jnp.float32),
        )

    return lora.lora_map(draw, adapter)


def adapter(base, seed=0, **config):
    """One adapter of rank 2 for a base, of which no part is zero."""
    config = lora.LoraConfig(**{"rank": 2, **config})
    # Of a fresh adapter only shapes matter here: nothing is compiled for it.
    fresh = jax.eval_shape(lambda b: lora.init(jax.random.key(0), b, config), base)
    return trained(seed, fresh)


def library(base, experts, **config):
    """Such adapters, stacked [experts, ...], each drawn from a seed of its own."""
    return lora.stack([adapter(base, seed, **config) for seed in range(experts)])
