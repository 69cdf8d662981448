"""Correctness against entropy: pairs counted one by one, intervals held to coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.evaluate.statistics import wilson
from jaxlora.evaluate.surety import auc, surety

Z = 1.959964


def pairs(right, entropy):
    """P(right item has less entropy than wrong) with ties as halves, by hand."""
    good = [h for r, h in zip(right, entropy, strict=True) if r]
    bad = [h for r, h in zip(right, entropy, strict=True) if not r]
    return np.mean([(x < y) + (x == y) / 2 for x in good for y in bad])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=25))
def test_auc_counts_pairs_and_lies_in_its_interval(items):
    right, entropy = [r for r, _ in items], [h / 5 for _, h in items]
    if len(set(right)) == 1:
        with pytest.raises(ValueError, match="at least one of each"):
            auc(right, entropy)
        return
    found = auc(right, entropy)
    assert found.value == pytest.approx(pairs(right, entropy))
    assert 0 <= found.lo <= found.value <= found.hi <= 1
    assert found.hi - found.lo > 0
    other = auc([not r for r in right], entropy)
    assert (other.lo, other.hi) == pytest.approx((1 - found.hi, 1 - found.lo))


def test_the_interval_ends_where_hanley_and_mcneil_refuse():
    rng = np.random.default_rng(0)
    right = np.arange(40) < 15
    found = auc(right, rng.random(40) + 0.3 * ~right)
    for end in (found.lo, found.hi):
        m, n, a = 15, 25, end
        middle = (m + n) / 2 - 1
        q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
        variance = (a * (1 - a) + middle * (q1 - a * a) + middle * (q2 - a * a)) / m / n
        assert abs(found.value - end) == pytest.approx(Z * math.sqrt(variance), 1e-4)


def test_perfect_separation_has_a_width():
    few = auc([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4])
    assert (few.value, few.hi) == (1.0, 1.0)
    assert few.lo < 0.7
    many = auc(np.arange(200) < 100, np.arange(200.0))
    assert few.lo < 0.95 < many.lo


def test_intervals_cover():
    rng, inside = np.random.default_rng(1), 0
    for _ in range(300):
        right = rng.random(40) < 0.4
        entropy = rng.standard_normal(40) + np.where(right, 0, 1.0)
        found = auc(right, entropy)
        inside += found.lo <= 0.7602 <= found.hi  # Phi(1 / sqrt 2)
    assert 0.90 < inside / 300 < 0.99


def test_parts_are_thirds_of_the_entropy_with_wilson_intervals():
    rng = np.random.default_rng(2)
    entropy = rng.random(30)
    right = rng.random(30) < 0.5
    found = surety(right, entropy)
    order = np.argsort(entropy)
    for i, part in enumerate(found.parts):
        own = order[10 * i : 10 * i + 10]
        assert (part.lowest, part.highest) == (entropy[own[0]], entropy[own[-1]])
        assert part.accuracy == wilson(int(right[own].sum()), 10)
    assert len(found.parts) == 3
    assert found.auc == auc(right, entropy)
    assert found.left_out == 0


def test_equal_entropies_stay_together():
    entropy = [0.0] * 8 + [0.5, 0.6]
    found = surety([1, 0] * 5, entropy)
    assert [part.accuracy.n for part in found.parts] == [8, 2]
    assert [part.accuracy.n for part in surety([1, 0], [0.3, 0.3]).parts] == [2]


def test_items_without_an_entropy_are_left_out():
    found = surety([1, 0, 1, 1], [0.1, 0.2, math.nan, math.inf])
    assert found.left_out == 2
    assert sum(part.accuracy.n for part in found.parts) == 2


def test_where_all_are_right_there_is_no_auc():
    found = surety([True] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert found.auc is None
    assert [part.accuracy.value for part in found.parts] == [1.0] * 3


@pytest.mark.parametrize(
    ("right", "entropy", "more", "expected"),
    [
        ([1, 0], [0.1], {}, "two vectors"),
        ([[1, 0]], [[0.1, 0.2]], {}, "two vectors"),
        ([0.5, 1], [0.1, 0.2], {}, r"1 \(right\) and 0"),
        ([1, 0], [math.nan] * 2, {}, "0 items with an entropy"),
        ([], [], {}, "0 items with an entropy"),
        ([1, 0], [0.1, 0.2], {"parts": 0}, "Got 0 parts"),
        ([1, 0], [0.1, 0.2], {"confidence": 95}, "confidence"),
    ],
)
def test_bad_input_is_named(right, entropy, more, expected):
    with pytest.raises(ValueError, match=expected):
        surety(right, entropy, **more)
