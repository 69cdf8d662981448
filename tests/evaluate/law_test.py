"""The law of kept skills: by hand, as properties, and its coverage by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.evaluate import law
from jaxlora.evaluate.law import Counts


def counts(skills, both, asked=10, problems=100):
    """One seed: right answers of every skill [M, K], and of composites [M]."""
    skills, both = np.array(skills), np.array(both)
    full = np.full_like
    return Counts(skills, full(skills, asked), both, full(both, problems))


def measured(seeds, **how):
    return law.law(seeds, np.random.default_rng(0), **how)


def test_products_are_taken_library_by_library():
    """Skills 1 x .2 and .2 x 1: the mean of products is .2, of the means' .36."""
    x = measured([counts([[10, 2], [2, 10]], [20, 20])])
    assert x.product.value == pytest.approx(0.2)
    assert x.composite.value == pytest.approx(0.2)
    assert x.ratio.value == pytest.approx(1.0)
    assert x.difference.value == pytest.approx(0.0)
    assert {y.n for y in x} == {200}


def test_seeds_and_libraries_count_alike():
    seeds = [counts([[10, 10]], [100]), counts([[5, 4]], [40])]
    x = measured(seeds)
    assert x.product.value == pytest.approx((1 + 0.2) / 2)
    assert x.composite.value == pytest.approx((1 + 0.4) / 2)
    assert x.ratio.value == pytest.approx(0.7 / 0.6)
    assert x.difference.value == pytest.approx(0.1)


def test_three_skills():
    assert measured([counts([[5, 5, 8]], [20])]).product.value == pytest.approx(0.2)


shares = st.integers(0, 10)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=5), st.integers(1, 3))
def test_where_composites_are_the_products_the_ratio_is_one(skills, seeds):
    both = [a * b for a, b in skills]
    x = measured([counts([list(s) for s in skills], both)] * seeds, resamples=20)
    assert x.difference.value == pytest.approx(0)
    if any(both):
        assert x.ratio.value == pytest.approx(1)
    else:
        assert np.isnan(x.ratio[:3]).all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(shares, shares, st.integers(0, 100)), min_size=1, max_size=6),
    st.sampled_from([0.5, 0.95]),
)
def test_intervals_hold_their_values(rows, confidence):
    seed = counts([row[:2] for row in rows], [row[2] for row in rows])
    x = measured([seed] * 2, confidence=confidence, resamples=40)
    for y in x:
        assert np.isnan(y.value) or y.lo <= y.value <= y.hi
    for y in (x.product, x.composite):
        assert 0 <= y.lo <= y.hi <= 1


def test_more_confidence_and_fewer_questions_are_wider():
    some, few = counts([[8, 8]], [64]), counts([[4, 4]], [16], asked=5, problems=25)
    width = lambda x: x.ratio.hi - x.ratio.lo  # noqa: E731
    usual = width(measured([some]))
    assert width(measured([some], confidence=0.8)) < usual < width(measured([few]))


def test_shares_of_one_and_of_zero_have_a_spread():
    x = measured([counts([[10, 10]], [100])])
    assert x.product.lo < 1 == x.product.hi
    assert x.ratio.lo < 1 <= x.ratio.hi
    nothing = measured([counts([[0, 10]], [5])])
    assert nothing.product.lo == 0 < nothing.product.hi
    assert np.isnan(nothing.ratio[:3]).all()
    assert nothing.difference.value == pytest.approx(0.05)


def test_seeds_that_differ_widen_the_interval():
    """As many answers, once spread evenly and once all in one seed."""
    even = [counts([[7, 7]] * 3, [50] * 3)] * 2
    apart = [counts([[10, 10]] * 3, [90] * 3), counts([[4, 4]] * 3, [10] * 3)]
    even, apart = measured(even).composite, measured(apart).composite
    assert even.value == pytest.approx(apart.value)
    assert apart.hi - apart.lo > 3 * (even.hi - even.lo)


def test_same_generator_same_intervals():
    seeds = [counts([[7, 8]], [60])]
    assert measured(seeds) == measured(seeds)


def test_bad_counts():
    with pytest.raises(ValueError, match="Got no seed"):
        measured([])
    for field, empty in (("asked", [[0, 10]]), ("problems", [0])):
        seed = counts([[0, 0]], [0])._replace(**{field: np.array(empty)})
        with pytest.raises(ValueError, match="expected at least one question of each"):
            measured([seed])


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_coverage_by_simulation(spread):
    """Composites are the products of skills that differ between seeds and libraries."""
    rng = np.random.default_rng(5)
    seeds, libraries, trials = 3, 6, 400
    ratio, difference = [], []
    for _ in range(trials):
        base = rng.normal(0.75, spread, (seeds, 1, 1))
        skills = np.clip(base + rng.normal(0, spread, (seeds, libraries, 2)), 0.05, 1)
        kept = rng.binomial(26, skills)
        both = rng.binomial(52, skills.prod(-1))
        some = [
            Counts(k, np.full_like(k, 26), b, np.full_like(b, 52))
            for k, b in zip(kept, both, strict=True)
        ]
        x = law.law(some, rng, resamples=400)
        ratio.append(x.ratio.lo <= 1 <= x.ratio.hi)
        difference.append(x.difference.lo <= 0 <= x.difference.hi)
    # Three standard errors below 95%.
    assert min(np.mean(ratio), np.mean(difference)) > 0.917
