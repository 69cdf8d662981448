"""Intervals against SciPy, against theory, and against a slow loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxlora.evaluate import resampling, statistics


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


def slow_means(nested, generator, resamples):
    """Seeds, their libraries and their people, one after the other, in loops."""
    means = []
    for _ in range(resamples):
        people = []
        for seed in generator.integers(len(nested), size=len(nested)):
            libraries = nested[seed]
            for i in generator.integers(len(libraries), size=len(libraries)):
                people.append(generator.choice(libraries[i], size=len(libraries[i])))
        means.append(np.concatenate(people).mean())
    return np.array(means)


def worlds(kind):
    """Three seeds of libraries that differ in number, size and success."""
    source = rng(1)
    sizes = [[8, 8], [8, 8], [8, 8]] if kind == "even" else [[5], [9, 4, 12], [7, 3]]
    nested = [
        [source.normal(i - j, 1 + j, size=n) for j, n in enumerate(seed)]
        for i, seed in enumerate(sizes)
    ]
    if kind == "shares":
        nested = [[(x > 0).astype(float) for x in seed] for seed in nested]
    return nested


def flat(nested):
    """Values and libraries of every seed, in an order that mixes the libraries."""
    out = []
    for seed in nested:
        of = np.concatenate([np.full(len(x), 10 + i) for i, x in enumerate(seed)])
        order = rng(7).permutation(len(of))
        out.append((np.concatenate(seed)[order], of[order]))
    return tuple(list(side) for side in zip(*out, strict=True))


@pytest.mark.parametrize("kind", ["even", "uneven", "shares"])
def test_resampled_means_are_those_of_the_slow_loop(kind):
    nested = worlds(kind)
    got = resampling.means(nested, rng(2), 20_000)
    want = slow_means(nested, rng(3), 4_000)
    # The standard error of the slow quantiles is about 3% of a standard deviation.
    at = [0.025, 0.2, 0.5, 0.8, 0.975]
    got, want, scale = np.quantile(got, at), np.quantile(want, at), want.std()
    np.testing.assert_allclose(got, want, atol=0.15 * scale)


@pytest.mark.parametrize("kind", ["even", "uneven", "shares"])
def test_bootstrap_is_the_percentiles_at_least(kind):
    nested = worlds(kind)
    values, libraries = flat(nested)
    got = statistics.bootstrap(values, rng(2), 0.9, 20_000, libraries=libraries)
    lo, hi = np.quantile(slow_means(nested, rng(3), 4_000), [0.05, 0.95])
    pooled = np.concatenate(values)
    assert got.value == pytest.approx(pooled.mean())
    assert got.n == len(pooled)
    slack = 0.05 * (hi - lo)
    assert got.lo <= lo + slack
    assert got.hi >= hi - slack


def test_libraries_are_resampled_within_their_seed():
    values, libraries = [np.repeat([0.0, 1.0], 20)] * 2, [np.repeat([0, 1], 20)] * 2
    with_them = statistics.bootstrap(values, rng(), libraries=libraries)
    without = statistics.bootstrap(values, rng())
    assert with_them.hi - with_them.lo > 2 * (without.hi - without.lo)
    assert resampling.means([[np.zeros(3)], [np.ones(3)]], rng(), 400).std() > 0.2


def test_one_seed_resamples_libraries_and_people():
    values, libraries = [np.repeat([0.0, 1.0, 1.0], 10)], [np.repeat([0, 1, 2], 10)]
    got = statistics.bootstrap(values, rng(), libraries=libraries)
    assert (got.lo, got.hi) == (0, 1)
    alone = statistics.bootstrap(values, rng(), libraries=[np.zeros(30)])
    assert alone == statistics.wilson(20, 30)


def test_wilson_is_a_floor():
    """Seeds and libraries that agree exactly are no evidence beyond their people."""
    values, libraries = [np.tile([1.0, 0.0], 8)] * 5, [np.repeat([0, 1], 8)] * 5
    got = statistics.bootstrap(values, rng(), libraries=libraries)
    floor = statistics.wilson(40, 80)
    assert got.lo <= floor.lo
    assert got.hi >= floor.hi


@pytest.mark.parametrize("seeds", [3, 4])
def test_the_spread_between_clusters_by_hand(seeds):
    """Of libraries up to three seeds, of seeds from four on; t with G - 1 degrees."""
    source = rng(4)
    nested = [[source.normal(size=6) + 3 * i for _ in range(2)] for i in range(seeds)]
    clusters = (
        [x for s in nested for x in s] if seeds == 3 else map(np.concatenate, nested)
    )
    means = np.array([x.mean() for x in clusters])
    spread = resampling.spread(nested)
    assert spread.variance == pytest.approx(means.var(ddof=1) / len(means))
    assert spread.freedom == len(means) - 1
    values, libraries = flat(nested)
    got = statistics.bootstrap(values, rng(), libraries=libraries, share=False)
    reach = stats.t.ppf(0.975, len(means) - 1) * stats.sem(means)
    assert got.lo <= means.mean() - reach + 1e-12
    assert got.hi >= means.mean() + reach - 1e-12


def test_too_few_clusters_have_no_spread():
    assert resampling.spread([[np.ones(3)], [np.zeros(3)], [np.ones(3)]]) is None


def test_the_effective_number_of_people_by_hand():
    """Wilson on n over the design effect, with t in the place of z."""
    shares = [0.1, 0.2, 0.5, 0.8]
    values = [np.arange(20) < share * 20 for share in shares]
    got = statistics.bootstrap(values, rng(), resamples=1)
    variance, p = np.var(shares, ddof=1) / 4, np.mean(shares)
    n = p * (1 - p) / variance * (1.96 / stats.t.ppf(0.975, 3)) ** 2
    z = stats.norm.ppf(0.975)
    reach = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    ends = (p + z**2 / (2 * n) + np.array([-reach, reach])) / (1 + z**2 / n)
    assert n < 10
    assert got.lo == pytest.approx(ends[0], abs=1e-3)
    assert got.hi == pytest.approx(ends[1], abs=1e-3)


def test_libraries_have_the_shape_of_the_values():
    with pytest.raises(ValueError, match=r"libraries of shape \[\(2,\)\]"):
        statistics.bootstrap([[0, 1, 1]], rng(), libraries=[[0, 0]])


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
def test_an_estimate_is_inside_its_interval(samples):
    got = statistics.bootstrap(samples, rng(), resamples=50, share=False)
    assert got.lo <= got.value <= got.hi
    assert got.n == sum(map(len, samples))


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
    assert got.p == (1 if value <= 0 else 1 / 20_001)


def test_a_p_value_is_not_below_the_exact_sign_test():
    """Three wins of forty, no loss: 1/8, whatever the bootstrap says."""
    x = [np.arange(20) < k for k in (1, 2)]
    got = statistics.paired(x, [np.zeros(20)] * 2, rng())
    assert got.p >= 1 / 8
    wins, losses = 9, 2
    x, y = np.zeros(60), np.zeros(60)
    x[:wins], y[-losses:] = 1, 1
    exact = stats.binomtest(wins, wins + losses, alternative="greater").pvalue
    assert statistics.paired([x], [y], rng()).p == pytest.approx(exact)
    assert statistics.paired([x], [y], rng(), share=False).p < exact


def test_a_difference_has_the_matched_floor():
    """Agresti and Min (2005) by hand, where bases and libraries agree exactly."""
    x, y = np.tile([1, 1, 0, 0, 0, 0, 0, 0], 2), np.tile([0, 0, 0, 0, 0, 0, 0, 1], 2)
    got = statistics.paired([x] * 4, [y] * 4, rng()).difference
    n, wins, losses = 64, 16, 8
    mean = (wins - losses) / (n + 2)
    reach = 1.96 * np.sqrt(((wins + losses + 1) / (n + 2) - mean**2) / (n + 2))
    assert got.value == 8 / 64
    assert got.lo <= mean - reach + 1e-4
    assert got.hi >= mean + reach - 1e-4


def test_paired_knows_that_libraries_differ():
    x, libraries = [np.repeat([1.0, 0.0, 0.0], 10)] * 3, [np.repeat([0, 1, 2], 10)] * 3
    y = [np.zeros(30)] * 3
    alike = statistics.paired(x, y, rng()).difference
    apart = statistics.paired(x, y, rng(), libraries=libraries).difference
    assert apart.lo < alike.lo
    assert apart.hi > alike.hi


def test_enough_resamples_for_holm_over_every_method():
    assert 73 / (1 + statistics.PAIRED_RESAMPLES) < 0.05 / 10


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("sizes", [(4, 3, 16), (4, 3, 24), (5, 4, 16)])
def test_coverage_where_libraries_differ(mean, sizes):
    """Beta-binomial libraries with an intra-library correlation of 0.2."""
    source, hits, trials = rng(8), 0, 600
    seeds, libraries, people = sizes
    of = [np.repeat(np.arange(libraries), people)] * seeds
    for _ in range(trials):
        rates = source.beta(4 * mean, 4 * (1 - mean), size=sizes[:2])
        right = source.random(sizes) < rates[..., None]
        values = list(right.reshape(seeds, -1))
        got = statistics.bootstrap(values, source, resamples=500, libraries=of)
        hits += got.lo <= mean <= got.hi
    # 0.93 but for two standard errors of the simulation.
    assert hits / trials >= 0.93 - 2 * (0.07 * 0.93 / trials) ** 0.5


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
