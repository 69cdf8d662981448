"""Bases: trained in chunks until they meet their criteria, cached, and resumed."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlora.studies.two_hop.symbols import bases
from jaxlora.tasks.two_hop import world


@pytest.fixture(scope="module")
def worlds(tiny):
    return [world.generate(tiny.world, seed) for seed in range(3)]


@pytest.fixture
def chunks(monkeypatch):
    """The step at which every chunk begins, in the order in which they run."""
    begun = []
    for name in ("chunk", "chunks"):
        run = getattr(bases.pretrain, name)

        def count(model, opt, sizes, steps, state, data, run=run):
            if not isinstance(state.step, jax.core.Tracer):  # chunk inside chunks
                begun.append(np.atleast_1d(state.step).tolist())
            return run(model, opt, sizes, steps, state, data)

        monkeypatch.setattr(bases.pretrain, name, count)
    return begun


# A criterion that is never met: every base trains to the end.
LONG = {"min_copy": 1.0, "max_steps": 20}


def train(tiny, worlds, seeds, cache, pretrain=LONG, **more):
    pretrain = dataclasses.replace(tiny.pretrain, **pretrain)
    made = [worlds[seed] for seed in seeds]
    return bases.train(seeds, made, tiny.model, pretrain, cache, **more)


def assert_same(one, two):
    assert (one.steps, one.measured) == (two.steps, two.measured)
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)


def stop_at(step):
    def progress(seed, steps, measured):
        if steps == step and measured:
            raise KeyboardInterrupt

    return progress


def test_a_base_cut_between_chunks_goes_on_at_its_step(tiny, worlds, tmp_path, chunks):
    (whole,) = train(tiny, worlds, [0], tmp_path / "whole")
    assert chunks == [[0], [10]]
    chunks.clear()
    with pytest.raises(KeyboardInterrupt):
        train(tiny, worlds, [0], tmp_path / "cut", progress=stop_at(10))
    (resumed,) = train(tiny, worlds, [0], tmp_path / "cut")
    assert chunks == [[0], [10]]
    assert_same(resumed, whole)
    chunks.clear()
    (cached,) = train(tiny, worlds, [0], tmp_path / "cut")
    assert chunks == []
    assert_same(cached, whole)


def test_several_bases_in_one_program_catch_up_first(tiny, worlds, tmp_path, chunks):
    with pytest.raises(KeyboardInterrupt):
        train(tiny, worlds, [1], tmp_path, progress=stop_at(10))
    found = train(tiny, worlds, [1, 2], tmp_path, concurrent=2)
    # Seed 2 alone first, then both from step 10.
    assert chunks == [[0], [0], [10, 10]]
    assert [base.seed for base in found] == [1, 2]
    assert [base.steps for base in found] == [20, 20]
    alone = train(tiny, worlds, [1, 2], tmp_path / "alone")
    for one, two in zip(found, alone, strict=True):
        jax.tree.map(
            # One program sums in another order than two.
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4),
            one.params,
            two.params,
        )


def test_training_stops_as_soon_as_the_criteria_are_met(tiny, worlds, tmp_path, chunks):
    more = {"format_steps": 0, "max_steps": 50}
    (easy,) = train(tiny, worlds, [0], tmp_path, pretrain=more)
    assert easy.steps == 10
    hard = more | {"min_copy": 1.0}
    (failed,) = train(tiny, worlds, [0], tmp_path, pretrain=hard)
    assert failed.steps == 50
    assert not failed.passed(dataclasses.replace(tiny.pretrain, **hard))
    # A format that is not learned is given format_steps, and no more.
    chunks.clear()
    formats = more | {"min_format": 1.0, "format_steps": 20}
    (base,) = train(tiny, worlds, [0], tmp_path, pretrain=formats)
    config = dataclasses.replace(tiny.pretrain, **formats)
    assert base.steps == 20
    assert base.passed(config)
    assert not base.available("written bridge", config)


def test_criteria_ask_each_question_once(tiny, worlds, tmp_path):
    (base,) = train(tiny, worlds, [0], tmp_path)
    assert base.measured.keys() == bases.CRITERIA.keys() | bases.FORMATS.keys()
    splits = worlds[0].splits
    assert base.measured["copy"][1] == len(worlds[0].vocab.entities)
    assert base.measured["one-hop recall"][1] == len(splits["one_hop"])
    assert base.measured["held-out two-hop"][1] == len(splits["held_out"])


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a | {"seed": 1},
        lambda a: a | {"model": dataclasses.replace(a["model"], hidden_size=24)},
        lambda a: a | {"config": dataclasses.replace(a["config"], batch=17)},
        lambda a: a | {"world": dataclasses.replace(a["world"], splits={})},
    ],
    ids=["seed", "model", "pretrain", "world"],
)
def test_the_cache_key_depends_on_all_that_decides_a_base(tiny, worlds, change):
    arguments = {
        "seed": 0,
        "world": worlds[0],
        "model": tiny.model,
        "config": tiny.pretrain,
    }
    assert bases.key_of(**arguments) == bases.key_of(**arguments)
    assert bases.key_of(**change(dict(arguments))) != bases.key_of(**arguments)


def test_the_cache_key_depends_on_the_code(tiny, worlds, monkeypatch):
    arguments = (0, worlds[0], tiny.model, tiny.pretrain)
    before = bases.key_of(*arguments)
    monkeypatch.setattr(bases, "CODE", "edited")
    assert bases.key_of(*arguments) != before
