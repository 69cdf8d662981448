"""What arms answer: items by hand, members, and methods that cannot run."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlora import lora
from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.studies.word_problems import answer, design, experts, questions, worlds
from jaxlora.studies.word_problems.answer import COLUMNS, Setting
from jaxlora.studies.word_problems.experts import Expert
from jaxlora.tasks import word_problems
from jaxlora.tasks.word_problems import reading


@pytest.fixture(scope="module")
def asked(base, tiny):
    return questions.ask(base.world, design.pairs(tiny.world))


@pytest.fixture(scope="module")
def setting(base, tiny, asked):
    """Experts that differ, without training: one for each kind of the dial's arms."""
    regime = design.overlap(1.0)
    arms = (Arm.PAIR, Arm.JOINT, Arm.SHUFFLED, Arm.SAME_DATA, Arm.THREE)
    some = {
        kind
        for arm in arms
        for pair in asked.pairs
        for kind in design.members(arm, regime, pair, 3)
    }
    trained = {kind: Expert(adapter(base, tiny, kind.number), 0.5) for kind in some}
    return Setting(tiny, regime, base, asked, trained)


def adapter(base, tiny, number):
    key = jax.random.key(number)
    start = lora.init(key, base.params, tiny.lora)
    return jax.tree.map(lambda x: x + jax.random.normal(key, x.shape, x.dtype), start)


def right(asked, world, template):
    """Right solutions of all questions, int [M, Q, N]."""
    formats = questions.formats_of(asked, world, template)
    rows = [
        word_problems.render(problems, formats, world.vocab, world.length)
        for problems in asked.problems
    ]
    return np.stack([reading.solutions(x, 10, world.vocab) for x in rows])


@pytest.mark.parametrize("template", [worlds.COMMON, worlds.OTHER])
def test_right_solutions_are_right_and_their_steps_too(base, asked, template):
    written = right(asked, base.world, template)
    items = answer.collect(written, asked, base.world, template)
    assert tuple(items.columns) == COLUMNS
    assert items[["pair", "item", "split", "level"]].equals(
        asked.frame[["pair", "item", "split", "level"]]
    )
    assert items["correct"].all()
    assert items["steps"].all()
    assert (items["error"] == -1).all()
    assert (items["counterfactual"] == 0).all()
    np.testing.assert_array_equal(items["predicted"], asked.answers.reshape(-1))


def test_a_solution_in_the_other_template_is_so_called(base, asked):
    written = right(asked, base.world, worlds.OTHER)
    items = answer.collect(written, asked, base.world, worlds.COMMON)
    direct = np.tile(asked.direct, len(asked.pairs))
    names = [kind.value for kind in answer.solutions.KINDS]
    assert set(items["error"][~direct]) == {names.index("template")}
    assert not items["correct"][~direct].any()
    # Answers without steps are in no template.
    assert items["correct"][direct].all()


def test_nothing_written_is_wrong_and_no_chance(base, asked):
    written = np.full((3, asked.answers.shape[1], 10), base.world.vocab.pad)
    items = answer.collect(written, asked, base.world, worlds.COMMON)
    assert not items["correct"].any()
    assert (items["predicted"] == -1).all()
    assert (items["chance"] == 0).all()


def test_counterfactual_answers_are_known_by_their_operation(base, asked):
    """Answers alone, as solutions without steps are written."""
    vocab = base.world.vocab
    for side, bit in enumerate((1, 2)):
        moved = asked.moved[side]
        written = right(asked, base.world, worlds.COMMON)
        written[:, asked.direct] = vocab.pad
        written[:, asked.direct, 0] = moved[:, asked.direct]
        written[:, asked.direct, 1] = vocab.end
        items = answer.collect(written, asked, base.world, worlds.COMMON)
        both = (items["split"] == str(Split.ANSWER_BOTH)).to_numpy()
        got = items["counterfactual"].to_numpy()[both]
        assert (got & bit == bit).all()
        agree = (asked.moved[0] == asked.moved[1]).reshape(-1)[both]
        np.testing.assert_array_equal(got == 3, agree)


@pytest.mark.parametrize(
    ("arm", "method"),
    [
        (Arm.BASE, Method.NONE),
        (Arm.EXPERT_A, Method.NONE),
        (Arm.PAIR, Method.MEAN),
        (Arm.RANDOM, Method.MEAN),
        (Arm.PERMUTED, Method.MEAN),
    ],
)
def test_every_question_has_its_item(setting, arm, method):
    outcome = answer.answer(setting, arm, method)
    assert tuple(outcome.items.columns) == COLUMNS
    assert len(outcome.items) == setting.asked.answers.size
    assert outcome.notes == ({} if arm is Arm.BASE else {"own": 0.5})


def test_the_lowest_accuracy_is_noted(setting, asked):
    kind = answer.members(setting, Arm.PAIR)[1][1]
    weak = setting.trained[kind]._replace(accuracy=0.25)
    other = setting._replace(trained=dict(setting.trained) | {kind: weak})
    assert answer.answer(other, Arm.EXPERT_A, Method.NONE).notes == {"own": 0.25}


def test_members_are_those_of_each_pair(setting):
    some = answer.members(setting, Arm.PAIR)
    pairs = [tuple(k.skills[0].operation for k in kinds) for kinds in some]
    assert pairs == [(0, 1), (1, 2), (2, 0)]


def test_a_mean_of_the_same_expert_twice_is_that_expert(setting):
    """What a merge gives is what is asked."""
    twice = {kind: setting.trained[kind] for kind in setting.trained}
    for a, b in answer.members(setting, Arm.PAIR)[:1]:
        twice[b] = twice[a]
    changed = setting._replace(trained=twice)
    mean = answer.answer(changed, Arm.PAIR, Method.MEAN).items
    alone = answer.answer(changed, Arm.EXPERT_A, Method.NONE).items
    first = mean["pair"] == 0
    same = (mean["predicted"] == alone["predicted"])[first]
    assert same.mean() > 0.98


def test_controls_are_drawn_from_the_two_and_differ_from_them(setting):
    keys = answer._keys(setting, Arm.RANDOM)
    assert keys.shape == (3,)
    kinds = answer.members(setting, Arm.RANDOM)
    pair, random, permuted = (
        answer._libraries(setting, arm, kinds)
        for arm in (Arm.PAIR, Arm.RANDOM, Arm.PERMUTED)
    )
    for other in (random, permuted):
        same = jax.tree.map(lambda x, y: bool((x == y).all()), pair, other)
        assert not all(jax.tree.leaves(same))
        shapes = [jax.tree.map(lambda x: x.shape, x) for x in (pair, other)]
        assert shapes[0] == shapes[1]


def test_a_method_that_cannot_combine_an_arm_says_why(setting):
    three = answer.answer(setting, Arm.THREE, Method.SLERP)
    assert tuple(three.items.columns) == COLUMNS
    assert len(three.items) == 0
    assert "two experts" in three.notes["unavailable"]


def test_full_fine_tuning_asks_its_copies(setting, monkeypatch):
    calls = []

    def finetuned(base, kinds, recipe):
        calls.append(kinds)
        return jax.tree.map(lambda x: jax.numpy.stack([x] * 3), base.params)

    monkeypatch.setattr(experts, "finetuned", finetuned)
    full = answer.answer(setting, Arm.FULL, Method.NONE).items
    plain = answer.answer(setting, Arm.BASE, Method.NONE).items
    assert [len(kind.skills) for kind in calls[0]] == [2, 2, 2]
    assert (full["predicted"] == plain["predicted"]).mean() > 0.98


def test_problems_are_asked_in_the_template_of_the_regime(setting, monkeypatch):
    seen = []

    def of_params(model, vocab, params, asked, stacked):
        seen.append(asked.tokens[..., :-1].max())
        first = asked.tokens[asked.mask].reshape(-1)
        seen.append(set(first[first >= vocab.formats]) & {vocab.formats + 1})
        return np.full((*asked.tokens.shape[:2], 10), vocab.pad)

    monkeypatch.setattr(answer.solving, "of_params", of_params)
    other = dataclasses.replace(setting.regime, asked=worlds.OTHER)
    answer.answer(setting, Arm.BASE, Method.NONE)
    answer.answer(setting._replace(regime=other), Arm.BASE, Method.NONE)
    assert not seen[1]
    assert seen[3]
