import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlora import lora, tree
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, Inputs, apply, init
from jaxlora.train import pretrain
from jaxlora.train.step import Batch, Logits, cross_entropy

TOKENS = jnp.array([[1, 2, 0, 0], [3, 0, 4, 5]], jnp.int32)
TARGETS = jnp.array([[0, 7, 8, 0], [0, 9, 0, 11]], jnp.int32)
WEIGHTS = jnp.array([[0, 1, 0.5, 0], [0, 2, 0, 1]], jnp.float32)
BATCH = Batch(TOKENS, TARGETS, WEIGHTS)


def loss(model, base, batch, pad, adapter=None):
    total, count = cross_entropy(model, base, batch, pad=pad, adapter=adapter)
    return total / jnp.maximum(count, 1.0)


value = jax.jit(loss, static_argnums=(0, 3))


def test_it_equals_numpy(model, base):
    logits = apply(model, base, Inputs(TOKENS, TOKENS != 0))
    logits = np.asarray(logits, np.float64)
    total = 0.0
    for i, t in np.ndindex(2, 4):
        row = logits[i, t]
        nats = np.log(np.exp(row).sum()) - row[TARGETS[i, t]]
        total += nats * float(WEIGHTS[i, t])
    assert value(model, base, BATCH, 0) == pytest.approx(total / 4.5, rel=1e-5)


def test_padding_is_never_attended_to(model, base):
    # Another token id for padding, at the same places, is the same loss.
    other = BATCH._replace(tokens=jnp.where(TOKENS == 0, 6, TOKENS))
    weights = jnp.where(TOKENS == 0, 0.0, WEIGHTS)
    got = value(model, base, other._replace(weights=weights), 6)
    want = value(model, base, BATCH._replace(weights=weights), 0)
    assert got == pytest.approx(float(want), rel=1e-6)
    seen = value(model, base, other._replace(weights=weights), 10)
    assert abs(seen - want) > 1e-3


def test_logits_of_the_weighted_tokens_alone_are_the_same_loss(model, base):
    few = jax.jit(
        lambda base: cross_entropy(model, base, BATCH, pad=0, scored=Logits(2))
    )
    total, count = few(base)
    assert total / count == pytest.approx(float(value(model, base, BATCH, 0)), rel=1e-6)
    assert count == 4.5
    lost = cross_entropy(model, base, BATCH, pad=0, scored=Logits(1))
    assert float(lost[1]) == 3.0  # the caller's to know


def test_rows_that_are_not_packed_need_a_pad(model, base):
    with pytest.raises(ValueError, match="Got a Batch and no pad; give the id"):
        cross_entropy(model, base, BATCH)


def test_no_weight_at_all_is_zero_not_nan(model, base):
    empty = BATCH._replace(weights=jnp.zeros_like(WEIGHTS))
    now, grads = jax.jit(jax.value_and_grad(loss, 1), static_argnums=(0, 3))(
        model, base, empty, 0
    )
    assert now == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads))


def test_the_adapter_is_part_of_it(model, base):
    adapter = lora.init(jax.random.key(0), base, LoraConfig(rank=2))
    adapter = lora.lora_map(lambda w: w.replace(b=w.b + 0.3), adapter)
    got = value(model, base, BATCH, 0, adapter)
    want = value(model, lora.fuse(base, adapter), BATCH, 0)
    assert got == pytest.approx(float(want), rel=1e-4)
    assert abs(got - value(model, base, BATCH, 0)) > 1e-2


def test_decay_spares_norms_and_biases_alone(model):
    config = dataclasses.replace(model.config, qk_norm=True, attention_bias=True)
    fresh = jax.eval_shape(lambda key: init(key, Decoder(config)), jax.random.key(0))
    mask = tree.flatten(pretrain.decayed(fresh))
    spared = {name for name, shrunk in mask.items() if not shrunk}
    layers = {f"layers/attn/{n}_proj/bias" for n in "qkv"}
    layers |= {f"layers/attn/{n}_norm/scale" for n in "qk"}
    layers |= {f"layers/{n}_norm/scale" for n in ("attn", "mlp")}
    assert spared == layers | {"final_norm/scale"}
    assert {"embed/embedding", "positions", "head"} <= mask.keys() - spared


def test_the_optimizer_decays_by_that_mask_after_a_warm_up(base):
    opt = pretrain.optimizer(0.1, weight_decay=0.5, warmup=1)
    still = jax.tree.map(jnp.zeros_like, base)

    @jax.jit
    def once(base, state):
        updates, state = opt.update(still, state, base)
        return optax.apply_updates(base, updates), state

    params, state = once(base, opt.init(base))
    chex.assert_trees_all_equal(params, base)  # the warm-up starts at a rate of 0
    params, _ = once(params, state)
    for name, leaf in tree.flatten(params).items():
        rate = 1.0 if name.endswith("scale") else 0.95
        np.testing.assert_allclose(leaf, rate * tree.flatten(base)[name], rtol=1e-5)
