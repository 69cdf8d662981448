import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import merge


def coordinates(values, weights):
    values = jnp.asarray(values, jnp.float32)[:, None, :]
    return merge.Coordinates(
        {"": values}, {"": jnp.ones((1, 1, 1), bool)}, {"": jnp.asarray(weights)}
    )


VALUES = [[3.0, -1.0, 2.0, 0.0], [-1.0, -1.0, -2.0, 0.0], [-1.0, 3.0, 0.0, -1.0]]


@pytest.mark.parametrize(
    ("options", "signs"),
    [
        ({"weighted": False}, [1, 1, 1, -1]),
        ({"weighted": False, "by": "frequency"}, [-1, -1, 1, -1]),
        ({"weighted": False, "zero": "none"}, [1, 1, 0, -1]),
        ({"weighted": False, "zero": "majority"}, [1, 1, 1, -1]),
    ],
)
def test_elections(options, signs):
    got = merge.elect_sign(**options)(None, coordinates(VALUES, [1.0, 1.0, 1.0]))
    want = np.where(np.sign(VALUES) == np.asarray(signs), VALUES, 0)
    np.testing.assert_array_equal(got.values[""][:, 0], want)


def test_the_majority_of_a_negative_model_is_negative():
    values = [[-1.0, -1.0, 2.0], [-1.0, -1.0, -2.0]]
    step = merge.elect_sign(weighted=False, zero="majority")
    assert step.scope == "model"
    got = step(None, coordinates(values, [1.0, 1.0])).values[""]
    assert got[:, 0].tolist() == [[-1, -1, 0], [-1, -1, -2]]


def test_a_negative_weight_votes_against_its_values():
    x = coordinates([[3.0, 1.0], [2.0, -4.0]], [1.0, -1.0])
    got = merge.elect_sign()(None, x).values[""]
    assert got[:, 0].tolist() == [[3, 1], [0, -4]]
    got = merge.elect_sign(weighted=False)(None, x).values[""]
    assert got[:, 0].tolist() == [[3, 0], [2, -4]]


@pytest.mark.parametrize(
    ("normalize", "want"),
    [("weights", [2.5, 2.0, 0.0]), ("count", [5.0, 6.0, 0.0]), ("sum", [10, 6, 0])],
)
def test_divisors_leave_out_zeros_and_the_absent(normalize, want):
    values = jnp.asarray([[[4.0, 0, 0]], [[2.0, 2, 0]], [[0.0, 0, 0]]])
    got = merge.disjoint_mean(normalize).leaf(
        values, jnp.asarray([1.0, 3.0, 0.0]), None, None
    )
    np.testing.assert_allclose(got[0], want)


def test_energy_becomes_the_weight():
    x = coordinates([[3.0, 0.0], [1.0, 0.0], [0.0, 0.0]], [1.0, 1.0, 0.0])
    got = merge.weigh_by_energy()(None, x).weights[""]
    np.testing.assert_allclose(got, [0.9, 0.1, 0.0], rtol=1e-6)
