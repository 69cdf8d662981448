"""Closed forms against simulation in NumPy, and their limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.theory import bounds, compose, rank_bounds
from jaxlora.theory.world import Sizes


def test_recall_is_what_a_simulation_gives():
    rng = np.random.default_rng(0)
    width, rivals, energy, key = 24, 20, 4.0, 0.3
    hits = []
    for _ in range(2000):
        e = rng.normal(size=(rivals + 1, width))
        e /= np.linalg.norm(e, axis=1, keepdims=True)
        rest = rng.normal(size=width) * np.sqrt(energy / width)
        k = key * rng.normal(size=rivals)
        written = e[0] + rest + k @ e[1:]
        logits = e @ written
        hits.append(logits.argmax() == 0)
    sigma = np.sqrt(energy / width)
    more = energy + rivals * key**2 * (1 - 1 / rivals)
    result = bounds.recall(1.0, sigma, more, [(key, rivals)], width)
    assert abs(result - np.mean(hits)) < 0.05


def test_the_law_of_a_coordinate_is_that_of_random_directions():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20_000, 8))
    x = np.sqrt(8) * x[:, 0] / np.linalg.norm(x, axis=1)
    for at in (-1.0, 0.5, 2.0):
        assert np.exp(bounds.coordinate(np.asarray(at), 8)) == pytest.approx(
            np.mean(x < at), abs=0.01
        )


@settings(max_examples=10, deadline=None)
@given(st.integers(20, 300), st.integers(32, 200), st.integers(16, 100))
def test_more_facts_or_less_room_is_never_better(facts, hidden, width):
    for recall in (bounds.outer_products, bounds.least_squares):
        here = recall(facts, hidden, width)
        assert 0 <= here <= 1
        assert recall(2 * facts, hidden, width) <= here + 1e-9
        assert recall(facts, 2 * hidden, width) >= here - 1e-9


@pytest.mark.parametrize(("edits", "hidden"), [(4, 10), (20, 60)])
def test_the_leak_into_a_random_key_is_that_of_keys_of_length_one(edits, hidden):
    rng = np.random.default_rng(2)
    keys = rng.normal(size=(8000, edits, hidden))
    keys /= np.linalg.norm(keys, axis=-1, keepdims=True)
    other = rng.normal(size=(8000, hidden))
    other /= np.linalg.norm(other, axis=-1, keepdims=True)
    gram = keys @ keys.swapaxes(1, 2)
    share = np.linalg.solve(gram, np.einsum("knm,km->kn", keys, other)[..., None])
    measured = np.mean(np.sum(share**2, axis=(1, 2)))
    assert bounds.interference(edits, hidden) == pytest.approx(measured, rel=0.03)
    gaussian = edits / (hidden - edits - 1)
    assert abs(gaussian / measured - 1) > 0.03  # what unit keys do not have


def test_the_leak_has_a_pole():
    with pytest.raises(ValueError, match="N < M - 1 fails"):
        bounds.interference(60, 60)


def test_two_ln_n_is_too_small_a_rank_at_any_width():
    for width in (64, 128, 256):
        assert 0.65 < rank_bounds.adding(round(2 * np.log(512)), 512, width) < 0.85
        half, most = (rank_bounds.rank_to_add(p, 512, width) for p in (0.5, 0.99))
        assert half < 2 * np.log(512) < 3 * np.log(512) < most < 4 * np.log(512)
    with pytest.raises(ValueError, match="0 < share < 1"):
        rank_bounds.rank_to_add(1.0, 512, 128)


def test_scale_and_rank_are_two_things():
    assert rank_bounds.overwriting(64, 512, 64, 0.5) == 0.5  # full rank: a tie
    assert rank_bounds.overwriting(63, 512, 64, 0.5) < 0.01
    rising = [rank_bounds.overwriting(36, 512, 64, g) for g in (0.6, 0.7, 0.8, 1.0)]
    assert rising == sorted(rising)
    assert rising[-1] - rising[0] > 0.9


def test_answers_have_the_spectrum_of_marchenko_and_pastur():
    rng = np.random.default_rng(3)
    e = rng.normal(size=(256, 64))
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    result = np.linalg.svd(e, compute_uv=False) ** 2 / 256
    expected = rank_bounds.spectrum_of_answers(256, 64)
    np.testing.assert_allclose(expected, result, atol=0.1 * result[0])
    with pytest.raises(ValueError, match="N >= D fails"):
        rank_bounds.spectrum_of_answers(32, 64)


def test_adding_needs_a_logarithm_and_overwriting_a_share_of_the_width():
    needed = {
        (facts, width): next(
            r for r in range(1, width) if rank_bounds.adding(r, facts, width) > 0.9
        )
        for facts, width in ((256, 64), (256, 128), (2048, 128))
    }
    assert needed[256, 128] < 1.5 * needed[256, 64]
    assert needed[2048, 128] < 2 * needed[256, 128]
    half = [
        next(r for r in range(1, d) if rank_bounds.overwriting(r, 2048, d) > 0.5)
        for d in (64, 128, 256)
    ]
    assert 0.35 < half[0] / 64 < 0.55
    assert half[2] / 256 == pytest.approx(half[1] / 128, abs=0.08)


@pytest.mark.slow
def test_the_margin_of_composition_comes_from_overlap_alone():
    sizes = Sizes(12, 256, 4096)
    assert abs(compose.margin(sizes, 0.0).margin) < 1e-4
    assert compose.composes(sizes, 0.0) == pytest.approx(1 / 12, abs=1e-3)
    wide = compose.noise(Sizes(12, 1024, 16384))
    assert wide == pytest.approx(compose.noise(sizes) / 2, rel=0.05)
