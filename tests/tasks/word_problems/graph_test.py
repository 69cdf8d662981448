"""Chains and trees against a calculator that goes step by step in Python."""

import dataclasses

import numpy as np
import pytest

from jaxlora.tasks.word_problems import graph, operations
from random_problems import random_chains

MOD = operations.modular(13, known_binary=4)


def by_hand(ops, start, chain):
    """The answer of a chain modulo p, from the definition."""
    p, x = ops.size, start
    for op, n in chain:
        if ops.names[op] == "divide":
            x = next(q for q in range(p) if q * n % p == x)
        elif op < ops.known_binary:
            x = [x + n, x - n, x * n][op] % p
        else:
            x = int(ops.table[op, x, 0])
    return x


def test_results_are_those_of_a_calculator():
    problems = random_chains(MOD, 500)
    assert set(problems.levels.tolist()) == {1, 2, 3}
    for i in range(len(problems)):
        level = int(problems.levels[i])
        chain = zip(
            problems.operations[i].tolist(), problems.numbers[i, 1::2], strict=True
        )
        chain = list(chain)
        for s in range(level):
            expected = by_hand(MOD, int(problems.start[i]), chain[: s + 1])
            assert problems.results[i, s] == expected
        assert graph.answers(problems)[i] == problems.results[i, level - 1]
        assert (problems.results[i, level:] == operations.UNDEFINED).all()


def test_a_tree_shares_results():
    # (2 + 3) = 5, (5 * 4) = 20 - 13 = 7, 7 - 5 = 2; the first result is used twice.
    none = np.zeros((1, 6), np.int64)
    numbers = none.copy()
    numbers[0, :4] = [2, 3, 0, 4]
    left, right = np.array([[~0, 0, 1]]), np.array([[~1, ~3, 0]])
    tree = graph.solved(MOD, numbers, np.array([[0, 2, 1]]), left, right, np.array([3]))
    assert tree.results.tolist() == [[5, 7, 2]]
    assert not graph.are_chains(tree).any()
    assert [x.tolist() for x in graph.operands(tree)] == [[[2, 5, 7]], [[3, 4, 5]]]


def test_evaluate_does_not_trust_results():
    problems = random_chains(MOD, 50)
    spoilt = dataclasses.replace(problems, results=problems.results * 0 + 1)
    np.testing.assert_array_equal(graph.evaluate(spoilt, MOD), problems.results)


def test_blind_results_are_random_only_where_new_operations_are():
    problems = random_chains(MOD, 4000)
    blinded = graph.blind(problems, MOD, np.random.default_rng(1))
    new = np.isin(problems.operations, MOD.unknown)
    before_any = np.cumsum(new, axis=1) == 0
    np.testing.assert_array_equal(
        blinded.results[before_any], problems.results[before_any]
    )
    # A random result is right by chance only.
    kept = (blinded.results == problems.results)[new].mean()
    assert abs(kept - 1 / 13) < 0.03
    # Known steps after it go on from what stands there.
    left, right = graph.operands(blinded)
    known = (problems.operations >= 0) & ~new
    expected = operations.apply(MOD, problems.operations, left, right)
    np.testing.assert_array_equal(blinded.results[known], expected[known])


def test_indexing_and_concatenation_keep_every_field():
    short, long = random_chains(MOD, 20, steps=2), random_chains(MOD, 30, 1, steps=4)
    both = graph.concatenate([short, long])
    assert len(both) == 50
    assert both.steps == 4
    np.testing.assert_array_equal(graph.evaluate(both, MOD), both.results)
    np.testing.assert_array_equal(both[20:].numbers, long.numbers)
    np.testing.assert_array_equal(
        graph.answers(both[np.arange(20)]), graph.answers(short)
    )
    assert graph.are_chains(both).all()


@pytest.mark.parametrize(
    ("ids", "start", "numbers", "message"),
    [
        ([[16 + 2]], [0], [[1]], r"operations 18 to 18, expected 0 to 17 \(add, "),
        ([[0]], [13], [[1]], "Got numbers 1 to 13, expected 0 to 12"),
        ([[-1]], [0], [[1]], "A chain is empty"),
        ([[0, -1, 0]], [0], [[1, 1, 1]], "has a gap"),
        ([[0]], [0, 1], [[1]], r"start \(2,\)"),
        ([[0, 3]], [0], [[1, 0]], r"Step 1 of problem 0 \(divide\) has no result"),
    ],
)
def test_bad_chains(ids, start, numbers, message):
    with pytest.raises(ValueError, match=message):
        graph.chains(MOD, np.array(ids), np.array(start), np.array(numbers))
