"""The checker notices what is wrong in rows of symbols, and nothing else."""

import dataclasses

import numpy as np
import pytest

from jaxlora.tasks.word_problems import (
    checker,
    graph,
    operations,
    symbols,
    templates,
)
from jaxlora.tasks.word_problems.vocab import Vocab, row_length
from random_problems import random_chains

OPS = operations.modular(13, known_binary=4)
VOCAB = Vocab(OPS, templates.ALL)
PROBLEMS = random_chains(OPS, 10_000)
FORMATS = np.arange(len(PROBLEMS)) % (len(templates.ALL) + 1)


def rows():
    return symbols.render(PROBLEMS, FORMATS, VOCAB, row_length(3))


def test_ten_thousand_rows_agree_with_their_graphs():
    assert checker.of_graph(PROBLEMS, OPS) == []
    assert checker.of_symbols(PROBLEMS, rows(), FORMATS, VOCAB) == []


@pytest.mark.parametrize(
    ("place", "what"), [(0, "operation"), (1, "operand"), (2, "result")]
)
def test_a_changed_token_is_noticed_where_it_is(place, what):
    made = rows()
    row = np.flatnonzero((FORMATS == 0) & (PROBLEMS.levels == 3))[0]
    at = made.prompt_lengths[row] - 1 + 3 + place  # in step 1
    made.targets[row, at] = {0: VOCAB.eq, 1: VOCAB.eq}.get(
        place, (made.targets[row, at] + 1) % 13
    )
    found = checker.of_symbols(PROBLEMS, made, FORMATS, VOCAB)
    assert [(x.problem, x.step, x.what) for x in found] == [(row, 1, what)]


def test_a_wrong_answer_alone_is_noticed():
    made = rows()
    row = int(np.flatnonzero(VOCAB.answer_only == FORMATS)[0])
    at = made.prompt_lengths[row] - 1
    right = int(made.targets[row, at])
    made.targets[row, at] = (right + 1) % 13
    found = checker.of_symbols(PROBLEMS, made, FORMATS, VOCAB)
    expected = checker.Disagreement(
        row, checker.ANSWER, "answer", (right + 1) % 13, right
    )
    assert set(found) == {expected}


def test_rows_of_other_problems_are_noticed():
    """Rows that are right in themselves, but answer another prompt."""
    shifted = PROBLEMS[np.roll(np.arange(len(PROBLEMS)), 1)]
    found = checker.of_symbols(shifted, rows(), FORMATS, VOCAB)
    differ = graph.answers(shifted) != graph.answers(PROBLEMS)
    assert {x.problem for x in found} == set(np.flatnonzero(differ).tolist())


def test_spoilt_results_of_a_graph_are_noticed():
    results = PROBLEMS.results.copy()
    results[7, 0] = (results[7, 0] + 1) % 13
    spoilt = dataclasses.replace(PROBLEMS, results=results)
    found = checker.of_graph(spoilt, OPS)
    assert found == [
        checker.Disagreement(
            7, 0, "result", int(results[7, 0]), int(PROBLEMS.results[7, 0])
        )
    ]
