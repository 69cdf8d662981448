"""Operations of a base, what it is trained on, and what it is held out from."""

import dataclasses

import numpy as np
import pytest

from jaxlora.studies.word_problems import worlds
from jaxlora.studies.word_problems.recipes import PretrainConfig, WorldConfig
from jaxlora.studies.word_problems.worlds import TEMPLATES
from jaxlora.tasks.word_problems import checker, reading, skeletons
from jaxlora.tasks.word_problems.symbols import Rows

WORLD = worlds.generate(WorldConfig(), 70)
NEW = WORLD.operations.unknown
RECIPE = PretrainConfig(rows=2000, answer_rows=1000, names=0.25)


@pytest.fixture(scope="module")
def batches():
    return worlds.pretraining(WORLD, RECIPE)


def rows(batch):
    tokens, targets, weights = map(np.asarray, batch)
    lengths = (tokens == WORLD.vocab.eq).argmax(1) + 1
    return Rows(tokens, targets, weights, lengths)


def problems(batch):
    some = rows(batch)
    return reading.prompts(some.tokens, some.prompt_lengths, WORLD.vocab)


def test_new_operations_are_moved_and_known_ones_are_not():
    table, moved = WORLD.operations.table, WORLD.moved.table
    known = WORLD.operations.known
    np.testing.assert_array_equal(table[known], moved[known])
    np.testing.assert_array_equal((table[NEW] + 1) % 13, moved[NEW])
    # Drawn from the seed, and the same whatever else the base knows.
    fewer = worlds.generate(WorldConfig(known_unary=2), 70).operations
    np.testing.assert_array_equal(fewer.table[fewer.unknown], table[NEW])
    other = worlds.generate(WorldConfig(), 71).operations.table
    assert (other[NEW] != table[NEW]).any()


def test_templates_are_apart_as_their_names_say():
    common = TEMPLATES[worlds.COMMON]
    shares = {
        name: (
            t.words == common.words,
            t.numbers == common.numbers,
            t.order == common.order,
        )
        for name, t in zip(worlds.NAMES, TEMPLATES, strict=True)
    }
    assert shares == {
        "common": (True, True, True),
        "other": (False, False, False),
        "same order": (False, False, True),
        "same words": (True, True, False),
        "same numbers": (False, True, False),
    }


def test_known_rows_are_right_in_every_template_and_names_weigh_nothing(batches):
    written = rows(batches[0])
    formats = written.tokens[:, 0] - WORLD.vocab.formats
    asked = problems(batches[0])
    named = np.isin(asked.operations, NEW).any(1)
    known = Rows(*(x[~named] for x in written))
    wrong = checker.of_symbols(asked[~named], known, formats[~named], WORLD.vocab)
    assert wrong == []
    assert set(formats) == set(range(len(TEMPLATES)))
    assert 0 < named.sum() <= 500
    # All tokens of a solution weigh 1 but the results of new operations.
    ends = 3 * asked.levels + 1
    unweighted = ends - written.weights.sum(1).astype(int)
    np.testing.assert_array_equal(unweighted, np.isin(asked.operations, NEW).sum(1))


def test_facts_of_new_operations_are_not_in_the_rows(batches):
    """Results that follow their names agree with their facts by chance only."""
    written, asked = rows(batches[0]), problems(batches[0])
    formats = written.tokens[:, 0] - WORLD.vocab.formats
    tokens = reading.solutions(written, 13, WORLD.vocab)
    steps = reading.steps(tokens, formats, WORLD.vocab)
    values = np.concatenate([asked.start[:, None], steps[:, :-1, 2]], axis=1)
    new = np.isin(steps[..., 0], NEW)
    facts = WORLD.operations.table[steps[..., 0], values, 0]
    hits = (steps[..., 2] == facts)[new]
    assert len(hits) > 300
    assert hits.mean() < 2.5 / 13


def test_answers_without_steps_are_right_and_short(batches):
    direct = rows(batches[1])
    asked = problems(batches[1])
    assert direct.tokens.shape == (1000, worlds.answer_length(2))
    assert set(direct.tokens[:, 0]) == {WORLD.vocab.formats + WORLD.vocab.answer_only}
    assert set(asked.levels) == {1, 2}
    known = ~np.isin(asked.operations, NEW).any(1)
    answers = direct.targets[np.arange(1000), direct.prompt_lengths - 1]
    results = asked.results[np.arange(1000), asked.levels - 1]
    np.testing.assert_array_equal(answers[known], results[known])
    # END always, the answer where it is known.
    assert set(direct.weights[known].sum(1)) == {2}
    assert set(direct.weights[~known].sum(1)) == {1}


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_held_out_problems_are_known_and_of_unseen_skeletons(level, batches):
    some = worlds.held_out(WORLD, level, 200)
    assert not np.isin(some.operations, NEW).any()
    assert set(some.levels) == {level}
    if level == 1:
        return  # every operation must be trained
    assert skeletons.is_test(some).all()
    trained = np.concatenate([skeletons.hashes(problems(b)) for b in batches])
    assert not np.isin(skeletons.hashes(some), trained).any()


def test_binary_operations_come_more_often(batches):
    counts = np.bincount(
        problems(batches[0]).operations.ravel() + 1, minlength=WORLD.operations.count
    )[1:]
    # Skeletons of the test part are missing, so that counts differ a little.
    unary = counts[WORLD.operations.unary & (np.arange(len(counts)) < NEW[0])]
    assert counts[:2].min() > 1.5 * unary.max()


def test_same_seed_same_bytes(batches):
    again = worlds.pretraining(worlds.generate(WorldConfig(), 70), RECIPE)
    other = worlds.pretraining(worlds.generate(WorldConfig(), 71), RECIPE)
    as_bytes = [
        [np.asarray(x).tobytes() for b in y for x in b] for y in (batches, again)
    ]
    assert as_bytes[0] == as_bytes[1]
    assert (np.asarray(other[0].tokens) != np.asarray(batches[0].tokens)).any()


@pytest.mark.parametrize("names", [0.0, 1.0])
def test_no_rows_or_all_of_them_hold_names(names):
    recipe = dataclasses.replace(RECIPE, rows=50, answer_rows=50, names=names)
    written, _ = worlds.pretraining(WORLD, recipe)
    named = np.isin(problems(written).operations, NEW).any()
    assert len(written.tokens) == 50
    assert named == bool(names)
