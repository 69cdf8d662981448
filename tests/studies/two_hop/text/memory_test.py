"""Shape arithmetic against the bytes of real arrays of a tiny model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxlora import lora, models
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, DecoderConfig, cache
from jaxlora.studies.two_hop.text import memory
from jaxlora.studies.two_hop.text.config import AskConfig, TextConfig, TrainConfig
from jaxlora.tasks.packing import Rows
from jaxlora.train import packed as training
from jaxlora.train.training import Plan, optimizer

TINY = DecoderConfig(
    vocab_size=48,
    hidden_size=16,
    num_layers=3,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    mlp_size=32,
    mlp="gated",
    positions="rope",
    dtype="bfloat16",
    param_dtype="bfloat16",
)
CONFIG = TextConfig(
    lora=LoraConfig(rank=2),
    train=TrainConfig(batch=2, length=8, together=2),
    ask=AskConfig(batch=3, candidates_at_once=2, new_tokens=4, written_tokens=6),
)


@pytest.fixture(scope="module")
def found():
    return memory.estimate(TINY, CONFIG, experts=5, longest=10)


@pytest.fixture(scope="module")
def base():
    return jax.jit(models.init, static_argnums=1)(jax.random.key(0), Decoder(TINY))


def held(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def test_parameters_experts_and_optimizer_are_real_bytes(found, base):
    adapter = lora.init(jax.random.key(1), base, CONFIG.lora)
    factors, _ = lora.split(adapter)
    assert found["base"] == held(base)
    assert found["experts"] == 5 * held(adapter)
    assert found["gradients"] == 2 * held(factors)
    assert found["optimizer"] == 5 * held(optax.scale_by_adam().init(factors))
    assert found["adapters asked"] == held(lora.stack([adapter] * 3)) * 2


def test_keys_and_values_are_real_bytes(found):
    # A prompt of 10 tokens and 6 more, three rows, before a call and after it.
    one = cache.empty(TINY, 3, 16)
    assert found["keys and values"] == 2 * held(one)


@pytest.mark.parametrize("remat", [True, False])
def test_residuals_are_what_a_real_vjp_keeps(base, remat):
    """The arrays inside the pulled-back function, less those that are inputs."""
    model = Decoder(dataclasses.replace(TINY, remat=remat))
    adapter = lora.init(jax.random.key(1), base, CONFIG.lora)
    factors, scales = lora.split(adapter)
    tokens = jnp.ones((2, 8), jnp.int32)

    @functools.partial(jax.jit, static_argnums=0)
    def forward(model, base, factors, scales, tokens):
        def value(factors):
            return models.hidden(
                model,
                base,
                models.Inputs(tokens, segments=tokens, positions=tokens),
                adapter=lora.combine(factors, scales),
            )

        return jax.vjp(value, factors)

    out, pull = forward(model, base, factors, scales, tokens)
    inputs = [x.shape for x in jax.tree.leaves((base, factors, scales))]
    kept = held(out)
    for leaf in jax.tree.leaves(pull):
        if leaf.shape in inputs:
            inputs.remove(leaf.shape)
        else:
            kept += leaf.nbytes
    assert memory.residuals(model.config, CONFIG.lora, 2, 8) == pytest.approx(
        kept, rel=0.1
    )


def test_remat_keeps_one_hidden_state_a_layer():
    """Twice the layers: one more [N, D] in bfloat16 for each, and little else."""
    long = dataclasses.replace(TINY, remat=True, num_layers=6)
    short = dataclasses.replace(long, num_layers=3)
    more = memory.residuals(long, CONFIG.lora, 2, 8) - memory.residuals(
        short, CONFIG.lora, 2, 8
    )
    assert more == 3 * (2 * 8) * 16 * 2


def test_the_compiler_reserves_no_more_than_the_estimate():
    """XLA's own count of temporary memory, against gradients, activations, logits."""
    wide = dataclasses.replace(
        TINY, hidden_size=64, mlp_size=128, dtype="float32", param_dtype="float32"
    )
    wide = dataclasses.replace(wide, attention="plain")
    config = dataclasses.replace(
        CONFIG, dtype="float32", train=TrainConfig(batch=4, length=64, together=2)
    )
    opt, keys = optimizer(), jax.random.split(jax.random.key(0), 2)
    base = jax.eval_shape(lambda: models.init(jax.random.key(0), Decoder(wide)))
    run = jax.eval_shape(lambda b: training.start(b, config.lora, opt, keys), base)
    plan = Plan(*[jax.ShapeDtypeStruct((2,), jnp.float32)] * 4)
    kinds = (jnp.int32, jnp.int32, jnp.float32, jnp.int32, jnp.int32)
    rows = Rows(*(jax.ShapeDtypeStruct((2, 2, 1, 4, 64), kind) for kind in kinds))
    program = training.Program(Decoder(wide), opt, 2)
    lowered = training.updates.lower(program, base, run, plan, rows)
    used = lowered.compile().memory_analysis().temp_size_in_bytes
    parts = memory.estimate(wide, config, experts=2)
    counted = parts["gradients"] + parts["activations"] + parts["logits"]
    assert 0.4 * counted < used < 1.1 * counted


def test_totals_are_sums_of_their_parts(found):
    assert found["training"] == sum(found[name] for name in memory.TRAINING)
    assert found["asking"] == sum(found[name] for name in memory.ASKING)
    assert found["logits"] == 2 * (2 * 2 * 8 * 48 * 4)


def test_experts_at_once_and_rows_cost_what_they_should(found):
    fewer = dataclasses.replace(CONFIG.train, together=1)
    less = memory.estimate(TINY, dataclasses.replace(CONFIG, train=fewer), 5, 10)
    for name in ("gradients", "activations", "logits"):
        assert found[name] == 2 * less[name]
    assert found["optimizer"] == less["optimizer"]


def test_the_table_is_in_gib(found):
    lines = memory.table({"base": 3 * 2**30}).splitlines()
    assert lines[-1] == "| base | 3.00 |"
