"""Bytes by formula against the bytes of real arrays."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, models, parallel
from jaxlora import tree as named
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, DecoderConfig
from jaxlora.parallel import merging
from jaxlora.plan import Work, activations, memory
from jaxlora.plan.work import shapes

TINY = DecoderConfig(
    vocab_size=48,
    hidden_size=16,
    num_layers=3,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    mlp_size=32,
    mlp="gated",
    positions="rope",
    dtype="bfloat16",
    param_dtype="bfloat16",
)
LORA = LoraConfig(rank=2)
WORK = Work(config=TINY, experts=4, lora=LORA, batch=4, length=8)


@pytest.fixture(scope="module")
def base():
    return jax.jit(models.init, static_argnums=1)(jax.random.key(0), Decoder(TINY))


def held(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("remat", [True, False])
def test_residuals_are_what_a_real_vjp_keeps(base, remat):
    """The arrays inside the pulled-back function, less those that are inputs."""
    model = Decoder(dataclasses.replace(TINY, remat=remat))
    adapter = lora.init(jax.random.key(1), base, LORA)
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
    assert activations.residuals(model.config, LORA, 2, 8) == pytest.approx(
        kept, rel=0.1
    )


def test_remat_keeps_one_hidden_state_a_layer():
    """Twice the layers: one more [N, D] in bfloat16 for each, and little else."""
    long = dataclasses.replace(TINY, remat=True, num_layers=6)
    short = dataclasses.replace(long, num_layers=3)
    more = activations.residuals(long, LORA, 2, 8) - activations.residuals(
        short, LORA, 2, 8
    )
    assert more == 3 * (2 * 8) * 16 * 2


@pytest.mark.parametrize(
    "sizes", [{}, {"expert": 2, "fsdp": 2, "tensor": 2}, {"data": 2, "fsdp": 4}]
)
def test_arrays_of_a_chip_are_those_that_lie_on_it(sizes):
    """Against arrays that are really placed, on virtual devices."""
    count = int(np.prod(list(sizes.values()))) if sizes else 1
    mesh = parallel.mesh(**sizes, devices=jax.devices()[:count])
    work = dataclasses.replace(WORK, batch=8)
    given = shapes(work)

    def on_first(tree, where):
        first = mesh.devices.flat[0]
        total = 0
        for name, leaf in named.flatten(tree).items():
            placed = jax.device_put(np.zeros(leaf.shape, leaf.dtype), where[name])
            parts = [x for x in placed.addressable_shards if x.device == first]
            total += sum(x.data.nbytes for x in parts)
        return total

    parts = memory.estimate(work, sizes)
    base, library, state = given.base, given.library, given.opt_state
    assert parts["base"] == on_first(base, parallel.shardings(mesh, base))
    of = functools.partial(parallel.expert_shardings, mesh)
    assert parts["adapters"] == on_first(library, of(library))
    assert parts["optimizer"] == on_first(state, of(state))


@pytest.mark.parametrize("sizes", [{"expert": 2, "fsdp": 3}, {"data": 2, "fsdp": 2}])
def test_a_library_that_is_merged_lies_as_merges_lay_it(sizes):
    """Three layers: cut along 3 devices, and inputs and outputs along 4."""
    mesh = parallel.mesh(**sizes, devices=jax.devices()[: math.prod(sizes.values())])
    work = dataclasses.replace(WORK, task="merge")
    library = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes(work).library)
    placed = merging._experts(mesh, library)
    first = [
        part.data.nbytes
        for leaf in jax.tree.leaves(placed)
        for part in leaf.addressable_shards
        if part.device == mesh.devices.flat[0]
    ]
    assert memory.estimate(work, sizes)["adapters"] == sum(first)


def test_a_chip_works_on_its_share():
    sizes = {"expert": 2, "fsdp": 2, "tensor": 2}
    here = memory.share(WORK, sizes)
    assert (here.batch, here.experts) == (2, 2)
    assert (here.config.num_heads, here.config.mlp_size) == (1, 16)
    half = memory.estimate(WORK, {"expert": 2})
    all_ = memory.estimate(WORK, {})
    for name in ("adapters", "optimizer", "gradients", "activations", "logits"):
        assert all_[name] == 2 * half[name]
    assert all_["base"] == half["base"]
    assert memory.estimate(WORK, {"fsdp": 2})["gathered"] > 0
    assert all_["gathered"] == 0


@pytest.mark.parametrize("remat", [True, False])
def test_every_row_keeps_as_much(remat):
    config = dataclasses.replace(TINY, remat=remat)
    five = activations.activations(config, LORA, 5, 8)
    direct = activations.residuals(config, LORA, 5, 8)
    if remat:
        single = dataclasses.replace(TINY, num_layers=1)
        direct += activations.residuals(single, LORA, 5, 8)
    assert five == direct


@pytest.mark.slow
def test_what_very_long_rows_keep_is_computed_from_shorter_ones(monkeypatch):
    """A mask of 131,072 tokens takes minutes to make, and a plan needs none."""
    wide = dataclasses.replace(TINY, head_dim=128, attention="splash", max_length=2048)
    traced = activations.activations(wide, LORA, 2, 1024)
    monkeypatch.setattr(activations, "LONG", 128)
    traces = activations.residuals.cache_info().misses
    # But for a few numbers on blocks of the mask.
    quick = activations.activations(wide, LORA, 2, 1024)
    assert quick == pytest.approx(traced, rel=1e-5)
    assert activations.residuals.cache_info().misses == traces + 4
