"""The search itself, told scores by tables instead of models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora.studies.two_hop.symbols import oracle_search
from jaxlora.studies.two_hop.symbols.oracle_search import Score

C, V, L, T = 2, 3, 2, 2
TOTAL = V ** (L * T)
EACH = np.stack(np.unravel_index(np.arange(TOTAL), [V] * L * T), -1)
"""All routes [TOTAL, L * T], in the order of their numbers."""


def by_table(table: Score):
    """Scores that are looked up, [C, 2, TOTAL], by the number of a route."""
    powers = V ** np.arange(L * T - 1, -1, -1)

    def score(routes):
        flat = routes.reshape(*routes.shape[:3], -1)
        number = jnp.sum(flat * jnp.asarray(powers, jnp.int32).reshape(1, 1, 1, -1), -1)
        return Score(*(jnp.take_along_axis(x, number, axis=-1) for x in table))

    return score


@jax.jit
def climb(table: Score, starts, sweeps):
    return oracle_search.climb(by_table(table), starts, V, 2, sweeps)


@jax.jit
def look(table: Score, found):
    return oracle_search.look(by_table(table), V, 32, found)


def exhaustive(table: Score):
    found = oracle_search.nothing(C, L, T)
    for _ in range(0, TOTAL, 32):
        found = look(table, found)
    return found


def planted(right: np.ndarray) -> Score:
    """One route of each cell and half is right, and the loss says how far it is."""
    off = (right.reshape(C, 2, 1, L * T) != EACH).sum(-1)
    return Score(jnp.asarray(off == 0, jnp.int32), jnp.asarray(off, jnp.float32))


def rough(seed: int) -> Score:
    """Few right answers, many ties, and losses that lead nowhere."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, 3, (C, 2, TOTAL))
    loss = rng.integers(0, 9, (C, 2, TOTAL))
    return Score(jnp.asarray(right, jnp.int32), jnp.asarray(loss, jnp.float32))


def starts(seed: int, count: int = 4):
    drawn = oracle_search.random(seed, count, V, L, T)
    return jnp.asarray(np.broadcast_to(drawn, (C, 2, *drawn.shape)))


def first_best(table: Score, c: int, half: int) -> int:
    """By the letter: most right, then the lowest loss, then the first."""
    right, loss = np.asarray(table.right[c, half]), np.asarray(table.loss[c, half])
    return min(range(len(right)), key=lambda i: (-right[i], loss[i], i))


@pytest.mark.parametrize("seed", range(3))
def test_both_searches_find_the_one_route_that_is_right(seed):
    right = np.random.default_rng(seed).integers(0, V, (C, 2, L, T))
    table = planted(right)
    for found in (climb(table, starts(seed), jnp.int32(3)), exhaustive(table)):
        np.testing.assert_array_equal(found.routes, right)
        np.testing.assert_array_equal(found.score.right, 1)
        np.testing.assert_array_equal(found.score.loss, 0)


@pytest.mark.parametrize("seed", range(3))
def test_all_routes_are_tried_and_the_first_best_kept(seed):
    table = rough(seed)
    found = exhaustive(table)
    assert found.tried == TOTAL
    for c, half in np.ndindex(C, 2):
        number = first_best(table, c, half)
        assert found.routes[c, half].ravel().tolist() == EACH[number].tolist()
        assert found.score.right[c, half] == table.right[c, half, number]
        assert found.score.loss[c, half] == table.loss[c, half, number]


@pytest.mark.parametrize("seed", range(3))
def test_what_was_climbed_is_no_worse_than_any_start_or_neighbour(seed):
    table = rough(seed)
    found = climb(table, starts(seed), jnp.int32(50))
    given = np.asarray(starts(seed)).reshape(C, 2, 1, -1, L * T)
    for c, half in np.ndindex(C, 2):
        route = np.asarray(found.routes[c, half]).ravel()
        near = (route != EACH).sum(-1) <= 1
        begun = (given[c, half] == EACH[:, None]).all(-1).any(-1)
        right, loss = (np.asarray(x[c, half]) for x in table)
        (number,) = np.flatnonzero((route == EACH).all(-1))
        score = (-right[number], loss[number])
        seen = np.flatnonzero(near | begun)
        assert score <= min((-right[i], loss[i]) for i in seen)
        assert found.score.right[c, half] == right[number]
        assert found.score.loss[c, half] == loss[number]


def test_climbing_ends_when_a_sweep_changes_nothing():
    right = np.zeros((C, 2, L, T), np.int32)
    there = jnp.asarray(np.broadcast_to(right[:, :, None], (C, 2, 4, L, T)))
    sweep = L * T * 2 * (V - 1)  # two climbers
    assert climb(planted(right), there, jnp.int32(9)).tried == 4 + sweep
    assert climb(planted(right), starts(0), jnp.int32(9)).tried == 4 + 2 * sweep
    assert climb(planted(right), starts(0), jnp.int32(1)).tried == 4 + sweep
    # Without a sweep the best start is found, and not another.
    found = climb(planted(right), starts(0), jnp.int32(0))
    off = (np.asarray(starts(0)) != 0).sum((-1, -2))
    np.testing.assert_array_equal(found.score.loss, off.min(-1))
    np.testing.assert_array_equal(
        (np.asarray(found.routes) != 0).sum((-1, -2)), off[0, 0].min()
    )


def test_a_loss_that_is_no_number_is_the_worst_of_equals():
    nan, inf = np.nan, np.inf

    def of(right, loss):
        return int(oracle_search.best(Score(jnp.array(right), jnp.array(loss))))

    assert of([1, 1, 0], [nan, 5.0, 0.0]) == 1
    assert of([0, 1, 0], [0.0, nan, 0.0]) == 1
    assert of([0, 1, 1], [0.0, inf, nan]) == 1
    assert of([0, 0], [nan, nan]) == 0


def test_a_half_is_not_told_what_the_other_scores():
    """Whatever happens to the scores of one half, the other finds the same."""
    one, two = rough(0), rough(1)
    mixed = Score(*(x.at[:, 1].set(y[:, 1]) for x, y in zip(one, two, strict=True)))
    for search in (exhaustive, lambda t: climb(t, starts(0), jnp.int32(3))):
        a, b = search(one), search(mixed)
        np.testing.assert_array_equal(a.routes[:, 0], b.routes[:, 0])
        assert (np.asarray(a.routes[:, 1]) != np.asarray(b.routes[:, 1])).any()


def test_too_many_routes_are_refused_with_their_number():
    assert oracle_search.size(3, 4, 3) == 531_441
    with pytest.raises(ValueError, match=r"3\^\(5 layers x 3 tokens\) = 14,348,907"):
        oracle_search.size(3, 5, 3)


def test_random_starts_are_the_same_for_every_library_of_a_seed():
    a, b = (oracle_search.random(seed, 5, V, L, T) for seed in (1, 2))
    assert a.shape == (5, L, T)
    assert set(np.unique(a)) == set(range(V))
    np.testing.assert_array_equal(a, oracle_search.random(1, 5, V, L, T))
    assert (a != b).any()
