import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxlora import parallel


def test_sizes_names_and_types():
    mesh = parallel.mesh(data=2, expert=4)
    assert dict(mesh.shape) == {"expert": 4, "data": 2, "fsdp": 1, "tensor": 1}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert mesh.devices.size == jax.device_count() == 8
    assert len(set(mesh.devices.flat)) == 8


@pytest.mark.parametrize(
    ("sizes", "want"),
    [
        ({"expert": -1}, (8, 1, 1, 1)),
        ({"data": -1, "fsdp": 2, "tensor": 2}, (1, 2, 2, 2)),
        ({"fsdp": 8, "expert": -1}, (1, 1, 8, 1)),
    ],
)
def test_minus_one_is_the_rest(sizes, want):
    assert tuple(parallel.mesh(**sizes).shape.values()) == want


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({}, "data=1, fsdp=1, tensor=1, expert=1, expected a product of 8"),
        ({"expert": 3}, "expert=3, expected a product of 8"),
        (
            {"expert": 3, "data": -1},
            "data=-1, expert=3, and 3 does not divide 8, .*or 8",
        ),
        ({"expert": 16, "data": -1}, "16 does not divide 8, .* 1, 2, 4 or 8 do"),
        ({"expert": -1, "data": -1}, "on one axis at most"),
        ({"expert": 0}, "expected positive numbers"),
        ({"expert": -2}, "expected positive numbers"),
        ({"expert": -1, "data": -2, "fsdp": -1}, "expected positive numbers"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, sentence):
    with pytest.raises(ValueError, match=sentence):
        parallel.mesh(**sizes)


def test_experts_are_cut_along_their_axis():
    mesh = parallel.mesh(data=2, expert=4)
    tree = {
        "a": jnp.arange(24.0).reshape(8, 3),
        "keys": jax.random.split(jax.random.key(0), 8),
    }
    cut = parallel.shard_experts(tree, mesh)
    wanted = NamedSharding(mesh, PartitionSpec("expert"))
    assert all(
        leaf.sharding.is_equivalent_to(wanted, leaf.ndim) for leaf in cut.values()
    )
    shards = cut["a"].addressable_shards
    assert [shard.data.shape for shard in shards] == [(2, 3)] * 8
    assert {shard.index[0].start for shard in shards} == {0, 2, 4, 6}
    assert (cut["a"] == tree["a"]).all()
    assert (jax.random.key_data(cut["keys"]) == jax.random.key_data(tree["keys"])).all()


@pytest.mark.parametrize("leaf", [jnp.ones((6, 2)), jnp.ones(())], ids=["6", "scalar"])
def test_experts_that_do_not_divide_are_refused(leaf):
    mesh = parallel.mesh(expert=-1)
    with pytest.raises(ValueError, match=r"Leaf 'lora/a' has shape .* 8 devices"):
        parallel.shard_experts({"lora": {"a": leaf}}, mesh)
