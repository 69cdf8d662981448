"""Closed forms against simulation in NumPy, and their limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.theory import bounds, compose
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


def test_the_leak_is_an_inverse_wishart_trace():
    rng = np.random.default_rng(2)
    keys = rng.normal(size=(300, 20, 60)) / np.sqrt(60)
    traces = [np.trace(np.linalg.inv(k @ k.T)) / 60 for k in keys]
    assert bounds.interference(20, 60) == pytest.approx(np.mean(traces), rel=0.05)
    with pytest.raises(ValueError, match="N < M - 1 fails"):
        bounds.interference(60, 60)


def test_answers_have_the_spectrum_of_marchenko_and_pastur():
    rng = np.random.default_rng(3)
    e = rng.normal(size=(256, 64))
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    result = np.linalg.svd(e, compute_uv=False) ** 2 / 256
    expected = bounds.spectrum_of_answers(256, 64)
    np.testing.assert_allclose(expected, result, atol=0.1 * result[0])
    with pytest.raises(ValueError, match="N >= D fails"):
        bounds.spectrum_of_answers(32, 64)


def test_adding_needs_a_logarithm_and_overwriting_a_share_of_the_width():
    needed = {
        (facts, width): next(
            r for r in range(1, width) if bounds.adding(r, facts, width) > 0.9
        )
        for facts, width in ((256, 64), (256, 128), (2048, 128))
    }
    assert needed[256, 128] < 1.5 * needed[256, 64]
    assert needed[2048, 128] < 2 * needed[256, 128]
    half = [
        next(r for r in range(1, d) if bounds.overwriting(r, 2048, d) > 0.5)
        for d in (64, 128, 256)
    ]
    assert 0.35 < half[0] / 64 < 0.55
    assert half[2] / 256 == pytest.approx(half[1] / 128, abs=0.08)


def test_the_margin_of_composition_comes_from_overlap_alone():
    sizes = Sizes(12, 256, 4096)
    assert abs(compose.margin(sizes, 0.0).margin) < 1e-4
    assert compose.composes(sizes, 0.0) == pytest.approx(1 / 12, abs=1e-3)
    wide = compose.noise(Sizes(12, 1024, 16384))
    assert wide == pytest.approx(compose.noise(sizes) / 2, rel=0.05)
