"""The same experts on every mesh, and each array where it is meant to be."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import meshes
import pairs
from jaxlora import lora, parallel
from jaxlora import tree as named
from jaxlora.tasks.packing import Rows
from jaxlora.train import feeding, packed

FIRST, *OTHERS = meshes.MESHES
EVERY = [FIRST, *(pytest.param(x, marks=pytest.mark.slow) for x in OTHERS)]


@pytest.fixture(scope="module")
def base():
    return meshes.base()


@pytest.fixture(scope="module")
def alone(base, optax_promotes):
    return meshes.train(base)


def check_same(got, want):
    differences = meshes.largest(meshes.results(got), meshes.results(want))
    assert max(differences) <= meshes.ATOL, differences


@pytest.mark.parametrize("sizes", EVERY, ids=str)
def test_every_mesh_trains_the_same_experts(base, alone, optax_promotes, sizes):
    mesh, traces = meshes.mesh_of(sizes), packed.updates._cache_size()
    got = meshes.train(base, mesh)
    # Two chunks, and one program: what comes out lies where it went in.
    assert packed.updates._cache_size() == traces + 1
    assert np.abs(np.diff(alone.loss[:, [0, -1]])).min() > 0.01  # it learned something
    check_same(got, alone)
    assert mesh.devices.size == np.prod([1, *sizes.values()])
    meshes.check_shards(got.learned, sizes, mesh)


@pytest.mark.slow
def test_two_processes_train_the_same_experts_on_every_mesh(alone, tmp_path):
    np.savez(tmp_path / "alone.npz", **meshes.results(alone))
    port, wanted = str(pairs.free_port()), str(tmp_path / "alone.npz")
    both = [pairs.script(meshes.__file__, port, str(i), wanted) for i in range(2)]
    for code, out, text in pairs.ended(both, 1200):
        assert code == 0, text[-3000:]
        lines = [json.loads(line) for line in out.splitlines() if line[:1] == "{"]
        assert [line["mesh"] for line in lines] == meshes.SHARED
        for line in lines:
            assert max(line["history"], line["adapters"]) <= meshes.ATOL, line
    print("", *lines, sep="\n")


@pytest.mark.slow
@pytest.mark.parametrize("back", [False, True])
def test_a_run_goes_on_on_another_mesh(base, alone, optax_promotes, tmp_path, back):
    first, second = ({"expert": 2, "fsdp": 2}, {"data": 4})[:: -1 if back else 1]

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        meshes.train(base, meshes.mesh_of(first), folder=tmp_path, progress=stop)
    mesh = meshes.mesh_of(second)
    got = meshes.train(base, mesh, folder=tmp_path)
    assert got.resumed == meshes.CHUNK
    check_same(got, alone)
    meshes.check_shards(got.learned, second, mesh)


@pytest.mark.slow
def test_experts_of_a_device_may_wait_for_each_other(base, alone, optax_promotes):
    mesh = parallel.mesh(expert=2, devices=jax.devices()[:2])
    got = meshes.train(base, mesh, dataclasses.replace(meshes.TRAINING, together=2))
    check_same(got, alone)


@pytest.mark.slow
def test_rows_that_do_not_fill_the_mesh_train_the_same_experts(base, optax_promotes):
    three = dataclasses.replace(meshes.TRAINING, batch=3)
    want = meshes.train(base, None, three)
    mesh = parallel.mesh(data=2, fsdp=2, devices=jax.devices()[:4])
    check_same(meshes.train(base, mesh, three), want)


@pytest.mark.slow
def test_experts_that_do_not_fill_the_mesh_are_the_same(
    base, alone, optax_promotes, tmp_path
):
    """Three of four, on four devices; stopped there, one device goes on."""
    data = dict(list(meshes.DATA.items())[:3])
    mesh = parallel.mesh(expert=4, devices=jax.devices()[:4])

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        meshes.train(base, mesh, folder=tmp_path, progress=stop, data=data)
    got = [
        meshes.train(base, where, folder=folder, data=data)
        for where, folder in ((mesh, None), (None, tmp_path))
    ]
    assert [x.resumed for x in got] == [0, meshes.CHUNK]
    for each in got:
        assert each.loss.shape == (3, meshes.STEPS)
        want = jax.tree.map(lambda x: x[:3], meshes.results(alone))
        assert max(meshes.largest(meshes.results(each), want)) <= meshes.ATOL


def test_experts_that_all_stay_are_not_copied():
    tree = {"x": jnp.ones((3, 2)), "step": jnp.zeros(())}
    which = feeding.spread(3, None)
    same = feeding.taken(tree, which)
    assert same["x"] is tree["x"]
    assert same["step"] is tree["step"]
    assert feeding.without_copies(which, 3)(tree) is tree
    which = feeding.spread(3, parallel.mesh(expert=2, devices=jax.devices()[:2]))
    more = feeding.taken(tree, which)
    assert more["x"].shape == (4, 2)
    assert feeding.without_copies(which, 3)(more)["x"].shape == (3, 2)


def test_rows_that_are_added_count_for_nothing():
    values = np.arange(1, 13).reshape(1, 3, 4)
    rows = Rows(values, values, values.astype(np.float32), values, values)
    mesh = parallel.mesh(data=2, fsdp=2, devices=jax.devices()[:4])
    more = feeding.even(rows, mesh)
    for got, given in zip(more, rows, strict=True):
        assert (got.shape, got.dtype) == ((1, 4, 4), given.dtype)
        np.testing.assert_array_equal(got[:, :3], given)
    assert (more.tokens[:, 3] == values[:, 2]).all()
    assert not more.weights[:, 3].any()
    assert feeding.even(rows, None).tokens.shape == (1, 3, 4)


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
        jax.vmap(lambda key: lora.init(key, base, meshes.LORA)),
        jax.random.split(KEY, meshes.E),
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
