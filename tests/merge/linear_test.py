import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import merge
from jaxlora.merge import linear

GRAM = jnp.eye(3)


def test_mean_is_relative_and_sum_is_not():
    weights = jnp.asarray([2.0, 6.0, -4.0])
    mean, total = merge.weighted_mean(), merge.weighted_sum()
    np.testing.assert_allclose(mean.coefficients(GRAM, weights), [0.5, 1.5, -1.0])
    np.testing.assert_allclose(total.coefficients(GRAM, weights), weights)
    layers = jnp.zeros((5, 2, 3, 3))
    assert total.coefficients(layers, weights).shape == (3, 5, 2)


@pytest.mark.parametrize("weights", [[0.0, 0.0, 0.0], [1, -1, 0], [0.1, 0.2, -0.3]])
def test_mean_refuses_weights_that_cancel(weights):
    with pytest.raises(ValueError, match=r"sum to .*a mean divides by their sum"):
        merge.weighted_mean().check(np.asarray(weights))
    merge.weighted_sum().check(np.asarray(weights))


def test_scale_only_refuses_an_expert_that_is_not_there():
    with pytest.raises(ValueError, match="is 3, expected 0 to 2: the library has 3"):
        merge.scale_only(3).check(np.ones(3))


def test_factors_concatenate_and_keep_absent_columns_zero(make_library):
    weight = make_library()["q_proj"]["kernel"]
    weight = weight.replace(a=weight.a.at[1].set(jnp.nan))
    got = merge.weighted_sum().factors(weight, jnp.asarray([1.0, 0.0, -2.0]), None)
    assert got.a.shape == (2, 5, 6)
    assert got.b.shape == (2, 6, 7)
    assert got.scale.shape == (2,)
    np.testing.assert_array_equal(got.a[..., :2], weight.a[0])
    np.testing.assert_array_equal(got.a[..., 2:4], 0)
    np.testing.assert_array_equal(got.b[..., 2:4, :], 0)
    np.testing.assert_allclose(
        got.b[..., 4:, :], -2 * weight.scale[2][:, None, None] * weight.b[2], rtol=1e-6
    )


def test_coefficients_are_given_the_inner_products_of_deltas(make_library, dense):
    seen = []

    class Spy(linear.Linear):
        def coefficients(self, gram, weights):
            seen.append(gram)
            return jnp.ones((3, *gram.shape[:-2]))

    library = {"q_proj": make_library()["q_proj"]}
    Spy().factors(library["q_proj"]["kernel"], jnp.ones(3), None)
    values = jnp.asarray(dense(library)["q_proj/kernel"], jnp.float32)
    Spy().leaf(values[:, 0], jnp.ones(3), None, None)
    want = np.einsum("eldf,gldf->leg", values, values)
    np.testing.assert_allclose(seen[0], want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(seen[1], want[0], rtol=1e-4, atol=1e-4)
