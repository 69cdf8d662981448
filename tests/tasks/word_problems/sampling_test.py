"""What is drawn fits what is asked for, and is drawn again by the same seed."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks.word_problems import (
    checker,
    graph,
    operations,
    sampling,
    skeletons,
)
from jaxlora.tasks.word_problems.sampling import Restrict

MOD, PLAIN = operations.modular(13, known_binary=4), operations.plain(1000)
SETS = {"modular": MOD, "plain": PLAIN}
DRAWS = {"chains": sampling.chains, "trees": sampling.trees}
PAIRS = [(draw, ops) for draw in DRAWS for ops in SETS]
each = pytest.mark.parametrize(("draw", "ops"), PAIRS)


def drawn(draw, ops, n=2000, seed=0, levels=(1, 2, 3, 4), **restrict):
    rng = np.random.default_rng(seed)
    return DRAWS[draw](rng, n, SETS[ops], levels, Restrict(**restrict))


@each
def test_ten_thousand_answers_are_those_of_the_graph(draw, ops):
    problems = drawn(draw, ops, 10_000)
    assert checker.of_graph(problems, SETS[ops]) == []
    used = problems.operations != graph.NO_STEP
    assert (problems.results[used] >= 0).all()
    assert (problems.results < SETS[ops].size).all()
    shares = np.bincount(problems.levels, minlength=5)[1:] / len(problems)
    np.testing.assert_allclose(shares, 0.25, atol=0.02)
    assert set(np.unique(problems.operations[used])) == set(SETS[ops].known)


@each
def test_same_seed_same_bytes(draw, ops):
    first, again, other = (drawn(draw, ops, seed=seed) for seed in (3, 3, 4))
    for field in dataclasses.fields(graph.Problems):
        x, y = getattr(first, field.name), getattr(again, field.name)
        assert x.tobytes() == y.tobytes()
    assert first.numbers.tobytes() != other.numbers.tobytes()


@each
def test_no_skeleton_is_in_train_and_test(draw, ops):
    parts = [drawn(draw, ops, part=part) for part in ("train", "test")]
    train, test = (set(skeletons.hashes(x)[x.levels > 1].tolist()) for x in parts)
    assert min(len(train), len(test)) > 20
    assert not train & test
    assert all((x.levels == 1).any() for x in parts)


@each
def test_every_step_matters(draw, ops):
    problems = drawn(draw, ops)
    unary = SETS[ops].unary[problems.operations]
    for row in np.flatnonzero(problems.levels > 1)[:200]:
        level = int(problems.levels[row])
        used = set(problems.left[row, 1:level].tolist())
        for step in range(1, level):
            if not unary[row, step]:
                used.add(int(problems.right[row, step]))
        assert set(range(level - 1)) <= used
    twice = (problems.left == problems.right) & (problems.right >= 0) & ~unary
    assert not twice.any()  # x - x and x / x say nothing of x
    chains = graph.are_chains(problems)
    assert (
        chains.all() if draw == "chains" else (chains == (problems.levels == 1)).all()
    )


@pytest.mark.parametrize("ops", SETS)
def test_some_trees_share_a_result_and_some_join_branches(ops):
    problems = drawn("trees", ops, levels=[3])
    binary = ~SETS[ops].unary[problems.operations]
    sources = np.stack([problems.left, np.where(binary, problems.right, -9)])
    uses = (sources == 0).any(axis=0).sum(axis=1)
    assert (uses == 2).mean() > 0.02
    joins = (sources[:, :, 2] >= 0).all(axis=0) & (sources[:, :, 1] < 0).all(axis=0)
    assert joins.mean() > 0.02


@each
def test_a_clause_that_does_not_matter_changes_no_answer(draw, ops):
    problems = drawn(draw, ops)
    clause = sampling.distract(np.random.default_rng(0), problems, SETS[ops])
    assert checker.of_graph(clause, SETS[ops]) == []
    np.testing.assert_array_equal(graph.answers(clause), graph.answers(problems))
    np.testing.assert_array_equal(skeletons.hashes(clause), skeletons.hashes(problems))
    more = (clause.operations >= 0).sum(1) - (problems.operations >= 0).sum(1)
    assert (more == 1).all()
    # It speaks of a result that there is.
    row = np.arange(len(clause))
    source = clause.left[row, clause.levels]
    assert ((source >= 0) & (source < clause.levels)).all()


def test_a_pool_restricts_operations():
    problems = drawn("chains", "modular", pool=[1, int(MOD.unknown[0])])
    used = problems.operations[problems.operations >= 0]
    assert set(used.tolist()) == {1, int(MOD.unknown[0])}


def test_skeletons_do_not_depend_on_padding_or_numbers():
    problems = drawn("trees", "modular")
    padded = graph.pad(problems, 7)
    np.testing.assert_array_equal(skeletons.hashes(padded), skeletons.hashes(problems))
    other = dataclasses.replace(problems, numbers=problems.numbers * 0)
    np.testing.assert_array_equal(skeletons.hashes(other), skeletons.hashes(problems))


def test_hashes_are_the_same_on_every_platform():
    two = graph.chains(MOD, np.array([[0, 5]]), np.array([1]), np.array([[2, 0]]))
    assert f"{skeletons.hashes(two)[0]:016x}" == "7186b16edc247275"


def test_hashes_differ_between_skeletons():
    ids = np.indices((MOD.count,) * 3).reshape(3, -1).T
    one = np.ones((len(ids), 3), int)
    hashes = skeletons.hashes(graph.chains(MOD, ids, one[:, 0], one))
    assert len(set(hashes.tolist())) == MOD.count**3
    share = skeletons.is_test(graph.chains(MOD, ids, one[:, 0], one), 0.3).mean()
    assert abs(share - 0.3) < 0.02


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_share_of_tests_only_adds_skeletons(x, y):
    problems = drawn("chains", "modular", 200)
    low, high = (skeletons.is_test(problems, share) for share in sorted((x, y)))
    assert (high | ~low).all()


@pytest.mark.parametrize(
    ("levels", "restrict", "message"),
    [
        ([0], {}, "Unknown level 0, expected 1 to 8"),
        ([9], {}, "Unknown level 9, expected 1 to 8"),
        ([], {}, "Unknown level none"),
        ([1], {"pool": []}, r"Got the operations \[\] to draw from"),
        ([1], {"pool": [18]}, r"\[18\] to draw from, expected .* 0 to 17 \(add"),
        ([1], {"part": "dev"}, "Unknown part 'dev', expected train, test"),
        ([2], {"part": "test", "test_share": 2}, "share of tests is 2"),
        ([2], {"part": "test", "test_share": 0.0}, "Drew 0 of 5 .* level 2 in 50 r"),
    ],
)
def test_bad_requests(levels, restrict, message):
    with pytest.raises(ValueError, match=message):
        drawn("chains", "modular", 5, levels=levels, **restrict)


def test_a_clause_needs_a_binary_operation():
    unary = operations.modular(13, known_binary=0)
    problems = sampling.chains(np.random.default_rng(0), 5, unary, [1])
    with pytest.raises(ValueError, match="needs a binary operation"):
        sampling.distract(np.random.default_rng(0), problems, unary)


def test_nothing_is_drawn_of_nothing():
    assert len(drawn("chains", "plain", 0)) == 0
