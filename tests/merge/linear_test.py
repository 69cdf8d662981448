import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import merge
from jaxlora.merge import linear


def test_mean_is_relative_and_sum_is_not():
    np.testing.assert_allclose(
        merge.weighted_mean().coefficients([2, 6, -4], 3), [0.5, 1.5, -1.0]
    )
    np.testing.assert_allclose(
        merge.weighted_sum().coefficients([2, 6, -4], 3), [2, 6, -4]
    )


def test_default_weights():
    np.testing.assert_allclose(merge.weighted_mean().coefficients(None, 4), [0.25] * 4)
    np.testing.assert_allclose(merge.weighted_sum().coefficients(None, 4), [1.0] * 4)


@pytest.mark.parametrize("reduction", [merge.weighted_mean(), merge.weighted_sum()])
@pytest.mark.parametrize("weights", [[1.0, np.nan], [np.inf, 1.0]])
def test_refuses_weights_that_are_not_finite(reduction, weights):
    with pytest.raises(ValueError, match=r"expected finite.*weight 0 to leave it out"):
        reduction.coefficients(weights, 2)


@pytest.mark.parametrize("weights", [[0.0, 0.0, 0.0], [1, -1, 0], [0.1, 0.2, -0.3]])
def test_mean_refuses_weights_that_cancel(weights):
    with pytest.raises(ValueError, match=r"sum to .*a mean divides by their sum"):
        merge.weighted_mean().coefficients(weights, 3)
    np.testing.assert_allclose(
        merge.weighted_sum().coefficients(weights, 3), weights, rtol=1e-6
    )


@pytest.mark.parametrize("weights", [[1.0], [1.0] * 4, 1.0, np.ones((3, 1))])
def test_refuses_the_wrong_number_of_weights_in_and_out_of_jit(weights):
    coefficients = merge.weighted_sum().coefficients
    with pytest.raises(ValueError, match=r"expected \(3,\): one weight for each of"):
        coefficients(weights, 3)
    with pytest.raises(ValueError, match=r"expected \(3,\): one weight for each of"):
        jax.jit(lambda w: coefficients(w, 3))(jnp.asarray(weights))


def test_values_are_not_checked_inside_jit():
    got = jax.jit(lambda w: merge.weighted_mean().coefficients(w, 2))(jnp.zeros(2))
    assert np.isnan(got).all()


def test_takes_a_list_of_traced_numbers():
    got = jax.jit(lambda x: merge.weighted_mean().coefficients([x, 3 * x], 2))(2.0)
    np.testing.assert_allclose(got, [0.25, 0.75])


def test_delta_space_concatenates_and_keeps_absent_columns_zero(make_library):
    weight = make_library()["q_proj"]["kernel"]
    got = linear.in_delta(weight, jnp.asarray([1.0, 0.0, -2.0]))
    assert got.a.shape == (2, 5, 6)
    assert got.b.shape == (2, 6, 7)
    assert got.scale.shape == (2,)
    np.testing.assert_array_equal(got.a[..., :2], weight.a[0])
    np.testing.assert_array_equal(got.a[..., 2:4], 0)
    np.testing.assert_array_equal(got.b[..., 2:4, :], 0)
    np.testing.assert_allclose(
        got.b[..., 4:, :], -2 * weight.scale[2][:, None, None] * weight.b[2], rtol=1e-6
    )


def test_factor_space_folds_each_scale_into_its_own_b(make_library):
    weight = make_library()["k_proj"]["kernel"]
    got = linear.in_factor(weight, jnp.asarray([0.5, 0.25, 0.25]))
    a, b, s = (np.asarray(x, np.float64) for x in (weight.a, weight.b, weight.scale))
    c = np.asarray([0.5, 0.25, 0.25])
    np.testing.assert_allclose(
        got.a, np.einsum("e,eldr->ldr", c, a), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        got.b, np.einsum("e,el,elrf->lrf", c, s, b), rtol=1e-5, atol=1e-6
    )
