"""Two layers against NumPy, and what their law predicts against simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora.theory import law, measure, measure_layers, predict_layers, two_layer
from jaxlora.theory.limit import arc_cosine
from jaxlora.theory.two_layer import PLACEMENTS, Reading
from jaxlora.theory.world import Sizes, draw

SIZES = Sizes(16, 96, 768)
KEYS = jax.random.split(jax.random.key(5), 6)


@pytest.fixture(scope="module")
def layers():
    return jax.jit(two_layer.make, static_argnums=1)(KEYS[0], SIZES)


@pytest.fixture(scope="module")
def measured():
    at = {gain: (np.float32(gain), np.float32(0)) for gain in (0.5, 2.0)}
    return {
        gain: measure.over_seeds(measure_layers.placed, KEYS, SIZES, *values)
        for gain, values in at.items()
    }


def share(items) -> float:
    return float(np.mean(items))


def _reference(layers, weights, gain, stale):
    """The logits of every two-hop prompt, in NumPy."""
    low, high, truth = (
        layers.lower,
        layers.upper,
        jax.tree.map(np.asarray, layers.truth),
    )
    e, r, v = (
        np.asarray(x, np.float64) for x in (low.entities, low.relations, low.value)
    )

    def memory(layer, edits, gate):
        w = edits["memory"]["kernel"]
        deltas = np.asarray(w.a, np.float64) @ np.asarray(w.b, np.float64)
        return np.asarray(layer.kernel, np.float64) + np.tensordot(gate, deltas, 1)

    def write(layer, kernel, x):
        return np.maximum(x @ np.asarray(layer.up, np.float64), 0) @ kernel

    lower = memory(low, layers.edits[0], weights[0])
    upper = memory(high, layers.edits[1], weights[1])
    x = e[np.asarray(truth.hop1[:, 0])] @ v
    early, last = write(low, lower, x + r[0]), write(low, lower, x + r[0] + r[1])
    second = stale * (x + r[0]) + r[1] + gain * early @ v
    return (last + write(high, upper, second)) @ e.T


@pytest.mark.parametrize("name", ["placed", "reversed", "halves, mean"])
def test_two_layers_are_the_formula(layers, name):
    weights = PLACEMENTS[name]
    result = two_layer.two_hop(layers, jnp.asarray(weights), Reading(1.5, 0.3))
    expected = _reference(layers, np.asarray(weights), 1.5, 0.3)
    np.testing.assert_allclose(result, expected, atol=2e-3)


def test_each_layer_knows_half_and_has_keys_of_its_own(layers):
    truth = layers.truth
    base = jnp.asarray(PLACEMENTS["base"])
    logits = two_layer.one_hop(layers, truth.hop1, base)
    rows = jnp.arange(SIZES.people)
    np.testing.assert_allclose(logits[rows, truth.old1], 1.0, atol=1e-2)
    assert float(jnp.abs(layers.lower.up - layers.upper.up).max()) > 0.01


@pytest.mark.slow
def test_placed_edits_compose_and_no_other_placement_does(measured):
    right = {p: share(measured[2.0][f"{p}: composed"]) for p in PLACEMENTS}
    assert right["placed"] > 0.95
    for name in ("reversed", "both low", "both high", "halves, mean"):
        assert right[name] < 0.15, name
    assert right["halves, mean"] < right["halves, sum"] < right["placed"]
    for hop in ("hop 1", "hop 2"):
        assert share(measured[2.0][f"placed: {hop}"]) > 0.99
        assert abs(share(measured[2.0][f"halves, mean: {hop}"]) - 0.5) < 0.2


def test_without_gain_two_layers_answer_the_bridge_as_one_does(measured):
    for name in ("placed", "both low"):
        assert share(measured[0.5][f"{name}: bridge"]) > 0.9
        assert share(measured[0.5][f"{name}: composed"]) < 0.1


def test_nothing_composes_if_what_was_written_is_not_moved_or_is_drowned(layers):
    def composed(name: str, reading: Reading) -> float:
        logits = two_layer.two_hop(layers, jnp.asarray(PLACEMENTS[name]), reading)
        return share(jnp.argmax(logits, axis=-1) == layers.truth.composed)

    assert composed("placed", Reading(2.0)) > 0.9
    assert composed("placed", Reading(0.0)) < 0.2
    assert composed("halves, sum", Reading(3.0)) > 0.6
    assert composed("halves, sum", Reading(3.0, stale=1.5)) < 0.3


@pytest.mark.slow
def test_the_law_predicts_the_step_in_the_gain():
    for gain, least, most in ((0.5, 0.0, 0.1), (1.0, 0.55, 0.85), (2.0, 0.98, 1.0)):
        value = predict_layers.placed(SIZES, gain, 0.0)["placed: composed"]
        assert least <= value <= most
        given = (np.float32(gain), np.float32(0))
        items = measure.over_seeds(measure_layers.placed, KEYS, SIZES, *given)
        assert abs(share(items["placed: composed"]) - value) < 0.15


def test_more_room_sharpens_the_step():
    ids = predict_layers.candidates(draw(jax.random.key(0), SIZES))
    at = (ids, PLACEMENTS["placed"], Reading(1.0))
    narrow = law.law(SIZES, *at)
    wide = law.law(Sizes(16, 4 * 96, 4 * 768), *at)
    np.testing.assert_allclose(narrow.mean, wide.mean, atol=1e-5)
    np.testing.assert_allclose(narrow.covariance, 4 * wide.covariance, rtol=1e-4)


def test_the_kernel_of_the_law_is_that_of_the_limit():
    cosine = jnp.linspace(-0.99, 1.0, 50)
    np.testing.assert_allclose(law.kernel(cosine), arc_cosine(cosine), atol=1e-6)
    slope = jax.vmap(jax.grad(law.kernel))(cosine)
    np.testing.assert_allclose(slope, 1 - np.arccos(cosine) / np.pi, atol=1e-3)


def test_a_lattice_has_the_moments_of_a_gaussian():
    for points, axes in ((law.POINTS, 152), (law.DRAWS, 6)):
        z = law.lattice(points, axes)
        np.testing.assert_allclose(z.mean(0), 0, atol=0.02)
        cross = z.T @ z / points
        np.testing.assert_allclose(np.diagonal(cross), 1, atol=0.05)
        off = cross[~np.eye(axes, dtype=bool)]
        assert np.sqrt(np.mean(off**2)) < 2 / np.sqrt(points)
