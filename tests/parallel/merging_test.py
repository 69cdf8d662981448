"""A library on many devices, merged and routed as on one; no device has it all."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoders import TEXT, fresh, library
from jaxlora import lora, merge, models, parallel, route
from jaxlora.lora import LoraWeight
from jaxlora.merge import groups
from jaxlora.models import Decoder
from jaxlora.parallel import merging
from jaxlora.plan import hlo

E = 4
FAST = ("mean", "dare")
"""In factors, and by draws in the core frame; the others are slow."""
METHODS = [
    name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
    for name in merge.names()
]


@pytest.fixture(scope="module")
def base():
    return fresh(Decoder(TEXT))


@pytest.fixture(scope="module")
def experts(base):
    return library(base, E)


@pytest.fixture(scope="module")
def mesh():
    return parallel.mesh(expert=4, devices=jax.devices()[:4])


@pytest.fixture(scope="module")
def sites():
    """Two sites of five layers, which no mesh divides; all factors are of one size."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return {
        name: LoraWeight(draw(E, 5, 8, 2), draw(E, 5, 2, 8), 1 + draw(E, 5) ** 2)
        for name in ("q", "up")
    }


def data_of(how, sites):
    """Data for merges that see some: scalars, moments [D, D], or a weight an entry."""
    shapes = {"free": None, "target": (), "own": (8, 8)}
    shape = shapes[how.data]
    if shape is None:
        return None
    values = np.random.default_rng(1).uniform(0.5, 1, (E, 5, *shape))
    if shape:  # moments are symmetric
        values = values @ np.swapaxes(values, -1, -2)
    return dict.fromkeys(sites, values.astype(np.float32))


def gathered(program, mesh):
    """The largest array that a device gets of others, and does not keep a part of."""
    sizes = [
        math.prod(shape)
        for move in hlo.collectives(program, mesh.shape)
        if move.kind not in ("all-to-all", "reduce-scatter")
        for _, shape in move.shapes
    ]
    return max(sizes, default=0)


def share(sites, mesh):
    """Entries of a factor that each device has, if all have as many."""
    return sites["q"].a.size / mesh.size


@pytest.mark.parametrize("method", METHODS)
def test_every_merge_is_the_same_over_a_mesh_and_gathers_no_library(sites, method):
    how, weights = merge.preset(method), jnp.array([1.0, 0.5, 2.0, 0.0])
    given = {"key": jax.random.key(3), "data": data_of(how, sites)}
    want = groups.here(how, sites, weights, **given)
    cut, programs = parallel.mesh(expert=4, fsdp=2), []
    run = merging.across(cut, lambda text, _: programs.append(text))
    got = run(how, sites, weights, **given)
    assert got.keys() == want.keys() == sites.keys()
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert isinstance(x, np.ndarray)
        np.testing.assert_allclose(x, y, atol=1e-6 * abs(np.asarray(y)).max())
    (program,) = programs
    moves = hlo.collectives(program, cut.shape)
    assert how.by_layer or "all-to-all" in {x.kind for x in moves}
    assert gathered(program, cut) <= 2 * share(sites, cut)
    run(how, sites, weights, **given)
    assert len(programs) == 1


def test_numbers_of_layers_are_those_of_the_model(sites):
    """Layers 0, 1, 3 and 4 of five are summed, wherever they are merged."""
    how, programs = merge.preset("placed-both", ends=0.4), []
    cut = parallel.mesh(expert=4, fsdp=2)
    run = merging.across(cut, lambda text, _: programs.append(text))
    weights = jnp.array([1.0, 0.5, 2.0, 0.0])
    got, want = (f(how, sites, weights, rank=2)["q"] for f in (run, groups.here))
    np.testing.assert_allclose(
        lora.delta(LoraWeight(*map(jnp.asarray, (got.a, got.b, got.scale)))),
        lora.delta(want),
        atol=1e-4,
    )
    assert gathered(programs[0], cut) <= 2 * share(sites, cut)


def test_each_device_merges_layers_of_its_own(sites):
    """Sixteen layers on eight devices; the library comes cut over experts alone."""
    cut = parallel.mesh(expert=4, fsdp=2)
    sites = {"q": jax.tree.map(lambda x: np.repeat(x, 4, axis=1)[:, :16], sites["q"])}
    run = jax.jit(functools.partial(parallel.merged, merge.preset("svd")))
    with parallel.using(cut):
        got = run(parallel.shard_experts(sites, cut))["q"]
    assert [x.data.shape[0] for x in got.a.addressable_shards] == [2] * 8
    want = jax.jit(merge.preset("svd"))(sites)["q"]
    np.testing.assert_allclose(got.a, want.a, atol=1e-5)


def test_a_merge_that_looks_at_all_layers_gathers_and_is_seen_to(sites):
    """The check of the others would find it."""

    def ranked(key, library):
        del key
        # A sum over layers and experts, in an order that no device can know alone.
        order = jnp.argsort(library["q"].a[:, :, 0, 0].ravel())
        a = library["q"].a.reshape(20, 8, 2)[order].reshape(E, 5, 8, 2)
        return library | {"q": library["q"].replace(a=a)}

    how = merge.chain(merge.weighted_mean(), space="delta", prepare=[ranked])
    cut, programs = parallel.mesh(expert=4, fsdp=2), []
    merging.across(cut, lambda text, _: programs.append(text))(how, sites, jnp.ones(E))
    assert gathered(programs[0], cut) > 2 * share(sites, cut)


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
