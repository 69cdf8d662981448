import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from jaxlora import parallel
from jaxlora.io import tensors
from jaxlora.models import stream
from jaxlora.models.names import Place

SPEC = PartitionSpec(None, "fsdp", "tensor")


@pytest.fixture(scope="module")
def cut():
    return NamedSharding(parallel.mesh(fsdp=4, tensor=2), SPEC)


@pytest.mark.parametrize(
    ("shape", "turned", "expected"),
    [((8, 6), False, (2, 3)), ((6, 8), True, (3, 2))],
)
def test_a_layer_arrives_cut_as_it_will_stay(cut, shape, turned, expected):
    """Otherwise each device would get other rows, and exchange them afterwards."""
    part = stream._part(np.zeros(shape, np.float32), Place("x", (0,), turned), cut)
    assert part.addressable_shards[0].data.shape == expected


def test_leaf_shorter_than_its_spec_is_whole(cut):
    whole = NamedSharding(cut.mesh, PartitionSpec())
    part = stream._part(np.zeros((3, 5), np.float32), Place("x", (), True), whole)
    assert part.addressable_shards[0].data.shape == (3, 5)


@pytest.mark.parametrize("sharded", [False, True])
def test_layers_are_stacked_in_order(tmp_path, cut, sharded):
    rng = np.random.default_rng(0)
    values = {str(i): rng.standard_normal((6, 8)).astype("float32") for i in range(3)}
    values["n"] = np.arange(8, dtype=np.float32)
    save_file(values, tmp_path / "model.safetensors")
    places = {str(i): Place("w", (i,), True) for i in (2, 0, 1)}
    places["n"] = Place("n", (), False)
    shapes = {
        "w": jnp.zeros((3, 8, 6), jnp.bfloat16),
        "n": jnp.zeros(8, jnp.float32),
    }
    leaves = stream.fill(
        tensors.open_folder(tmp_path),
        {name: name for name in values},
        places,
        shapes,
        {"w": cut} if sharded else {},
        None,
    )
    expected = jnp.stack(
        [jnp.asarray(values[str(i)].T, jnp.bfloat16) for i in range(3)]
    )
    np.testing.assert_array_equal(leaves["w"], expected)
    np.testing.assert_array_equal(leaves["n"], values["n"])
    assert not sharded or leaves["w"].sharding.is_equivalent_to(cut, 3)
