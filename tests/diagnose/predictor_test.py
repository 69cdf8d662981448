"""The predictor recovers a law, scores by hand, and leaves whole folds out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from jaxlora.diagnose import coefficients, predictor
from jaxlora.diagnose.features import NAMES, Features, matrix

TWO = ("x", "y")


@pytest.fixture(scope="module")
def law():
    """Groups whose share follows a known law: features, composed, trials, shares."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2))
    p = special.expit(-1 + 2 * x[:, 0])
    trials = np.full(400, 50)
    return x, rng.binomial(trials, p), trials, p


def table(rows=60, seed=0):
    """A table of a study in which selectivity decides."""
    rng = np.random.default_rng(seed)
    out = pd.DataFrame(rng.random((rows, len(NAMES))), columns=list(NAMES))
    out["n"] = 7
    out["composed"] = rng.binomial(7, special.expit(8 * out["second_selectivity"] - 4))
    out["seed"] = np.arange(rows) % 3
    out["cell"] = np.where(np.arange(rows) % 2, "R-OO", "F-OO")
    out["ask"] = np.where(np.arange(rows) % 5 < 2, "direct", "written")
    return out


def test_it_recovers_a_law(law):
    x, composed, trials, p = law
    fitted = predictor.fit(x, composed, trials, 0.01, TWO)
    slopes = np.array(fitted.weights) / np.array(fitted.spread)
    np.testing.assert_allclose(slopes, [2, 0], atol=0.1)
    inside = np.abs(predictor.probability(fitted, x) - p)
    assert inside.max() < 0.05


def test_the_gradient_is_that_of_the_loss(law):
    """At the fit, residuals are orthogonal to features but for the ridge."""
    x, composed, trials, _ = law
    fitted = predictor.fit(x, composed, trials, 7.0, TWO)
    residual = trials * predictor.probability(fitted, x) - composed
    z = (x - fitted.mean) / fitted.spread
    scale = trials.sum()
    np.testing.assert_allclose(residual.sum() / scale, 0, atol=1e-5)
    np.testing.assert_allclose(
        z.T @ residual / scale, -7.0 * np.array(fitted.weights) / scale, atol=1e-5
    )


def test_a_ridge_shrinks_and_a_constant_feature_says_nothing(law):
    x, composed, trials, _ = law
    x = np.column_stack([x[:, 0], np.full(len(x), 3.0)])
    weak, strong = (
        predictor.fit(x, composed, trials, ridge, TWO) for ridge in (0.1, 1e4)
    )
    assert abs(strong.weights[0]) < 0.5 * abs(weak.weights[0])
    assert weak.weights[1] == pytest.approx(0, abs=1e-6)


def test_what_separates_perfectly_stays_finite():
    fitted = predictor.fit(np.array([[0.0], [1.0]]), [0, 9], [9, 9], names=("x",))
    assert np.isfinite(fitted.weights).all()


def test_beyond_the_range_that_was_fitted_nothing_changes(law):
    x, composed, trials, _ = law
    fitted = predictor.fit(x, composed, trials, names=TWO)
    edge, beyond = np.array([fitted.high]), np.array([fitted.high]) + 100
    same = predictor.probability(fitted, beyond)
    np.testing.assert_array_equal(predictor.probability(fitted, edge), same)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 5), st.integers(1, 5)), min_size=1
    )
)
def test_brier_counts_people_one_by_one(groups):
    groups = [(p, min(k, n), n) for p, k, n in groups]
    each = [(p - hit) ** 2 for p, k, n in groups for hit in [1] * k + [0] * (n - k)]
    score = predictor.brier(*map(np.array, zip(*groups, strict=True)))
    assert score == pytest.approx(np.mean(each))


def test_a_fold_that_is_left_out_is_not_seen(law):
    x, composed, trials, _ = law
    folds = ["a"] * 200 + ["b"] * 200
    before, mean = predictor.held_out(x, composed, trials, folds, names=TWO)
    # What became of the people of a fold decides nothing about its own predictions.
    other = np.where(np.arange(400) < 200, trials - composed, composed)
    after, _ = predictor.held_out(x, other, trials, folds, names=TWO)
    np.testing.assert_array_equal(before[:200], after[:200])
    assert np.abs(before[200:] - after[200:]).max() > 0.1
    assert mean[0] == pytest.approx(composed[200:].sum() / trials[200:].sum())


def test_it_beats_both_references_where_features_decide():
    scored = coefficients.scores(table())
    assert set(scored) == {"cell", "ask", "seed"}
    for scores in scored.values():
        assert scores["predictor"] < scores["training mean"]
        assert scores["predictor"] < scores["no transfer"]


def test_misses_are_the_worst():
    worst = coefficients.misses(table(), "seed", most=3)
    gaps = (worst["predicted"] - worst["share"]).abs()
    assert len(worst) == 3
    assert gaps.is_monotonic_decreasing
    assert gaps.min() > 0


def test_what_is_written_is_read(tmp_path):
    made = coefficients.make(table(), "a test")
    path = tmp_path / "c.json"
    coefficients.write(path, made)
    again = coefficients.read(path)
    assert again.coefficients == made.coefficients
    assert again.about["source"] == "a test"
    assert again.about["groups"] == 60
    assert set(again.about["brier"]["seed"]) >= {"predictor", "no transfer"}


def test_the_shipped_ones_fit_the_features():
    shipped = coefficients.shipped()
    features = Features(**dict(zip(NAMES, shipped.coefficients.mean, strict=True)))
    p = predictor.probability(shipped.coefficients, matrix([features]))
    assert 0 < p[0] < 1
    assert shipped.about


@pytest.mark.parametrize(
    ("composed", "trials", "features", "words"),
    [
        ([3], [2], [[0.0]], "counts that cannot be"),
        ([0], [0], [[0.0]], "counts that cannot be"),
        ([1], [2], [[np.nan]], "x have values that are not finite"),
        ([1], [2], [[0.0, 1.0]], "one row of 1 features a group: x"),
        ([1, 1], [2, 2], [[0.0]], "one row of 1 features a group: x"),
    ],
)
def test_bad_input_is_refused(composed, trials, features, words):
    with pytest.raises(ValueError, match=words):
        predictor.fit(np.array(features), composed, trials, names=("x",))


def test_one_fold_is_refused(law):
    x, composed, trials, _ = law
    with pytest.raises(ValueError, match="one fold"):
        predictor.held_out(x, composed, trials, ["a"] * 400, names=TWO)


def test_a_table_without_a_column_is_refused():
    with pytest.raises(ValueError, match="lacks the columns skill"):
        coefficients.make(table().drop(columns="skill"), "a test")
