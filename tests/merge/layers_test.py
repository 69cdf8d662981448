"""Experts are kept where they are wanted, and nothing is said of layers not there."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora import lora, merge, testing
from jaxlora.merge.layers import KeepLayers

WEIGHTS = np.asarray([0.5, -0.25, 1.5], np.float32)


def masked(deltas, kept):
    """The closed form: deltas [E, L, D, F] times the mask [E, L]."""
    mask = np.asarray(kept, float)[..., None, None]
    return {name: delta * mask for name, delta in deltas.items()}


@pytest.mark.parametrize(
    ("ranges", "kept"),
    [
        ([(0,), (2, 3), [1]], [[1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]]),
        (["0,2-3", "low", "high"], [[1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]]),
        (["all", range(1, 3), "1 - 2"], [[1, 1, 1, 1], [0, 1, 1, 0], [0, 1, 1, 0]]),
        (None, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]),
    ],
)
def test_a_delta_is_zero_outside_of_its_layers_and_equal_in_them(
    ranges, kept, make_library, dense
):
    library = make_library(layers=4)
    got = jax.jit(merge.keep_layers(ranges))(None, library)
    chex.assert_trees_all_equal_shapes_and_dtypes(got, library)
    for name, want in masked(dense(library), kept).items():
        np.testing.assert_array_equal(dense(got)[name], want)


@settings(deadline=None)
@given(experts=st.integers(1, 9), more=st.integers(0, 40))
def test_an_even_split_gives_every_layer_to_one_expert_in_order(experts, more):
    layers = experts + more
    mask = KeepLayers().mask(experts, layers)
    assert (mask.sum(0) == 1).all()
    assert (np.diff(mask.argmax(0)) >= 0).all()
    assert set(mask.sum(1)) <= {layers // experts, -(-layers // experts)}


@pytest.mark.parametrize("layers", [2, 3, 4, 7])
def test_two_experts_are_split_into_the_low_and_the_high_half(layers):
    halves = merge.keep_layers(["low", "high"]).mask(2, layers)
    np.testing.assert_array_equal(halves, KeepLayers().mask(2, layers))


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], "Got the layers [], expected a range for each expert"),
        ("low", "Got the layers 'low', expected a range for each expert"),
        ([(0,), ()], "Expert 1 keeps no layer, expected at least one; the weight 0"),
        (["", "low"], "Expert 0 keeps no layer"),
        ([(0,), (-1,)], "Expert 1 keeps the layers '-1', expected numbers from 0"),
        (["3-2"], "Expert 0 keeps the layers '3-2', expected numbers from 0"),
        (["1,,2"], "keeps the layers '1,,2', expected numbers"),
        (["hihg"], "or one of low, high, all; did you mean 'high'?"),
        ([(0.5,)], "keeps the layers '0.5', expected numbers"),
        (["low", "high"], "Got layers of 2 experts for a library of 3, expected a ra"),
        (["low", "all", (1, 4, 5)], "2 keeps layers 4,5 of a model with 4 layers; the"),
        (["0", "1", "0,4-5"], "Expert 2 keeps layers 4-5 of a model with 4 layers; th"),
        (["0-999999999"] * 3, "layers 0-999999999 of a model with 4 layers; there ar"),
    ],
)
def test_layers_that_do_not_exist_are_refused(ranges, expected, make_library):
    library = make_library(layers=4)
    with pytest.raises(ValueError, match=r"^[^\n]+\.$|\?$") as error:
        merge.keep_layers(ranges)(None, library)
    assert expected in str(error.value)


def test_models_that_have_no_such_halves_or_shares_are_refused(make_library):
    with pytest.raises(ValueError, match="keeps the low half of a model with 1 layers"):
        merge.keep_layers(["low", "all", "all"])(None, make_library(layers=1))
    with pytest.raises(ValueError, match="Got 3 experts for 2 layers, so that some"):
        merge.preset("placed-sum")(make_library(layers=2))


@pytest.mark.parametrize("name", ["placed-sum", "placed-both"])
def test_sites_without_a_layer_axis_are_refused(name, make_library):
    single = jax.tree.map(lambda x: x[:, 0], make_library())
    with pytest.raises(ValueError, match=r"expected \[(E, L, D, R|L, E, E)\]"):
        merge.preset(name)(single)


def test_sites_of_other_depths_are_refused(make_library):
    library = {"deep": make_library(layers=4), "flat": make_library(layers=3)}
    with pytest.raises(ValueError, match=r"has 4 layers and 'flat/.* has 3, expected"):
        merge.preset("placed-sum")(library)


def test_the_placed_sum_is_the_sum_of_what_is_kept(make_library, dense):
    library = make_library(layers=4)
    layers = ("low", "1-2", "0,3")
    kept = [[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]]
    got = dense(merge.preset("placed-sum", layers=layers)(library, WEIGHTS))
    for name, deltas in masked(dense(library), kept).items():
        want = np.einsum("e,eldf->ldf", WEIGHTS, deltas)
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-5)


def test_at_the_rank_of_one_expert_a_split_loses_nothing(make_library, dense):
    library = make_library(layers=3)
    method = merge.preset("placed-sum")
    full, small = (dense(method(library, WEIGHTS, rank=r)) for r in (None, 2))
    for name in full:
        np.testing.assert_allclose(small[name], full[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("ends", "layers", "full"),
    [
        (0.25, 4, [1, 0, 0, 1]),
        (0.25, 3, [1, 0, 1]),
        (0.25, 8, [1, 1, 0, 0, 0, 0, 1, 1]),
        (0.25, 1, [1]),
        (0.1, 30, [1] * 3 + [0] * 24 + [1] * 3),
        (0, 4, [0, 0, 0, 0]),
        (0.5, 5, [1, 1, 1, 1, 1]),
    ],
)
def test_placed_both_is_the_sum_at_the_ends_and_the_mean_between(
    ends, layers, full, make_library, dense
):
    library = make_library(layers=layers)
    got = dense(merge.preset("placed-both", ends=ends)(library, WEIGHTS))
    strength = np.where(full, 1, 1 / WEIGHTS.sum())
    for name, deltas in dense(library).items():
        want = np.einsum("l,e,eldf->ldf", strength, WEIGHTS, deltas)
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-5)


def test_placed_both_holds_what_either_order_of_a_placed_sum_holds_at_the_ends(
    make_library, dense
):
    # Each expert is at its strength where the placed sum of some order has it.
    library = make_library(experts=2, layers=4)
    both = dense(merge.preset("placed-both")(library))
    orders = [
        dense(merge.preset("placed-sum", layers=x)(library))
        for x in (("low", "high"), ("high", "low"))
    ]
    for name, got in both.items():
        union = orders[0][name] + orders[1][name]
        np.testing.assert_allclose(got[[0, 3]], union[[0, 3]], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(got[1:3], union[1:3] / 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ends", [-0.1, 0.6, float("nan")])
def test_a_share_of_ends_above_a_half_is_refused(ends):
    with pytest.raises(ValueError, match=r"expected a share in \[0, 0.5\]"):
        merge.sum_ends(ends)


def test_placed_both_refuses_what_a_mean_refuses(make_library):
    with pytest.raises(ValueError, match="a mean divides by their sum"):
        merge.preset("placed-both")(make_library(), [1.0, -1.0, 0.0])


def test_ranges_of_a_users_own_keep_their_laws():
    method = merge.preset("placed-sum", layers=("low", "0-1", "high"))
    assert method.laws == {"gauge", "linearity", "padding"}
    testing.check_merge(method)


def test_equal_ranges_are_equal_values():
    assert merge.keep_layers([(0, 2)]) == merge.keep_layers([[0, 2]])
    assert merge.keep_layers(["0,2"]) == merge.keep_layers([range(0, 3, 2)])


def test_a_step_before_any_other_reduction(make_library, dense):
    library = make_library(layers=3)
    step = merge.keep_layers([(0,), (1,), (2,)])
    ties = merge.chain(
        *(merge.trim(0.5), merge.elect_sign(), merge.disjoint_mean()),
        space="delta",
        prepare=[step],
    )
    got = dense(ties(library))
    for name, x in dense(library).items():
        for layer in range(3):
            # Where one expert is left, TIES trims it and leaves it at full strength.
            left = got[name][layer] != 0
            np.testing.assert_allclose(
                got[name][layer][left], x[layer, layer][left], rtol=1e-4, atol=1e-4
            )
            assert left.mean() == pytest.approx(0.5, abs=0.05)


def test_what_is_not_kept_may_be_anything():
    library = testing.small_library(sites=1, layers=3)
    poisoned = lora.lora_map(lambda w: w.replace(a=w.a.at[0, 1:].set(jnp.nan)), library)
    got, want = (merge.preset("placed-sum")(x) for x in (poisoned, library))
    chex.assert_trees_all_equal(got, want)
