import jax
import jax.numpy as jnp
import pytest

from jaxlora import parallel
from jaxlora.parallel import rules


def specs(mesh, **shapes):
    leaves = {
        name.replace("__", "/"): jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in shapes.items()
    }
    return {name: tuple(s.spec) for name, s in rules.shardings(mesh, leaves).items()}


@pytest.fixture(scope="module")
def mesh():
    return parallel.mesh(fsdp=4, tensor=2)


def test_axes_of_each_kind_of_leaf(mesh):
    found = specs(
        mesh,
        layers__attn__q_proj__kernel=(2, 8, 6),
        layers__attn__o_proj__kernel=(2, 6, 8),
        layers__mlp__down_proj__kernel=(2, 16, 8),
        layers__attn__q_proj__bias=(2, 6),
        layers__attn_norm__scale=(2, 8),
        embed__embedding=(10, 8),
        head=(8, 10),
        final_norm__scale=(8,),
    )
    assert found == {
        "layers/attn/q_proj/kernel": (None, "fsdp", "tensor"),
        "layers/attn/o_proj/kernel": (None, "tensor", "fsdp"),
        "layers/mlp/down_proj/kernel": (None, "tensor", "fsdp"),
        "layers/attn/q_proj/bias": (None, "tensor"),
        "layers/attn_norm/scale": (),
        "embed/embedding": ("tensor", "fsdp"),
        "head": ("fsdp", "tensor"),
        "final_norm/scale": (),
    }


def test_axis_that_does_not_divide_stays_whole(mesh):
    found = specs(mesh, layers__mlp__up_proj__kernel=(4, 6, 7), head=(8, 7))
    assert found["layers/mlp/up_proj/kernel"] == ()
    assert found["head"] == ("fsdp",)


def test_axis_of_one_device_is_not_named():
    found = specs(parallel.mesh(data=-1), head=(8, 8))
    assert found["head"] == ()
