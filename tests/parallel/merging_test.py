"""A library on many devices, merged and routed as on one; no device has it all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoders import TEXT, fresh, library
from jaxlora import merge, models, parallel, route
from jaxlora.models import Decoder
from jaxlora.plan import hlo

E = 4
# A linear merge in factors, one in the core frame, one that sees the whole model.
SLOW = ("ties", "tsv")
METHODS = ("mean", *(pytest.param(x, marks=pytest.mark.slow) for x in SLOW))


@pytest.fixture(scope="module")
def base():
    return fresh(Decoder(TEXT))


@pytest.fixture(scope="module")
def experts(base):
    return library(base, E)


@pytest.fixture(scope="module")
def mesh():
    return parallel.mesh(expert=4, devices=jax.devices()[:4])


@pytest.mark.parametrize("method", METHODS)
def test_a_merge_is_the_same_and_moves_layers(experts, mesh, method):
    """Two layers on four devices: two devices have copies, which nobody sees."""
    how = merge.preset(method)
    weights = jnp.array([1.0, 0.5, 2.0, 0.0])
    want = jax.jit(how)(experts, weights)
    run = jax.jit(functools.partial(parallel.merged, how))
    with parallel.using(mesh):
        compiled = run.lower(parallel.shard_experts(experts, mesh), weights).compile()
        got = compiled(parallel.shard_experts(experts, mesh), weights)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
    every = hlo.collectives(compiled.as_text(), mesh.shape)
    assert {x.axes for x in every} <= {("expert",)}
    # What is gathered is no library: one merged leaf of two layers at most.
    most = max(x.size for x in jax.tree.leaves(experts))
    for each in every:
        if each.kind == "all-gather":
            assert max(int(np.prod(s)) for _, s in each.shapes) < most


def test_without_a_mesh_a_merge_is_itself(experts):
    how = merge.preset("mean")
    got, want = parallel.merged(how, experts), how(experts)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_route_is_the_same_and_gathers_no_expert(base, experts, mesh):
    model = Decoder(TEXT, route.preset("arrow", top_k=2))
    gate = jax.jit(model.route.init)(experts)
    tokens = jnp.arange(1, 13).reshape(2, 6)

    def answer(base, library, gate, tokens):
        return models.apply(model, base, tokens, library=library, gate=gate)

    want = jax.jit(answer)(base, experts, gate, tokens)
    cut = parallel.shard_experts((experts, gate), mesh)
    placed = parallel.place(base, mesh, parallel.shardings(mesh, base))
    with parallel.using(mesh):
        compiled = jax.jit(answer).lower(placed, *cut, tokens).compile()
        got = compiled(placed, *cut, tokens)
    np.testing.assert_allclose(got, want, atol=1e-5)
    every = hlo.collectives(compiled.as_text(), mesh.shape)
    assert any(x.kind == "all-reduce" for x in every)
    site = min(x.a[:, 0].size for x in jax.tree.leaves(experts, is_leaf=_is_site))
    for each in every:
        if each.kind == "all-gather":  # scores of experts, not experts
            assert max(int(np.prod(s)) for _, s in each.shapes) < site * 8


def _is_site(x):
    return hasattr(x, "scale")
