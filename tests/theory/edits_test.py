"""Closed-form edits against NumPy, and what has no edit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora import lora
from jaxlora.theory import edits
from jaxlora.theory.solve import dual, least_squares

EXACT = 2e-4
"""Of a solve in float32 whose Gram matrix has a condition of up to a thousand."""


def draw(seed: int, n: int, m: int, f: int):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, m)), rng.normal(size=(n, f))


def f32(*arrays):
    return [jnp.asarray(x, jnp.float32) for x in arrays]


def delta(weight) -> np.ndarray:
    return np.asarray(lora.delta(weight), np.float64)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.integers(1, 6))
def test_an_edit_is_the_pseudo_inverse_times_the_change(seed, n):
    keys, change = draw(seed, n, 24, 5)
    result = delta(edits.edit(*f32(keys, change)))
    np.testing.assert_allclose(result, np.linalg.pinv(keys) @ change, atol=EXACT)
    np.testing.assert_allclose(keys @ result, change, atol=EXACT)


def test_no_exact_edit_is_smaller():
    keys, change = draw(0, 4, 9, 3)
    result = delta(edits.edit(*f32(keys, change)))
    free = np.linalg.svd(keys)[2][4:].T  # directions that no key sees
    other = result + free @ np.ones((5, 3))
    np.testing.assert_allclose(keys @ other, change, atol=EXACT)
    assert np.linalg.norm(result) < np.linalg.norm(other)


def test_a_rank_one_edit_is_the_batch_of_one():
    (key,), (change,) = draw(1, 1, 7, 3)
    single, batch = edits.rank_one(*f32(key, change)), edits.edit(*f32([key], [change]))
    expected = np.outer(key, change) / (key @ key)
    np.testing.assert_allclose(delta(single), expected, atol=1e-6)
    np.testing.assert_allclose(delta(batch), expected, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3])
def test_an_edit_of_low_rank_is_the_best_one_on_its_keys(rank):
    keys, change = draw(2, 6, 16, 5)
    weight = edits.edit(*f32(keys, change), rank)
    u, s, vt = np.linalg.svd(change, full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ vt[:rank]
    assert weight.rank == rank
    np.testing.assert_allclose(keys @ delta(weight), best, atol=EXACT)


def test_edits_made_apart_are_exact_only_for_orthogonal_keys():
    _, change = draw(3, 3, 8, 2)
    square = np.linalg.qr(draw(3, 3, 8, 2)[0].T)[0].T * 3
    alone = delta(edits.summed(*f32(square, change)))
    np.testing.assert_allclose(square @ alone, change, atol=1e-5)
    crooked = square + square[[1, 2, 0]]
    apart = delta(edits.summed(*f32(crooked, change)))
    assert np.abs(crooked @ apart - change).max() > 0.1


def test_least_squares_beyond_the_width_is_numpys():
    keys, values = draw(4, 40, 8, 3)
    result = np.asarray(least_squares(*f32(keys, values)))
    expected = np.linalg.lstsq(keys, values, rcond=None)[0]
    np.testing.assert_allclose(result, expected, atol=EXACT)


def test_traced_edits_are_finite_even_where_keys_repeat_and_compile_once():
    traces = []

    @jax.jit
    def edit(keys, change):
        traces.append(1)
        return edits.edit(keys, change)

    keys, change = f32(*draw(5, 3, 6, 2))
    twice = jnp.concatenate([keys, keys[:1]])
    changes = jnp.concatenate([change, change[:1] + 2])
    result = delta(edit(twice, changes))
    assert np.isfinite(result).all()
    middle = np.asarray(change[0] + 1)  # near the mean of contradicting values
    np.testing.assert_allclose(np.asarray(keys[0]) @ result, middle, atol=0.1)
    edit(twice + 1, changes)
    assert len(traces) == 1


def test_edits_vmap_as_a_loop():
    keys, change = f32(*draw(6, 8, 10, 3))
    keys, change = keys.reshape(2, 4, 10), change.reshape(2, 4, 3)
    both = jax.vmap(edits.edit)(keys, change)
    for i in range(2):
        single = edits.edit(keys[i], change[i])
        np.testing.assert_allclose(delta(both)[i], delta(single), atol=EXACT)


def test_a_thousand_edits_at_width_4096_in_one_solve():
    key = jax.random.key(0)
    keys = jax.random.normal(key, (1000, 4096)) / 64
    result = jnp.matmul(keys, dual(keys), precision="highest")
    assert float(jnp.abs(result - jnp.eye(1000)).max()) < 1e-4


@pytest.mark.parametrize(
    ("shape", "rank", "message"),
    [
        (((5, 4), (5, 2)), None, r"N <= M fails \(5 > 4\)"),
        (((3, 4), (3, 2)), 3, r"rank <= min\(N, F\) = 2 fails"),
        (((3, 4), (3, 2)), 0, r"1 <= rank"),
        (((3, 4), (2, 2)), None, "same N"),
        (((4,), (2,)), None, r"expected \[N, M\]"),
    ],
)
def test_sizes_that_cannot_be_are_refused(shape, rank, message):
    with pytest.raises(ValueError, match=message):
        edits.edit(jnp.ones(shape[0]), jnp.ones(shape[1]), rank)


def test_duplicates_and_contradictions_are_told_apart():
    keys, change = f32(*draw(7, 3, 6, 2))
    keys = keys.at[2].set(2 * keys[0])
    with pytest.raises(ValueError, match=r"Edits 0 and 2 .* contradict"):
        edits.edit(keys, change)
    with pytest.raises(ValueError, match=r"Edits 0 and 2 .* duplicate"):
        edits.edit(keys, change.at[2].set(change[0]))


def test_a_singular_key_matrix_is_named():
    keys, change = f32(*draw(8, 3, 6, 2))
    keys = keys.at[2].set(keys[0] + keys[1])
    with pytest.raises(ValueError, match=r"key matrix is singular: key \d of 3"):
        edits.edit(keys, change)
    with pytest.raises(ValueError, match="finite"):
        edits.edit(keys.at[0, 0].set(jnp.nan), change)
    with pytest.raises(ValueError, match="Key 1 is zero"):
        edits.edit(keys.at[1].set(0.0), change)
    with pytest.raises(ValueError, match="key is zero"):
        edits.rank_one(jnp.zeros(3), jnp.ones(2))
