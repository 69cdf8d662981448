"""Item-level measures against slow Python loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.evaluate import metrics
from jaxlora.evaluate.schema import ERROR_METRICS

N, V, C = 12, 15, 4


@pytest.fixture
def items():
    source = np.random.default_rng(0)
    candidates = np.stack([source.permutation(V)[:C] for _ in range(N)])
    return {
        # Rounded, so that ties occur.
        "logits": np.round(source.normal(size=(N, V)), 1),
        "candidates": candidates,
        "answers": candidates[np.arange(N), source.integers(C, size=N)],
        "groups": np.arange(N) % 3,
    }


def slow_loss(logits, answer):
    return math.log(sum(math.exp(x) for x in logits)) - logits[answer]


def test_predict(items):
    best = [max(range(V), key=lambda v: row[v]) for row in items["logits"]]
    assert metrics.predict(items["logits"]).tolist() == best


def test_rank_counts_candidates_that_are_not_worse(items):
    got = metrics.rank(items["logits"], items["answers"], items["candidates"])
    want = []
    for row, answer, candidates in zip(
        items["logits"], items["answers"], items["candidates"], strict=True
    ):
        want.append(1 + sum(row[c] >= row[answer] for c in candidates if c != answer))
    assert got.tolist() == want
    assert set(got) >= {1, C}


def test_rank_ignores_tokens_that_are_no_candidates():
    logits = np.array([[9.0, 1.0, 0.0]])
    assert metrics.rank(logits, [1], [[1, 2]]).tolist() == [1]


def test_loss(items):
    got = metrics.loss(items["logits"].astype(np.float32), items["answers"])
    want = [
        slow_loss(row, answer)
        for row, answer in zip(items["logits"], items["answers"], strict=True)
    ]
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_loss_does_not_overflow():
    np.testing.assert_allclose(metrics.loss([[1e4, 0.0]], [1]), [1e4])


def test_shuffled_loss_is_the_mean_over_all_other_people(items):
    got = metrics.shuffled_loss(items["logits"], items["answers"], items["groups"])
    for i in range(N):
        others = [
            slow_loss(items["logits"][i], items["answers"][j])
            for j in range(N)
            if j != i and items["groups"][j] == items["groups"][i]
        ]
        assert got[i] == pytest.approx(np.mean(others))


def test_shuffled_loss_survives_tokens_of_probability_zero():
    logits = [[0.0, 0.0, -np.inf], [0.0, 0.0, -np.inf], [0.0] * 3, [0.0] * 3]
    got = metrics.shuffled_loss(logits, [0, 1, 2, 2], [0, 0, 1, 1])
    np.testing.assert_allclose(got, [math.log(2)] * 2 + [math.log(3)] * 2)


def test_a_model_that_knows_frequencies_only_has_no_gap():
    logits = np.broadcast_to(np.arange(5.0), (4, 5))
    answers, groups = np.array([0, 1, 2, 3]), np.zeros(4)
    gap = metrics.loss(logits, answers) - metrics.shuffled_loss(logits, answers, groups)
    assert gap.mean() == pytest.approx(0)
    logits = 5.0 * np.eye(5)[answers]
    gap = metrics.loss(logits, answers) - metrics.shuffled_loss(logits, answers, groups)
    np.testing.assert_allclose(gap, -5)


def test_chance_is_the_mean_over_all_other_people(items):
    predictions = items["answers"][::-1]
    got = metrics.chance(predictions, items["answers"], items["groups"])
    for i in range(N):
        others = [
            predictions[i] == items["answers"][j]
            for j in range(N)
            if j != i and items["groups"][j] == items["groups"][i]
        ]
        assert got[i] == pytest.approx(np.mean(others))
    assert 0 < got.mean() < 1


def test_chance_matches_random_shuffles():
    source = np.random.default_rng(1)
    answers = source.integers(4, size=10)
    predictions = source.integers(4, size=10)
    exact = metrics.chance(predictions, answers, np.zeros(10)).mean()
    hits = []
    while len(hits) < 4000:
        order = source.permutation(10)
        if (order != np.arange(10)).all():
            hits.append((predictions == answers[order]).mean())
    assert exact == pytest.approx(np.mean(hits), abs=0.01)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=6, max_size=6), st.integers(0, 5))
def test_bounds_of_chance_and_rank(predictions, constant):
    people = np.arange(6)
    chance = metrics.chance(np.array(predictions), people, np.zeros(6))
    assert ((chance >= 0) & (chance <= 1 / 5)).all()
    always = metrics.chance(np.full(6, constant), people, np.zeros(6))
    assert always.mean() == pytest.approx(1 / 6)
    assert metrics.chance(people, people, np.zeros(6)).sum() == 0
    logits = np.eye(6)[predictions]
    rank = metrics.rank(logits, people, np.tile(people, (6, 1)))
    assert ((rank >= 1) & (rank <= 6)).all()
    assert ((rank == 1) == (np.array(predictions) == people)).all()


def test_constant_logits_are_ranked_last():
    candidates = np.tile(np.arange(4), (3, 1))
    assert (metrics.rank(np.zeros((3, 6)), [0, 1, 2], candidates) == 4).all()


def test_nan_is_never_right():
    logits = np.zeros((2, 3))
    logits[0, 1] = np.nan
    logits[1] = np.nan
    assert metrics.predict(logits).tolist() == [-1, -1]
    assert metrics.rank(logits[1:], [0], [[0, 1, 2]]).tolist() == [3]
    assert np.isnan(metrics.loss(logits, [0, 0])).all()
    undefined = np.full(2, -1)
    kinds = metrics.error_types([-1, -1], [0, 0], [1, 1], undefined, undefined)
    assert (kinds == metrics.ErrorType.OTHER).all()


def test_error_types_in_order():
    """Every later explanation also fits the items that an earlier one claims."""
    said = np.array([1, 1, 1, 1, 1])
    yes, no = 1, 2
    got = metrics.error_types(
        said,
        answers=np.array([yes, no, no, no, no]),
        bridge=np.array([yes, yes, no, no, no]),
        relation2_of_a=np.array([yes, yes, yes, no, -1]),
        old=np.array([yes, yes, yes, yes, -1]),
    )
    assert got.tolist() == [0, 1, 2, 3, 4]


def test_error_codes_are_the_schemas():
    names = [f"error: {metric.split(': ')[1]}" for metric in ERROR_METRICS]
    assert names == list(ERROR_METRICS)
    codes = [kind for kind in metrics.ErrorType if kind]
    assert [kind.name for kind in codes] == [metric.name for metric in ERROR_METRICS]
    assert codes == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.predict(np.zeros(3)), r"shape \(3,\), expected \[N items"),
        (lambda: metrics.predict(np.zeros((0, 3))), "at least one item"),
        (lambda: metrics.loss(np.zeros((1, 3)), [3]), r"from 3 to 3.*\[0, 3\)"),
        (lambda: metrics.loss(np.zeros((1, 3)), [-1]), "from -1"),
        (lambda: metrics.loss(np.zeros((1, 3)), [0, 1]), "answers of shape"),
        (lambda: metrics.loss(np.zeros((1, 3)), [0.0]), "float64"),
        (lambda: metrics.rank(np.zeros((1, 3)), [0], [0, 1]), "2 dimension"),
        (
            lambda: metrics.rank(np.zeros((1, 3)), [0], [[1, 2]]),
            "answer 0 is not among",
        ),
        (lambda: metrics.rank(np.zeros((1, 3)), [0], [[0, 0]]), "twice"),
        (lambda: metrics.chance([0, 1], [0, 1], ["x", "y"]), "x has one person only"),
        (lambda: metrics.chance([0, 1], [0], [0, 0]), "Got 1 answers for 2 items"),
        (lambda: metrics.chance([0, 1], [0, 1], [0]), "groups of shape"),
        (lambda: metrics.chance([0.0, 1.0], [0, 1], [0, 0]), "integer token ids"),
        (
            lambda: metrics.error_types([0, 1], [0, 1], [0], [0, 1], [0, 1]),
            "1 bridge for 2",
        ),
    ],
)
def test_errors_teach(call, message):
    with pytest.raises(ValueError, match=message):
        call()
