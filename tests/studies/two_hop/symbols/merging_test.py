"""Merges of all groups at once: what cannot run, what is drawn, what is asked."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxlora import lora, merge, models, route
from jaxlora.evaluate.schema import USUAL, Arm, Method
from jaxlora.evaluate.scoring import Questions
from jaxlora.models import statistics
from jaxlora.studies.harness import store
from jaxlora.studies.two_hop import arms, items
from jaxlora.studies.two_hop.items import Key, Split
from jaxlora.studies.two_hop.symbols import (
    answer,
    learning,
    lessons,
    libraries,
    own_data,
)
from jaxlora.tasks.two_hop.experts import Expert
from jaxlora.train import combine, learned, own_statistics
from jaxlora.train.step import Batch

G, N, PAD = 2, 3, 8
CONFIG = models.DecoderConfig(
    vocab_size=9,
    hidden_size=4,
    num_layers=1,
    mlp_size=4,
    num_heads=1,
    num_kv_heads=1,
    head_dim=4,
    max_length=9,
)
GROUPS = tuple(SimpleNamespace(cell="R-OO", pair=g, size=N - g) for g in range(G))
SITE = "layers/mlp/up_proj/kernel"


def test_methods_are_every_merge_and_every_route():
    assert {str(m) for m in Method} == {"none", *merge.names(), *route.names()}
    assert {m for m in Method if arms.merges(m)} == set(map(Method, merge.names()))


def test_other_than_usual_methods_combine_what_verdicts_need():
    for placed in (True, False):
        plan = arms.plan(("mean", "dare", "arrow"), placed)
        asked = {m: {x for x, y in plan if y is m} for m in Method}
        # Layers can be exchanged only where experts are confined to some.
        more = {Arm.REVERSED} if placed else set()
        assert asked[Method.MEAN] == set(arms.COMBINED) | more
        assert asked[Method.ARROW] == set(arms.COMBINED) | more
        assert asked[Method.DARE] == set(arms.NEEDED) | more
    assert set(arms.NEEDED) < set(arms.COMBINED)
    assert Method.DARE not in USUAL


def nobody(layers=3):
    """A setting of which nothing but the number of layers is known."""
    config = SimpleNamespace(num_layers=layers)
    base = SimpleNamespace(model=SimpleNamespace(config=config))
    return SimpleNamespace(experts=SimpleNamespace(base=base))


@pytest.mark.parametrize("library", [Arm.TRIPLE, Arm.TRIPLE_OTHERS], ids=str)
def test_a_method_that_cannot_combine_a_library_says_why(library, tmp_path):
    outcome = answer.answer(nobody(), library, Method.SLERP)
    assert len(outcome.items) == 0
    assert "slerp interpolates between two experts" in outcome.notes["unavailable"]
    placed = answer.answer(nobody(layers=2), library, Method.PLACED_SUM)
    assert "Got 3 experts for 2 layers" in placed.notes["unavailable"]
    store.save(tmp_path / "block", outcome)
    found = store.load(tmp_path / "block", items.COLUMNS)
    assert found.notes == outcome.notes
    assert tuple(found.items.columns) == items.COLUMNS


def test_what_can_be_combined_has_no_obstacle():
    assert arms.obstacle(Arm.PAIR, Method.SLERP, 2) == ""
    assert arms.obstacle(Arm.TRIPLE, Method.KARCHER, 2) == ""
    assert arms.obstacle(Arm.TRIPLE, Method.ARROW, 2) == ""
    assert arms.obstacle(Arm.BASE, Method.NONE, 2) == ""
    assert arms.obstacle(Arm.TRIPLE, Method.PLACED_SUM, 3) == ""
    assert arms.obstacle(Arm.PAIR, Method.PLACED_SUM, 1) != ""


def test_keys_differ_by_seed_library_and_group_and_by_nothing_else():
    def data(seed, arm):
        made = SimpleNamespace(base=SimpleNamespace(seed=seed), groups=range(3))
        return np.asarray(jax.random.key_data(libraries.keys(made, arm))).tolist()

    places = [(s, x) for s in (0, 1) for x in (Arm.PAIR, Arm.RANDOM)]
    drawn = [tuple(key) for where in places for key in data(*where)]
    assert len(set(drawn)) == len(drawn) == 12
    assert data(0, Arm.PAIR) == data(0, Arm.PAIR)


def weight(key, experts=2):
    a, b = jax.random.split(key)
    return lora.LoraWeight(
        jax.random.normal(a, (G, experts, 1, 4, 1)),
        jax.random.normal(b, (G, experts, 1, 1, 4)),
        jnp.ones((G, experts, 1)),
    )


@pytest.fixture(scope="module")
def experts():
    """Two groups of a pair of experts, on a base of one layer."""
    model = models.Decoder(CONFIG)
    params = jax.jit(models.init, static_argnums=1)(jax.random.key(0), model)
    base = SimpleNamespace(model=model, params=params, pad=PAD, seed=0)
    site = weight(jax.random.key(1))
    tree = {"layers": {"mlp": {"up_proj": {"kernel": site}}}}
    adapters = {
        name: jax.tree.map(lambda x, i=i: x[:, i], tree)
        for i, name in enumerate((Expert.HOP1, Expert.HOP2))
    }
    return SimpleNamespace(base=base, groups=GROUPS, adapters=adapters)


@pytest.fixture(scope="module")
def asked():
    """Two-hop prompts of both groups, and what is right."""
    rng = np.random.default_rng(0)
    direct = jnp.asarray(rng.integers(0, PAD, (G, 3 * N + 1, 3)), jnp.int32)
    some = jnp.asarray(rng.integers(0, PAD, (G, N, 5)), jnp.int32)
    told = jnp.asarray(rng.integers(0, PAD, (G, N, 9)), jnp.int32)
    nobody = np.full(N, -1)
    key = Key(np.array([1, 2, 3]), nobody, nobody, np.array([2, 3, -1]))
    keys = tuple({Split.TWO_HOP: key} for _ in range(G))
    at = jnp.full(direct.shape[:2], 2)
    asks = Questions(direct, some, told, at)
    return SimpleNamespace(questions=asks, people=N, keys=keys, groups=GROUPS)


def test_a_merge_is_asked_whether_it_is_of_low_rank_or_dense(experts, asked):
    stacked = libraries.stacked(experts, Arm.PAIR)
    keys = libraries.keys(experts, Arm.RANDOM)
    made = combine.merge_each(merge.preset("mean"), stacked, keys, None)
    low = libraries.answers(experts, made, asked.questions)
    dense = libraries.answers(experts, lora.pad(made, 4), asked.questions)
    np.testing.assert_allclose(low.direct, dense.direct, rtol=1e-4, atol=1e-5)
    nothing = jax.tree.map(jnp.zeros_like, made)
    other = libraries.answers(experts, nothing, asked.questions)
    assert np.abs(np.asarray(other.direct - low.direct)).max() > 1e-2


def test_answers_are_those_of_each_groups_own_merge(experts, asked):
    """A merge on dense deltas that draws, so that keys and full rank are in it."""
    name = Method.DARE_MERGEKIT
    assert merge.preset(str(name)).space == "delta"
    merged = libraries.merged(experts, Arm.PAIR, name)
    got = libraries.answers(experts, merged, asked.questions)
    stacked = libraries.stacked(experts, Arm.PAIR)
    base, keys = experts.base, libraries.keys(experts, Arm.PAIR)

    @jax.jit
    def ask(library, key, tokens):
        adapter = merge.preset(str(name))(library, key=key)
        inputs = models.Inputs(tokens, tokens != PAD)
        return models.apply(base.model, base.params, inputs, adapter=adapter)[:, 2]

    for g in range(G):
        library = jax.tree.map(lambda x, g=g: x[g], stacked)
        want = ask(library, keys[g], asked.questions.direct[g])
        np.testing.assert_allclose(got.direct[g], want, rtol=1e-4, atol=1e-5)


def test_each_half_of_the_people_gets_what_the_others_taught(monkeypatch):
    """The merge of half h is asked about the people whose number mod 2 is h."""
    taught = {SITE: jnp.arange(2.0)}
    monkeypatch.setattr(learning, "target", lambda *_: taught)
    monkeypatch.setattr(lessons, "lessons", lambda *_: None)
    monkeypatch.setattr(lessons, "counts", lambda *_: {"R-OO": [17, 18]})
    monkeypatch.setattr(learning, "notes", lambda *_: {"R-OO": [1.0]})
    monkeypatch.setattr(libraries, "stacked", lambda *_: None)
    monkeypatch.setattr(libraries, "keys", lambda *_: None)
    monkeypatch.setattr(libraries, "merged", lambda *_, data: int(data[SITE]))
    monkeypatch.setattr(libraries, "answers", lambda _, merged, __: merged)
    monkeypatch.setattr(
        answer,
        "_items",
        lambda _, half: pd.DataFrame({"person": range(5), "told": half}),
    )
    made = SimpleNamespace(
        experts=SimpleNamespace(base=SimpleNamespace(seed=0), groups=(None,)),
        asked=SimpleNamespace(questions=None, groups=(None,)),
    )
    found = answer._learned(made, Arm.PAIR, Method.CAT)
    assert found.items["told"].tolist() == [0, 1, 0, 1, 0]
    assert found.notes == {"learned": {"R-OO": [1.0]}, "rows": {"R-OO": [17, 18]}}


def test_own_data_are_of_each_expert_on_its_own_rows(experts, monkeypatch):
    """Grams of the first site's inputs are those of the rows' own tokens."""
    rng = np.random.default_rng(1)

    def rows(_, names):
        seed = 0 if names == [Expert.HOP1] else 1
        draw = np.random.default_rng(seed)
        shape = (1, G, N, 3)
        tokens = draw.integers(0, PAD, shape)
        weights = np.zeros(shape, np.float32)
        weights[..., -1] = 1
        weights[:, :, -1] = 0  # the last row is not used
        return Batch(
            jnp.asarray(tokens, jnp.int32),
            jnp.asarray(rng.integers(0, PAD, shape), jnp.int32),
            jnp.asarray(weights),
        )

    monkeypatch.setattr(own_data, "batches", rows)
    stacked = libraries.stacked(experts, Arm.PAIR)
    grams = own_data.measure(experts, Arm.PAIR, Method.REGMEAN, stacked)[SITE]
    assert grams.shape == (G, 2, 1, 4, 4)
    base = experts.base

    @jax.jit
    def by_hand(adapter, tokens):
        return statistics.input_grams(
            base.model, base.params, tokens, jnp.ones((N - 1, 3)), adapter=adapter
        )[SITE]

    for e, name in enumerate((Expert.HOP1, Expert.HOP2)):
        tokens = rows(None, [name]).tokens[0]
        for g in range(G):
            one = jax.tree.map(lambda x, g=g, e=e: x[g, e], stacked)
            want = by_hand(one, tokens[g, :-1])  # the last row is not used
            np.testing.assert_allclose(grams[g, e], want, rtol=1e-4, atol=1e-6)
    found = own_data.measure(experts, Arm.PAIR, Method.FISHER, stacked)[SITE]
    assert found.shape == (G, 2, 1, 4, 4)
    np.testing.assert_allclose(jnp.sum(found**2, (-3, -2, -1)), 1, rtol=1e-4)
    assert (found >= 0).all()


def test_data_of_an_unknown_merge_are_refused(experts):
    with pytest.raises(ValueError, match="'ties' sees the experts' own data"):
        own_data.measure(experts, Arm.PAIR, Method.TIES, None)
    with pytest.raises(ValueError, match="'ties' sees data of the target task"):
        learning.target(experts.base, Method.TIES, None, GROUPS, None, None)


def test_every_merge_that_sees_data_is_given_some():
    sees = {name: merge.preset(name).data for name in merge.names()}
    own = {name for name, data in sees.items() if data == "own"}
    target = {name for name, data in sees.items() if data == "target"}
    assert own == set(map(str, own_statistics.MEASURES))
    assert target == {*learned.SCALED, *learned.SEARCHED}
