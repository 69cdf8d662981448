import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, merge


def coordinates(values, live=None, weights=None):
    live = jnp.ones((1, 1, 1), bool) if live is None else jnp.asarray(live)
    weights = jnp.ones(values.shape[:1]) if weights is None else weights
    return merge.Coordinates({"": jnp.asarray(values)}, {"": live}, {"": weights})


def test_padding_is_neither_counted_nor_kept():
    values = np.zeros((1, 2, 4), np.float32)
    values[0, :, :2] = [[4, -3], [2, 1]]
    live = np.asarray([[[True, True, False, False]]])
    got = merge.trim(0.5)(None, coordinates(values, live)).values[""]
    assert got.tolist() == [[[4, -3, 0, 0], [0, 0, 0, 0]]]


def test_one_threshold_for_the_whole_model():
    x = merge.Coordinates(
        values={"k": jnp.asarray([[[4.0, 3.0]]]), "q": jnp.asarray([[[1.0, 2.0]]])},
        live={name: jnp.ones((1, 1, 1), bool) for name in "kq"},
        weights={name: jnp.ones(1) for name in "kq"},
    )
    got = merge.trim(0.5, "model")(None, x).values
    assert (got["k"].tolist(), got["q"].tolist()) == ([[[4, 3]]], [[[0, 0]]])
    apart = merge.trim(0.5)(None, x).values
    assert (apart["k"].tolist(), apart["q"].tolist()) == ([[[4, 0]]], [[[0, 2]]])


def test_outliers_give_way_to_density():
    values = np.arange(1.0, 11.0, dtype=np.float32).reshape(1, 1, 10)
    got = merge.trim_outliers(0.5, 0.2)(None, coordinates(values)).values[""]
    assert np.flatnonzero(got).tolist() == [3, 4, 5, 6, 7]
    got = merge.trim_outliers(0.9, 0.2)(None, coordinates(values)).values[""]
    assert np.flatnonzero(got).tolist() == list(range(9))


def test_masks_differ_between_experts_and_names_and_keep_the_mean():
    values = jnp.ones((3, 60, 60))
    names = ("a", "b")
    x = merge.Coordinates(
        dict.fromkeys(names, values),
        {n: jnp.ones((1, 1, 1), bool) for n in names},
        {n: jnp.ones(3) for n in names},
    )
    got = merge.drop(0.3)(jax.random.key(0), x).values
    flat = np.stack([np.asarray(got[n][e]) for n in names for e in range(3)])
    np.testing.assert_allclose(np.unique(flat), [0, 1 / 0.3], rtol=1e-6)
    np.testing.assert_allclose(flat.mean((1, 2)), 1, atol=0.12)
    kept = (flat > 0).reshape(6, -1)
    agree = np.corrcoef(kept) - np.eye(6)
    assert np.abs(agree).max() < 0.08


def test_the_norm_of_what_is_kept_is_that_of_all():
    values = np.random.default_rng(0).standard_normal((2, 9, 9)).astype(np.float32)
    got = merge.drop(0.4, "norm")(jax.random.key(0), coordinates(values)).values[""]
    sums = [np.abs(x).sum((1, 2)) for x in (np.asarray(got), values)]
    np.testing.assert_allclose(*sums, rtol=1e-5)
    assert 0.2 < np.mean(np.asarray(got) != 0) < 0.6


def test_chances_rise_with_the_rank_within_a_column():
    values = np.asarray([[[1.0, 5], [3, -6], [-2, 7]]], np.float32)
    chance = merge.drop_by_rank(0.5, 0.2).chances(coordinates(values), "")
    np.testing.assert_allclose(chance[0], [[0.3, 0.3], [0.7, 0.5], [0.5, 0.7]])


def test_absent_experts_have_no_part_in_the_variance():
    values = np.asarray([[[1.0, 9, 0]], [[3, 10, 0]], [[0, 0, 0]]], np.float32)
    x = coordinates(values, weights=jnp.asarray([1.0, 1.0, 0.0]))
    got = merge.select_by_variance(0.5)(None, x).values[""]
    assert got.tolist() == [[[1, 0, 0]], [[3, 0, 0]], [[0, 0, 0]]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: merge.trim(0.0), r"density is 0, expected a share in \(0, 1\]"),
        (lambda: merge.trim(1.1), r"density is 1.1"),
        (lambda: merge.trim_outliers(0.5, 1.0), r"outliers is 1.0, expected"),
        (lambda: merge.drop(-1), "density is -1"),
        (lambda: merge.drop_by_rank(0.1), "density - spread is -0.05"),
        (lambda: merge.drop_by_rank(0.9), r"density \+ spread is 1.05"),
        (lambda: merge.select_by_variance(0), "density is 0"),
    ],
)
def test_refuses_densities_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_drawing_needs_a_key():
    with pytest.raises(ValueError, match="drops entries at random: it needs a PRNG"):
        merge.drop(0.5)(None, coordinates(np.ones((1, 2, 2), np.float32)))


@pytest.mark.parametrize("name", ["ties", "prune", "ties[peft]", "knots-ties"])
def test_a_vector_is_trimmed_by_its_entries(name):
    """Its joint frame has one entry or two, of which a small share is none."""
    vector = np.random.default_rng(0).normal(size=(1, 10)).astype(np.float32)
    one = jnp.ones((1, 1, 1))
    gain = lora.LoraWeight(one, jnp.asarray(vector[None]), jnp.ones(1))
    merged = merge.preset(name, density=0.3)({"gain": gain})
    expected = np.where(np.abs(vector) >= np.sort(np.abs(vector))[0, -3], vector, 0)
    np.testing.assert_allclose(lora.delta(merged["gain"]), expected, rtol=1e-5)


def test_a_share_of_few_entries_is_one_at_least():
    got = merge.trim(0.2)(None, coordinates(np.asarray([[[3.0, -4.0], [1, 2]]])))
    assert got.values[""].tolist() == [[[0, -4], [0, 0]]]
