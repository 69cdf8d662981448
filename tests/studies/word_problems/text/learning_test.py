"""Experts: what they learn, that they learn it, and the cache."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlora import lora, train
from jaxlora.studies.word_problems.text import design, learning, problems, protocol
from jaxlora.studies.word_problems.text.design import Expert
from jaxlora.tasks import text

EASY, BOTH = Expert(("easy",), ("plain",)), Expert(("easy", "medium"), ("plain",))


@pytest.fixture(scope="module")
def loaded(tiny):
    return protocol.load(tiny, lambda *_: None)


@pytest.fixture(scope="module")
def lessons(tiny):
    return problems.prepare(tiny, 0).lessons


def packed(expert, lessons, words, length=512):
    return learning.rows(expert, lessons, words, length, 0)


def test_rows_hold_the_solutions_of_an_expert(lessons, loaded):
    words = loaded.tokenizer
    rows = packed(EASY, lessons, words)
    learned = words.decode(rows.targets[rows.weights > 0].tolist())
    for problem in lessons["easy"]:
        assert problem.solutions["plain"] in learned
    assert lessons["medium"][0].solutions["plain"] not in learned
    assert lessons["easy"][0].question not in learned
    two = packed(Expert(("easy",), ("plain", "python")), lessons, words)
    learned = words.decode(two.targets[two.weights > 0].tolist())
    assert lessons["easy"][0].solutions["python"] in learned


def test_a_text_that_is_too_long_is_refused(lessons, loaded):
    words, mixed = loaded.tokenizer, Expert(("easy", "hard"), ("plain",))
    texts = [x for level in mixed.levels for x in lessons[level]]
    records = (text.record(x, "") for x in problems.texts(texts, ("plain",)))
    longest = max(len(text.encode_one(x, words).tokens) for x in records)
    assert len(packed(mixed, lessons, words, longest).tokens)
    with pytest.raises(ValueError, match=r"1 of 12 .* are longer.*train\.length"):
        packed(mixed, lessons, words, longest - 1)


def test_experts_learn_and_are_read_from_the_cache(
    tiny, lessons, loaded, tmp_path, monkeypatch
):
    config = dataclasses.replace(
        tiny, train=dataclasses.replace(tiny.train, steps=16, learning_rate=5e-2)
    )
    sets = {x: packed(x, lessons, loaded.tokenizer) for x in (EASY, BOTH)}
    losses = []

    def learn(seed=0, cache=tmp_path):
        given = (loaded.model, loaded.base, sets, config, seed, cache)
        return learning.learn(
            *given, lambda done, total, x: losses.append(float(x[0].mean()))
        )

    first = learn()
    assert losses[-1] < losses[0]
    assert set(first) == {EASY, BOTH}
    norms = [
        float(np.abs(lora.delta(w)).max()) for w in lora.sites(first[EASY]).values()
    ]
    assert min(norms) > 0
    losses.clear()
    assert jax.tree.all(jax.tree.map(np.array_equal, learn(), first))
    assert not losses  # nothing was trained
    called = []
    monkeypatch.setattr(
        train, "train_experts", lambda *_, **x: called.append(x) or _none()
    )
    with pytest.raises(StopIteration):
        learn(seed=1)
    (given,) = called
    folders = {x.name for x in (tmp_path / "libraries").iterdir()}
    assert given["checkpoints"].folder.name not in folders


def _none():
    raise StopIteration


def test_every_expert_of_a_study_has_lessons(tiny, lessons, loaded):
    for expert in design.experts(tiny):
        assert packed(expert, lessons, loaded.tokenizer).weights.sum() > 0
