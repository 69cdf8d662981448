import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import merge, testing
from jaxlora.merge import frame
from jaxlora.merge.linear import absent_removed
from jaxlora.testing import libraries


def experts(layer=0, weights=(1.0, 1.0, 1.0)):
    library = testing.small_library(2, sites=1)
    weight = jax.tree.map(lambda x: x[:, layer], library["k_proj"]["kernel"])
    weight = absent_removed(weight, jnp.asarray(weights))
    return weight, libraries.deltas({"": weight})[""]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 0.0, 1.0)])
def test_the_core_is_lossless_and_its_bases_orthonormal(weights):
    weight, want = experts(weights=weights)
    joint = frame.core(weight)
    back = joint.inputs @ joint.values @ joint.outputs.T
    np.testing.assert_allclose(back, want, rtol=1e-5, atol=1e-5)
    for basis in (joint.inputs, joint.outputs):
        np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-5)
    live = 2 * int(weights[0]) + 2 * int(weights[1]) + 1
    assert joint.live_in.sum() == joint.live_out.sum() == live
    np.testing.assert_allclose(joint.values[:, ~joint.live_in], 0, atol=1e-5)


def test_outputs_are_the_right_singular_vectors_of_all_deltas():
    weight, want = experts()
    joint = frame.outputs(weight)
    vt = np.linalg.svd(want.reshape(-1, want.shape[-1]), full_matrices=False)[2]
    live = int(joint.live.sum())
    assert live == 5
    cosines = np.abs(np.sum(np.asarray(joint.basis.T)[:live] * vt[:live], axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 5)])
def test_svd_of_a_dense_matrix_either_way_up(shape):
    dense = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    u, s, vt = frame.svd(jnp.asarray(dense), 3)
    want = np.linalg.svd(dense.astype(np.float64), full_matrices=False)
    best = (want[0][:, :3] * want[1][:3]) @ want[2][:3]
    np.testing.assert_allclose((u * s[None]) @ vt, best, atol=1e-4)
    np.testing.assert_allclose(s, want[1][:3], rtol=1e-4)


def test_spaces_agree_where_the_method_is_linear():
    library = testing.small_library(2, sites=1)
    want = libraries.deltas(merge.preset("mean")(library))
    for space in ("knots", "core"):
        method = merge.chain(merge.weighted_mean(), space=space)
        with jax.disable_jit():
            got = libraries.deltas(method(library))
        assert libraries.distance(got, want) < 1e-5
