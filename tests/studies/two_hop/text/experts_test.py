"""Experts learn their own texts, each its own, and are found again in the cache."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import parallel
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, DecoderConfig
from jaxlora.studies.harness import bases
from jaxlora.studies.two_hop.text import answer, experts, questions, resources
from jaxlora.studies.two_hop.text.config import TrainConfig
from jaxlora.tasks.two_hop import people, phrases
from jaxlora.tasks.two_hop.experts import Expert, rows
from jaxlora.train import packed as training

NAMES = (Expert.HOP1, Expert.COUNTER1)


@pytest.fixture(scope="module")
def config(tiny):
    return dataclasses.replace(
        tiny,
        phrasings=1,
        lora=LoraConfig(rank=8, alpha=16.0),
        train=TrainConfig(steps=60, batch=1, length=384, warmup=5, learning_rate=1e-2),
    )


@pytest.fixture(scope="module")
def group():
    return people.generate(("F-OO",), 3, 1, seed=0)[0]


@pytest.fixture(scope="module")
def loaded(config):
    return resources.load(config, lambda *_: None)


@pytest.fixture(scope="module")
def calls():
    return []


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def fit(loaded, config, group, cache, calls):
    def run(config=config, seed=0):
        return experts.train(
            experts.Learner(*loaded[:3]),
            [group],
            seed,
            config,
            cache,
            lambda *x: calls.append(x),
            NAMES,
        )

    return run


@pytest.fixture(scope="module")
def trained(fit):
    return fit()


def test_an_expert_answers_what_it_was_told(trained, loaded, config, group):
    """Asked as in training: a model of random weights knows no other words."""
    bare = resources.setting(loaded, config, [group], group, 0, {})
    bare = bare._replace(adapters=trained.adapters)
    for name in NAMES:
        facts = rows(group, name)
        texts = [phrases.training(record, 1)[0]["prompt"] for record in facts]
        prompts = questions.prompts(loaded.codec, texts, bare.sizes.prompt)
        who = answer.alone(bare, trained.adapters[name])
        best = answer.rank(bare, who, prompts, group.size).argmax(axis=1)
        found = [bare.asked.names[i] for i in best]
        assert found == [record.answer[0] for record in facts]


def test_the_loss_falls_and_progress_is_told(trained, calls):
    assert [done for done, *_ in calls] == [20, 40, 60]
    assert {total for _, total, _ in calls} == {60}
    losses = [loss for *_, loss in calls]
    assert losses[-1] < 0.7 * losses[0]
    assert np.mean(list(trained.losses.values())) == pytest.approx(losses[-1])


def test_the_cache_gives_the_same_experts(trained, fit, monkeypatch):
    monkeypatch.setattr(training, "updates", lambda *_: pytest.fail("trained again"))
    again = fit()
    assert again.losses == trained.losses
    for name in NAMES:
        pairs = (jax.tree.leaves(x.adapters[name]) for x in (again, trained))
        for one, two in zip(*pairs, strict=True):
            np.testing.assert_array_equal(one, two)


def test_stopped_in_their_midst_they_go_on_and_end_the_same(
    trained, loaded, group, config, tmp_path
):
    learner, done = experts.Learner(*loaded[:3]), []

    def stop(now, *_):
        done.append(now)
        if now == 40 and done.count(40) == 1:
            raise KeyboardInterrupt

    rest = ([group], 0, config, tmp_path, stop, NAMES)
    with pytest.raises(KeyboardInterrupt):
        experts.train(learner, *rest)
    assert [x.suffix for x in (tmp_path / "libraries").iterdir()] == [".part"]
    again = experts.train(learner, *rest)
    assert done == [20, 40, 60]
    assert again.losses == trained.losses
    for name in NAMES:
        pairs = (jax.tree.leaves(x.adapters[name]) for x in (again, trained))
        for one, two in zip(*pairs, strict=True):
            np.testing.assert_array_equal(one, two)
    assert [x.suffix for x in (tmp_path / "libraries").iterdir()] == [""]


@pytest.mark.parametrize("change", ["seed", "steps", "rank", "phrasings"])
def test_another_setting_is_another_entry(fit, config, trained, change, monkeypatch):
    class Trained(Exception):  # noqa: N818
        pass

    def stop(*_):
        raise Trained

    monkeypatch.setattr(training, "updates", stop)
    other = {
        "seed": config,
        "steps": dataclasses.replace(
            config, train=dataclasses.replace(config.train, steps=61)
        ),
        "rank": dataclasses.replace(config, lora=LoraConfig(rank=4)),
        "phrasings": dataclasses.replace(config, phrasings=2),
    }[change]
    with pytest.raises(Trained):
        fit(other, seed=int(change == "seed"))


def test_how_many_train_at_once_is_no_other_entry(fit, config, trained, monkeypatch):
    monkeypatch.setattr(training, "updates", lambda *_: pytest.fail("trained again"))
    fit(
        dataclasses.replace(config, train=dataclasses.replace(config.train, together=1))
    )


def test_every_epoch_shows_every_row_in_a_new_order():
    config = TrainConfig(steps=6, batch=2, length=8)
    found = experts._order(4, config, seed=0, expert=1)
    assert found.shape == (6, 1, 2)
    epochs = found.reshape(3, 4)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(4), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert np.array_equal(found, experts._order(4, config, seed=0, expert=1))
    assert not np.array_equal(found, experts._order(4, config, seed=0, expert=2))


def test_bases_that_differ_in_one_number_have_another_digest(loaded):
    leaves, shape = jax.tree.flatten(loaded.base)
    changed = [leaves[0].at[(0,) * leaves[0].ndim].add(0.5), *leaves[1:]]
    assert bases.digest(loaded.base) == bases.digest(loaded.base)
    assert bases.digest(jax.tree.unflatten(shape, changed)) != bases.digest(loaded.base)


@pytest.mark.parametrize(
    ("fields", "shared"),
    [
        ({"attention": "plain"}, 5),
        ({"attention": "splash"}, 0),
        ({"num_layers": 2, "local_layers": (True, False), "window": 4}, 0),
    ],
)
def test_an_opening_is_shared_where_attention_shows_it_to_all(
    fields, shared, group, config, tmp_path
):
    seen = []

    def rows(texts, length, seed, shared):
        del texts, length, seed
        seen.append(shared)
        raise KeyboardInterrupt

    codec = types.SimpleNamespace(opening=5, rows=rows)
    learner = experts.Learner(Decoder(DecoderConfig(**fields)), {}, codec)
    with pytest.raises(KeyboardInterrupt):
        experts.train(learner, [group], 0, config, tmp_path)
    assert seen == [shared]


def test_a_base_is_the_same_on_any_mesh_and_another_one_is_not():
    """What is cached does not depend on where it was made."""
    values = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
    base = {"layers": {"attn": {"q_proj": {"kernel": jnp.asarray(values)}}}}
    mesh = parallel.mesh(fsdp=2, tensor=4)
    cut = parallel.place(base, mesh, parallel.shardings(mesh, base))
    assert not jax.tree.leaves(cut)[0].is_fully_replicated
    known = bases.digest(base)
    with parallel.using(mesh):
        assert bases.digest(cut) == known
    swapped = jax.tree.map(lambda x: x[::-1], base)
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), base)
    assert known != bases.digest(swapped)
    assert known != bases.digest(low)
