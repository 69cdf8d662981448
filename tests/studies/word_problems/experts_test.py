"""Experts: cached as trained, each the same in whatever group it is trained."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlora.evaluate import scoring
from jaxlora.studies.word_problems import experts, kinds
from jaxlora.studies.word_problems.kinds import Kind, Skill

A, B = Kind((Skill(0),)), Kind((Skill(1, 0.0),))
JOINT = Kind((Skill(0), Skill(1, 0.0)))
MOVED = Kind((Skill(0, moved=True),))


@pytest.fixture
def train(base, tiny, folder):
    def run(every, cache=folder / "experts", recipe=tiny.experts):
        calls = []
        how = (tiny.lora, recipe)
        return experts.train(base, every, how, cache, calls.append), calls

    return run


def bits(expert):
    leaves = jax.tree.leaves(expert.adapter)
    return [np.asarray(x).tobytes() for x in leaves], expert.accuracy


def test_what_is_cached_is_what_was_trained(train, tmp_path, monkeypatch):
    fresh, calls = train([A, B, JOINT, MOVED], tmp_path)
    assert list(fresh) == [A, B, JOINT, MOVED]
    assert calls == [3, 1]
    # Nothing is left that could train.
    monkeypatch.setattr(experts.full_batch, "fit_from", None)
    cached, _ = train([A, B, JOINT, MOVED], tmp_path)
    assert {k: bits(x) for k, x in cached.items()} == {
        k: bits(x) for k, x in fresh.items()
    }


def test_an_expert_does_not_depend_on_its_group(train):
    together, _ = train([A, B, JOINT])
    alone, _ = train([B])
    other, _ = train([MOVED, B])
    assert bits(alone[B]) == bits(other[B]) == bits(together[B])
    assert bits(together[A]) != bits(together[B])


def test_nothing_is_shared_by_another_recipe_or_base(base, tiny):
    how = (tiny.lora, tiny.experts)
    key = experts.key_of(base, [A], how)
    assert key == experts.key_of(base, [A], how)
    steps = dataclasses.replace(tiny.experts, steps=4)
    rank = dataclasses.replace(tiny.lora, rank=3)
    moved = jax.tree.map(lambda x: x + 1, base.params)
    others = [
        experts.key_of(base, [B], how),
        experts.key_of(base, [A, B], how),
        experts.key_of(base, [A], (tiny.lora, steps)),
        experts.key_of(base, [A], (rank, tiny.experts)),
        experts.key_of(base._replace(params=moved), [A], how),
    ]
    assert len({key, *others}) == 6


def test_experts_start_and_draw_apart(base):
    some = [A, Kind((Skill(0),), draw=1), B, MOVED]
    keys = [jax.random.key_data(experts.key(base, kind)).tobytes() for kind in some]
    assert len(set(keys)) == 4


def test_an_accuracy_is_that_of_the_experts_rows(base, train, tiny):
    """Each trained token of a row must be the arg max, told what came before."""
    expert = train([A, B, JOINT])[0][B]
    tokens, targets, weights, _ = kinds.rows(B, base.world, tiny.experts)
    vocab = base.world.vocab
    rows = experts.batch(base, [B], tiny.experts)
    np.testing.assert_array_equal(rows.tokens[0], tokens)
    np.testing.assert_array_equal(rows.targets[0], targets)
    np.testing.assert_array_equal(rows.weights[0], weights)
    row = jax.tree.map(lambda x: x[0], rows)
    right = scoring.right(
        base.model, vocab.pad, base.params, *row, adapter=expert.adapter
    )
    assert expert.accuracy == pytest.approx(np.asarray(right).mean())


def test_groups_of_a_size():
    assert experts.chunks("abcdefg", 3) == [tuple("abc"), tuple("def"), tuple("g")]
    assert experts.chunks([], 3) == []


def test_full_fine_tuning_moves_every_copy_of_the_base_its_way(base, tiny):
    params = experts.finetuned(base, [A, B, JOINT], tiny.experts)
    shifts = jax.tree.map(
        lambda x, y: abs(x - y[None]).max((1, 2)), *pairs(params, base)
    )
    for shift in jax.tree.leaves(shifts):
        assert (np.asarray(shift) > 0).all()
    one, two = (jax.tree.map(lambda x, i=i: x[i], params) for i in (0, 1))
    assert not jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), one, two))


def pairs(params, base):
    """Kernels only, as [E, ...] and [...] of the same two axes."""
    ours, theirs = flat(params), flat(base.params)
    names = [name for name in ours if theirs[name].ndim == 2]
    return {x: ours[x] for x in names}, {x: theirs[x] for x in names}


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): x for path, x in leaves}
