"""A routed library that is spread over devices, scanned, rematerialised and trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxlora import models, route
from jaxlora.models import Decoder
from jaxlora.testing import gate_worlds as worlds

TOKENS = jnp.array([[3, 1, 4, 1], [5, 9, 2, 6]], jnp.int32)
LIBRARY = jax.tree.map(
    lambda x: jnp.concatenate([x, 0.7 * x[::-1]]), worlds.gate_library()
)


def loss_and_slope(model, base, library, gate):
    def loss(library):
        x = models.apply(model, base, TOKENS, library=library, gate=gate)
        return jnp.mean(x**2), x

    (_, x), slope = jax.value_and_grad(loss, has_aux=True)(library)
    return x, slope


RUN = jax.jit(loss_and_slope, static_argnums=0)


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
def test_a_library_over_the_expert_axis_is_routed_as_on_one_device(dtype):
    config = dataclasses.replace(worlds.CONFIG, dtype=dtype)
    way = route.preset("arrow", top_k=2)
    model = Decoder(config, way)
    base = worlds.base_of()
    gate = models.gate_state(model, LIBRARY)
    library = jax.tree.map(lambda x: x.astype(dtype), LIBRARY)
    want, slope = RUN(model, base, library, gate)
    mesh = jax.make_mesh((8,), ("expert",), (AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("expert"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    shared = jax.device_put((library, gate), spread)
    assert len(jax.tree.leaves(shared)[0].addressable_shards) == 8
    remat = Decoder(dataclasses.replace(config, remat=True), way)
    for other in (model, remat):
        got, moved = RUN(other, jax.device_put(base, everywhere), *shared)
        close = 1e-4 if dtype == "float32" else 0.05
        np.testing.assert_allclose(got, want, atol=close)
        for x, y in zip(jax.tree.leaves(moved), jax.tree.leaves(slope), strict=True):
            x, y = (np.asarray(z, np.float64) for z in (x, y))
            assert np.isfinite(y).all()
            assert np.linalg.norm(x - y) <= close * np.linalg.norm(y)
    assert all(
        np.abs(np.asarray(x, np.float64)).max() > 0 for x in jax.tree.leaves(slope)
    )
