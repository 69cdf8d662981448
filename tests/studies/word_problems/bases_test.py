"""Bases: trained once, read from the cache, resumed, and measured."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlora.studies.word_problems import bases, worlds
from jaxlora.studies.word_problems.bases import Base


@pytest.fixture
def train(tiny, folder):
    def run(seed=tiny.first_seed, cache=folder / "cache", **changes):
        recipe = dataclasses.replace(tiny.pretrain, **changes)
        calls = []
        how = (tiny.model, recipe, seed, cache, lambda *x: calls.append(x))
        return bases.train(tiny.world, *how), calls

    return run


def leaves(params):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(params)]


def test_what_is_cached_is_what_was_trained(base, train, tmp_path):
    cached, calls = train()
    assert calls == []
    fresh, calls = train(cache=tmp_path)
    assert [steps for steps, _ in calls] == [10]
    assert leaves(cached.params) == leaves(fresh.params) == leaves(base.params)
    assert cached.measured == fresh.measured == calls[0][1]
    assert cached.steps == fresh.steps == 10


def test_training_that_was_cut_goes_on_the_same(train, tmp_path, monkeypatch):
    longer = {"max_steps": 20, "min_known": 1.0}
    uncut, calls = train(cache=tmp_path / "uncut", **longer)
    assert [steps for steps, _ in calls] == [10, 20]

    class CutError(Exception):
        pass

    measure, seen = bases.measure, []

    def cut(base, n):
        if seen:
            raise CutError
        seen.append(base.steps)
        return measure(base, n)

    monkeypatch.setattr(bases, "measure", cut)
    with pytest.raises(CutError):
        train(cache=tmp_path / "cut", **longer)
    monkeypatch.undo()
    resumed, calls = train(cache=tmp_path / "cut", **longer)
    assert [steps for steps, _ in calls] == [20]
    assert leaves(resumed.params) == leaves(uncut.params)
    assert resumed.measured == uncut.measured


def test_training_ends_where_the_criteria_are_met(train, tmp_path):
    base, _ = train(cache=tmp_path, max_steps=20)
    assert base.steps == 10


def test_a_base_that_passed_goes_on_for_answers_without_steps(train, tmp_path):
    more = {"max_steps": 30, "min_answer": 1.0, "answer_steps": 20}
    base, _ = train(cache=tmp_path, **more)
    assert base.steps == 20


def test_every_level_and_template_is_measured_by_name(base, tiny):
    known = [
        bases.known_name(level, template)
        for level in (1, 2, 3)
        for template in range(tiny.world.templates)
    ]
    answers = [bases.answer_name(level) for level in worlds.ANSWER_LEVELS]
    assert set(base.measured) == {*known, *answers}
    assert known[0] == "known problems, level 1, common"
    assert answers[0] == "answer only, level 1"
    assert all(map(bases.is_required, known))
    assert not any(map(bases.is_required, answers))
    assert {n for _, n in base.measured.values()} == {20}


def test_an_accuracy_is_that_of_the_answers_that_are_written(base, monkeypatch):
    """A model that writes right solutions has 1, and one that stops at once 0."""
    n = 10

    def right(model, vocab, params, asked, stacked):
        problems = {level: worlds.held_out(base.world, level, n) for level in (1, 2, 3)}
        out = np.full((*asked.tokens.shape[:2], 10), vocab.pad)
        for m, tokens in enumerate(asked.tokens):
            level = (int(asked.mask[m, 0].sum()) - 3) // 2
            at = tokens.shape[1] - (3 + 2 * level)
            form = int(tokens[0, at]) - vocab.formats
            length = bases.worlds.row_length(level)
            rows = bases.word_problems.render(problems[level], form, vocab, length)
            out[m] = bases.reading.solutions(rows, 10, vocab)
        return out

    monkeypatch.setattr(bases.solving, "of_params", right)
    assert {x for x, _ in bases.measure(base, n).values()} == {1.0}

    def stops(model, vocab, params, asked, stacked):
        return np.full((*asked.tokens.shape[:2], 10), vocab.end)

    monkeypatch.setattr(bases.solving, "of_params", stops)
    assert {x for x, _ in bases.measure(base, n).values()} == {0.0}


def measured(known, answers):
    names = [bases.known_name(level, 0) for level in range(1, 3)]
    names += [bases.answer_name(level) for level in worlds.ANSWER_LEVELS]
    values = zip(names, (*known, *answers), strict=True)
    return Base(None, None, None, 0, {name: (x, 20) for name, x in values})


def test_a_base_passes_by_its_worst_criterion(tiny):
    recipe = dataclasses.replace(tiny.pretrain, min_known=0.9, min_answer=0.8)
    assert measured((0.9, 1.0), (0.0, 0.0)).passed(recipe)
    assert not measured((1.0, 0.89), (1.0, 1.0)).passed(recipe)
    assert measured((0.9, 1.0), (0.8, 0.9)).answers(recipe)
    assert not measured((1.0, 1.0), (0.79, 1.0)).answers(recipe)
    nothing = Base(None, None, None, 0, {})
    assert not nothing.passed(recipe)
    assert not nothing.answers(recipe)


def test_another_seed_is_another_base(base, train, tmp_path):
    other, _ = train(seed=99, cache=tmp_path)
    assert leaves(other.params) != leaves(base.params)
    assert (other.world.operations.table != base.world.operations.table).any()


def test_the_decoder_fits_the_longest_row(base, tiny):
    config = base.model.config
    assert config.vocab_size == base.world.vocab.size
    assert config.max_length == base.world.length + 1
    assert config.hidden_size == tiny.model.hidden_size
