"""The same experts on every mesh, and each array where it is meant to be."""

import dataclasses

import jax
import numpy as np
import pytest

from decoders import TEXT, fresh
from jaxlora import lora, parallel
from jaxlora import tree as named
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder
from jaxlora.tasks.packing import Rows
from jaxlora.train import packed, session
from jaxlora.train.training import Training

E, T, STEPS = 4, 8, 20
MODEL = Decoder(dataclasses.replace(TEXT, num_kv_heads=2, tie_head=False))
TRAINING = Training(steps=STEPS, learning_rate=1e-3, batch=4, together=E)
LORA = LoraConfig(rank=2, alpha=4.0)
ATOL = 1e-5  # float32, and sums in another order

# The first has every kind of cut but that of rows over data.
MESHES = [
    {"expert": 2, "fsdp": 2, "tensor": 2},
    *(
        pytest.param(sizes, marks=pytest.mark.slow)
        for sizes in (
            {},
            {"expert": 2},
            {"data": 2},
            {"fsdp": 2},
            {"tensor": 2},
            {"expert": 4, "data": 2},
            {"expert": 4, "fsdp": 2},
            {"data": 2, "fsdp": 2},
            {"data": 4},
            {"fsdp": 2, "tensor": 2},
            {"expert": 2, "data": 2, "tensor": 2},
            {"fsdp": 4, "expert": 2},
            {"data": 2, "fsdp": 2, "tensor": 2},
        )
    ),
]


def draw(seed):
    """Rows [4, T] of one example each, its second half an answer."""
    tokens = np.random.default_rng(seed).integers(1, 13, (4, T)).astype(np.int32)
    places = np.broadcast_to(np.arange(T, dtype=np.int32), tokens.shape)
    weights = ((places >= T // 2) & (places < T - 1)).astype(np.float32)
    targets = np.roll(tokens, -1, axis=1)
    return Rows(tokens, targets, weights, np.ones_like(tokens), places.copy())


DATA = {f"expert{i}": draw(i) for i in range(E)}


@pytest.fixture(scope="module")
def base():
    return fresh(MODEL)


def train(base, mesh=None, training=TRAINING):
    saved = session.Checkpoints(chunk=10)
    if mesh is not None:
        base = parallel.place(base, mesh, parallel.shardings(mesh, base))
    return session.train_experts(
        MODEL, base, DATA, LORA, training, checkpoints=saved, mesh=mesh
    )


@pytest.fixture(scope="module")
def alone(base, optax_promotes):
    return train(base)


def mesh_of(sizes):
    count = int(np.prod(list(sizes.values()))) if sizes else 1
    return parallel.mesh(**sizes, devices=jax.devices()[:count])


def check_same(got, want):
    np.testing.assert_allclose(got.loss, want.loss, atol=ATOL)
    np.testing.assert_allclose(got.norm, want.norm, atol=ATOL)
    for one, other in zip(
        jax.tree.leaves(got.learned), jax.tree.leaves(want.learned), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=ATOL)


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_every_mesh_trains_the_same_experts(base, alone, optax_promotes, sizes):
    mesh, traces = mesh_of(sizes), packed.updates._cache_size()
    got = train(base, mesh)
    # Two chunks, and one program: what comes out lies where it went in.
    assert packed.updates._cache_size() == traces + 1
    assert np.abs(np.diff(alone.loss[:, [0, -1]])).min() > 0.01  # it learned something
    check_same(got, alone)
    for name, leaf in named.flatten(got.learned).items():
        cut = {"fsdp": 1, "tensor": 1, "expert": 1, "data": 1} | sizes
        shape = list(leaf.shape)
        shape[0] //= cut["expert"]
        column = any(f"/{x}_proj" in name for x in ("q", "k", "v", "gate", "up"))
        if name.endswith("/a"):
            shape[2] //= cut["fsdp"] * (1 if column else cut["tensor"])
        if name.endswith("/b"):
            shape[3] //= cut["fsdp"] * (cut["tensor"] if column else 1)
        assert {x.data.shape for x in leaf.addressable_shards} == {tuple(shape)}, name
        assert len(leaf.sharding.device_set) == mesh.devices.size


@pytest.mark.slow
def test_experts_of_a_device_may_wait_for_each_other(base, alone, optax_promotes):
    mesh = parallel.mesh(expert=2, devices=jax.devices()[:2])
    got = train(base, mesh, dataclasses.replace(TRAINING, together=2))
    check_same(got, alone)


def test_parameters_are_cut_over_fsdp_and_tensor(base):
    mesh = parallel.mesh(fsdp=4, tensor=2)
    placed = parallel.place(base, mesh, parallel.shardings(mesh, base))
    parts = {
        name: {x.data.shape for x in leaf.addressable_shards}
        for name, leaf in named.flatten(placed).items()
    }
    assert parts["layers/attn/q_proj/kernel"] == {(2, 2, 4)}
    assert parts["layers/attn/o_proj/kernel"] == {(2, 4, 2)}
    assert parts["layers/mlp/down_proj/kernel"] == {(2, 6, 2)}
    assert parts["head"] == {(2, 13)}  # 13 tokens are not for two
    assert parts["final_norm/scale"] == {(8,)}


def test_a_library_is_cut_as_its_kernels_are(base):
    library = jax.eval_shape(
        jax.vmap(lambda key: lora.init(key, base, LORA)), jax.random.split(KEY, E)
    )
    mesh = parallel.mesh(expert=2, fsdp=2, tensor=2)
    where = parallel.expert_shardings(mesh, library)
    assert tuple(where["layers/mlp/up_proj/kernel/b"].spec) == (
        "expert",
        None,
        None,
        ("tensor", "fsdp"),
    )
    assert tuple(where["layers/mlp/up_proj/kernel/scale"].spec) == ("expert",)


KEY = jax.random.key(0)
