"""Intervals against SciPy, against theory, and against a slow loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxlora.evaluate import statistics


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("n", [1, 7, 60])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_is_scipys(n, level):
    for successes in range(n + 1):
        got = statistics.wilson(successes, n, level)
        want = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
        np.testing.assert_allclose(got[:3], (successes / n, *want), atol=1e-12)
        assert got.n == n
        assert 0 <= got.lo <= got.value <= got.hi <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), "n = 0 items"),
        ((5, 4), "5 successes of 4"),
        ((-1, 4), "-1 successes"),
        ((1, 4, 95), "confidence 95"),
    ],
)
def test_wilson_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        statistics.wilson(*arguments)


def slow_bootstrap(samples, generator, level, resamples):
    means = []
    for _ in range(resamples):
        chosen = generator.integers(len(samples), size=len(samples))
        drawn = [generator.choice(samples[i], size=len(samples[i])) for i in chosen]
        means.append(np.concatenate(drawn).mean())
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2])


@pytest.mark.parametrize("binary", [True, False])
def test_bootstrap_is_the_slow_loop(binary):
    source = rng(1)
    samples = [source.normal(i, 1 + i, size=20 + 15 * i) for i in range(3)]
    if binary:
        samples = [(x > 1).astype(float) for x in samples]
    got = statistics.bootstrap(samples, rng(2), 0.9, resamples=20_000)
    want = slow_bootstrap(samples, rng(3), 0.9, resamples=4_000)
    pooled = np.concatenate(samples)
    assert got.value == pytest.approx(pooled.mean())
    assert got.n == len(pooled)
    # Monte-Carlo error of the slow quantiles is about 2% of the interval's width.
    np.testing.assert_allclose((got.lo, got.hi), want, atol=0.08 * (want[1] - want[0]))


def test_bootstrap_knows_that_seeds_differ():
    """Between-seed spread must count: items alone would give 0.5 ± 0.07."""
    interval = statistics.bootstrap([np.ones(100), np.zeros(100)], rng())
    assert interval.lo == 0
    assert interval.hi == 1


def test_bootstrap_covers_the_truth():
    """Twelve seeds with a seed effect: coverage is near the level."""
    source, hits, trials = rng(4), 0, 150
    for _ in range(trials):
        shares = np.clip(source.normal(0.5, 0.1, size=12), 0, 1)
        samples = [(source.random(30) < share).astype(float) for share in shares]
        interval = statistics.bootstrap(samples, source, resamples=400)
        hits += interval.lo <= 0.5 <= interval.hi
    assert 0.86 <= hits / trials <= 0.995


def test_bootstrap_is_a_function_of_the_generator():
    samples = [[0, 1, 1, 0], [1, 1, 0, 1, 1]]
    first, again, other = (statistics.bootstrap(samples, rng(s)) for s in (5, 5, 6))
    assert first == again
    assert first != other or first.value == other.value


@pytest.mark.parametrize("answer", [0, 1])
def test_where_all_agree_the_interval_is_wilsons_on_all_items(answer):
    samples = [np.full(20, answer)] * 3
    got = statistics.bootstrap(samples, rng())
    assert got == statistics.wilson(60 * answer, 60)
    assert got.hi > got.lo


def test_one_seed():
    assert statistics.bootstrap([[1, 0, 1, 1]], rng()) == statistics.wilson(3, 4)
    losses = rng(1).normal(2.0, 1.0, size=200)
    got = statistics.bootstrap([losses], rng())
    assert got.lo < losses.mean() < got.hi
    assert got.hi - got.lo == pytest.approx(2 * 1.96 * losses.std() / 200**0.5, rel=0.1)


def test_equal_values_that_are_not_shares_give_a_point():
    assert statistics.bootstrap([[2.5, 2.5], [2.5]], rng()) == (2.5, 2.5, 2.5, 3)
    all_ranked_first = [[1, 1], [1]]
    got = statistics.bootstrap(all_ranked_first, rng(), share=False)
    assert got == (1, 1, 1, 3)
    got = statistics.paired(all_ranked_first, all_ranked_first, rng(), share=False)
    assert got == ((0, 0, 0, 3), 1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=6),
        min_size=1,
        max_size=4,
    )
)
def test_an_estimate_is_inside_its_interval_and_the_data(samples):
    got = statistics.bootstrap(samples, rng(), resamples=50, share=False)
    flat = [x for seed in samples for x in seed]
    assert got.lo <= got.value <= got.hi
    assert min(flat) - 1e-6 <= got.lo
    assert got.hi <= max(flat) + 1e-6
    assert got.n == len(flat)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "no seed"),
        ([[1.0], []], r"Seed 1 of 2 .* \(0,\)"),
        ([[1.0, np.nan]], "finite"),
        ([[[1.0], [0.0]]], "one per item"),
    ],
)
def test_bootstrap_refuses(samples, message):
    with pytest.raises(ValueError, match=message):
        statistics.bootstrap(samples, rng())


def test_bootstrap_refuses_bad_options():
    with pytest.raises(ValueError, match="confidence"):
        statistics.bootstrap([[1.0]], rng(), confidence=95)
    with pytest.raises(ValueError, match="0 resamples"):
        statistics.bootstrap([[1.0]], rng(), resamples=0)


def test_paired_uses_the_pairing():
    """Same marginals: the paired interval is narrow only where pairs agree."""
    x = np.array([1, 0] * 30)
    aligned = x.copy()
    aligned[:2] = 1 - aligned[:2]
    crossed = 1 - x
    narrow = statistics.paired([x, x], [aligned, x], rng()).difference
    wide = statistics.paired([x, x], [crossed, crossed], rng()).difference
    assert narrow.value == wide.value == 0
    assert narrow.hi - narrow.lo < 0.3 * (wide.hi - wide.lo)


def test_paired_p_value():
    source = rng(1)
    y = [source.random(60) < 0.3 for _ in range(3)]
    better = [a | (source.random(60) < 0.4) for a in y]
    up = statistics.paired(better, y, rng(), resamples=999)
    down = statistics.paired(y, better, rng(), resamples=999)
    assert up.difference.lo > 0
    assert up.p == 1 / 1000
    assert down.p == 1
    assert down.difference.value == -up.difference.value


def test_paired_p_value_is_calibrated_under_no_difference():
    source, below, trials = rng(2), 0, 200
    for _ in range(trials):
        sides = source.normal(size=(2, 4, 30))
        p = statistics.paired(list(sides[0]), list(sides[1]), source, resamples=200).p
        below += p < 0.2
    assert 0.1 <= below / trials <= 0.33


@pytest.mark.parametrize("value", [-1, 0, 1])
def test_pairs_that_all_agree_do_not_give_a_point(value):
    n = 40
    x, y = np.full(n, max(value, 0)), np.full(n, max(-value, 0))
    got = statistics.paired([x[:20], x[20:]], [y[:20], y[20:]], rng())
    unseen = statistics.wilson(0, n).hi
    reach = unseen if value == 0 else 2 * unseen
    assert got.difference.value == value
    assert got.difference.lo == pytest.approx(max(-1, value - reach))
    assert got.difference.hi == pytest.approx(min(1, value + reach))
    assert got.p == (1 if value <= 0 else 1 / 2001)


def test_a_single_win_is_no_evidence():
    got = statistics.paired([[1]], [[0]], rng())
    assert got.p == 0.5
    assert got.difference.lo < 0


def test_paired_refuses_unpaired_items():
    with pytest.raises(ValueError, match=r"\[2, 1\] and \[2\] items per seed"):
        statistics.paired([[1, 0], [1]], [[1, 0]], rng())


def test_holm_by_hand():
    got = statistics.holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(got, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.7, 0.6]), [1.0, 1.0])
    np.testing.assert_allclose(statistics.holm([0.2]), [0.2])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values):
    alpha, ordered = 0.05, sorted(p_values)
    rejected = 0
    while (
        rejected < len(p_values)
        and ordered[rejected] * (len(p_values) - rejected) < alpha
    ):
        rejected += 1
    adjusted = statistics.holm(p_values)
    assert (adjusted < alpha).sum() == rejected
    assert (adjusted >= np.asarray(p_values)).all()


@pytest.mark.parametrize("p_values", [[], [0.1, 1.2], [-0.1], [np.nan], 0.5])
def test_holm_refuses(p_values):
    with pytest.raises(ValueError, match="p-values"):
        statistics.holm(p_values)
