"""Questions and items, against logits written by hand: no model is trained here."""

import dataclasses

import numpy as np
import pytest

from jaxlora.evaluate.schema import Split
from jaxlora.evaluate.scoring import Answers
from jaxlora.studies.two_hop import items
from jaxlora.studies.two_hop.symbols import answer, questions
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.tasks.two_hop import experts, facts, world
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.facts import Fact, Facts
from jaxlora.tasks.two_hop.records import PAD, THINK, encode

SIZES = world.WorldConfig(entities=16, relations=6, pairs=1, people=3, context_rows=8)
FAMILIAR = 6
BIG = 5


def own_people(n: int):
    hop1 = [Fact(f"ann {i}", "wife", f"bo {i}") for i in range(n)]
    hop2 = [Fact(f"bo {i}", "city", f"rome {i}") for i in range(n)]
    return facts.people(Facts((*hop1, *hop2)), SIZES)


@pytest.fixture(scope="module")
def setting():
    """Groups of three people in five cells, and of five in F-OO (a facts file)."""
    made = world.generate(SIZES, 1, own_people(BIG))
    base = Base(1, None, None, made, 0, {})  # only its world is looked at
    groups = experts.groups(made)
    return made, groups, questions.ask(base, groups, FAMILIAR)


def words(made, row) -> list[str]:
    return [made.vocab.words[i] for i in row]


def test_prompts_are_those_of_the_people(setting):
    made, groups, asked = setting
    assert asked.people == BIG
    for g, group in enumerate(groups):
        n = group.size
        direct = np.asarray(asked.questions.direct[g])
        assert direct.shape == (3 * BIG + FAMILIAR, 3)
        for i in range(n):
            a, r1, r2 = group.two_hop[i].prompt
            b, c = group.two_hop[i].bridge, group.two_hop[i].answer[0]
            assert words(made, direct[i]) == [a, r1, PAD]
            assert words(made, direct[BIG + i]) == [b, r2, PAD]
            assert words(made, direct[2 * BIG + i]) == [a, r1, r2]
            written = words(made, asked.questions.written[g, i])
            assert written == [a, r1, r2, THINK, PAD]
            told = words(made, asked.questions.context[g, i])
            pair = [[a, r1, b], [b, r2, c]][:: -1 if i % 2 else 1]
            assert told == [*pair[0], *pair[1], a, r1, r2]


@pytest.mark.parametrize(("form", "one_hop"), [("next-token", 1), ("pad", 2)])
def test_answers_are_read_where_the_base_was_trained_to_give_them(form, one_hop):
    made = world.generate(dataclasses.replace(SIZES, form=form), 1)
    people = experts.groups(made)
    asked = questions.ask(Base(1, None, None, made, 0, {}), people, FAMILIAR)
    read, n = np.asarray(asked.questions.at), asked.people
    assert read.shape == asked.questions.direct.shape[:2]
    assert (read[:, : 2 * n] == one_hop).all()
    assert (read[:, 2 * n :] == 2).all()
    # The same rows that taught the facts: where their loss is, the answer is read.
    for g, group in enumerate(people):
        for i, facts_of in enumerate((group.hop1, group.hop2, group.two_hop)):
            where = encode(facts_of, made.vocab, 3).weights.argmax(-1)
            np.testing.assert_array_equal(read[g, i * n : i * n + group.size], where)


def test_familiar_queries_are_held_out_ones_with_their_answers(setting):
    made, groups, asked = setting
    known = {r.prompt: r.answer[0] for r in made.splits["held_out"]}
    assert asked.familiar == FAMILIAR
    assert asked.familiar_answers.shape == (len(groups), FAMILIAR)
    for g in range(len(groups)):
        kept = np.asarray(asked.questions.direct[g, 3 * BIG :])
        prompts = [tuple(words(made, row)) for row in kept]
        assert len(set(prompts)) == FAMILIAR
        answers = words(made, asked.familiar_answers[g])
        assert [known[prompt] for prompt in prompts] == answers


def test_pairs_of_a_cell_share_no_familiar_query_and_cells_share_all():
    sizes = dataclasses.replace(SIZES, entities=24, relations=8, pairs=2)
    made = world.generate(sizes, 2)
    groups = experts.groups(made)
    asked = questions.ask(Base(2, None, None, made, 0, {}), groups, 4)
    kept: dict[int, set] = {0: set(), 1: set()}
    for g, group in enumerate(groups):
        rows = np.asarray(asked.questions.direct[g, -asked.familiar :])
        kept[group.pair] |= {tuple(row) for row in rows.tolist()}
    assert asked.familiar == 4
    assert len(kept[0]) == len(kept[1]) == 4
    assert not kept[0] & kept[1]


def test_keys_hold_answer_bridge_and_the_answer_of_the_next(setting):
    made, groups, asked = setting
    for group, keys in zip(groups, asked.keys, strict=True):
        key = keys[Split.TWO_HOP]
        tails = [r.answer[0] for r in group.two_hop]
        assert words(made, key.answer) == tails
        assert words(made, key.bridge) == [r.bridge for r in group.two_hop]
        assert words(made, key.counterfactual) == tails[1:] + tails[:1]
        assert keys[Split.WRITTEN] is key
        assert keys[Split.CONTEXT] is key
        for split, hop in ((Split.HOP1, group.hop1), (Split.HOP2, group.hop2)):
            assert words(made, keys[split].answer) == [r.answer[0] for r in hop]
            assert (keys[split].bridge == -1).all()


def test_r2_of_a_is_what_the_base_or_the_expert_was_taught_or_nothing(setting):
    made, groups, asked = setting
    base = {r.prompt: r.answer[0] for r in made.splits["one_hop"]}
    seen = set()
    for group, keys in zip(groups, asked.keys, strict=True):
        known = base | {r.prompt: r.answer[0] for r in group.hop2}
        for record, token in zip(
            group.two_hop, keys[Split.TWO_HOP].relation2_of_a, strict=True
        ):
            expected = known.get((record.prompt[0], record.prompt[2]))
            got = None if token == -1 else made.vocab.words[token]
            assert got == expected
            seen.add((group.cell.familiarity, got is None))
    assert {("R", False), ("H", True), ("F", True)} <= seen


def says(setting, **said) -> Answers:
    """Logits that are 1 at the tokens said, 0.25 at <think>, and 0 elsewhere.

    Args:
      setting: world, groups and questions.
      **said: for each kind of question, a function from (group number, key) to tokens.
    """
    made, groups, asked = setting
    V = len(made.vocab.words)
    G = len(groups)
    nobody = made.vocab.ids[THINK]
    direct = np.zeros((G, 3 * BIG + FAMILIAR, V), np.float32)
    written, context = np.zeros((2, G, BIG, V), np.float32)
    for array in (direct, written, context):
        array[..., nobody] = 0.25
    bridge = np.full((G, BIG), nobody, np.int32)
    places = {
        "hop1": (Split.HOP1, direct, 0),
        "hop2": (Split.HOP2, direct, BIG),
        "two_hop": (Split.TWO_HOP, direct, 2 * BIG),
        "written": (Split.WRITTEN, written, 0),
        "context": (Split.CONTEXT, context, 0),
    }
    for g, group in enumerate(groups):
        # Padding of small groups shouts: it must not be read.
        for array in (written, context):
            array[g, group.size :, 0] = 9
        for start in (0, BIG, 2 * BIG):
            direct[g, start + group.size : start + BIG, 0] = 9
        for name, (split, array, start) in places.items():
            if name in said:
                tokens = said[name](asked.keys[g][split])
                array[g, start + np.arange(group.size), tokens] = 1
        if "bridge" in said:
            bridge[g, : group.size] = said["bridge"](asked.keys[g][Split.TWO_HOP])
        if "familiar" in said:
            where = 3 * BIG + np.arange(FAMILIAR)
            direct[g, where, said["familiar"](asked.familiar_answers[g])] = 1
    return Answers(direct, bridge, written, context)


def collected(setting, old=None, **said):
    return answer.collect(says(setting, **said), setting[2], old)


def right(key):
    return key.answer


def of(found, split: Split):
    return found[found["split"] == str(split)]


def test_one_line_for_each_question(setting):
    _, groups, _ = setting
    found = collected(setting, two_hop=right)
    assert tuple(found.columns) == items.COLUMNS
    people = sum(group.size for group in groups)
    assert people == 5 * 3 + BIG
    for split in (*questions.PEOPLE_SPLITS, Split.WRITTEN_BRIDGE):
        assert len(of(found, split)) == people
    assert len(of(found, Split.FAMILIAR_TWO_HOP)) == FAMILIAR * len(groups)
    own = of(found, Split.TWO_HOP)
    assert own[own["cell"] == str(Cell.F_OO)]["person"].tolist() == list(range(BIG))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("hop1", Split.HOP1),
        ("hop2", Split.HOP2),
        ("two_hop", Split.TWO_HOP),
        ("written", Split.WRITTEN),
        ("context", Split.CONTEXT),
    ],
)
def test_a_right_answer_counts_where_it_was_given(setting, name, split):
    found = collected(setting, **{name: right})
    assert (of(found, split)["correct"] == 1).all()
    assert (of(found, split)["error"] == 0).all()
    assert (of(found, split)["rank"] == 1).all()
    others = found[(found["split"] != str(split))]
    assert not others["correct"].any()


def test_bridge_and_familiar_answers_are_compared_with_their_own_keys(setting):
    _, _, asked = setting
    found = collected(
        setting, bridge=lambda key: key.bridge, familiar=lambda answers: answers
    )
    assert (of(found, Split.WRITTEN_BRIDGE)["correct"] == 1).all()
    assert (of(found, Split.FAMILIAR_TWO_HOP)["correct"] == 1).all()
    wrong = collected(setting, familiar=lambda answers: (answers + 1) % 16)
    assert not of(wrong, Split.FAMILIAR_TWO_HOP)["correct"].any()
    said = of(found, Split.FAMILIAR_TWO_HOP)["predicted"].tolist()
    assert said == asked.familiar_answers.ravel().tolist()


def test_the_answer_of_the_next_person_is_counterfactual(setting):
    found = of(
        collected(setting, two_hop=lambda key: key.counterfactual), Split.TWO_HOP
    )
    assert not found["correct"].any()
    assert (found["counterfactual"] == 1).all()
    # Somebody else's answer always: shuffled among n - 1 others, one is right.
    sizes = found.groupby(["cell", "pair"])["person"].transform("size")
    np.testing.assert_allclose(found["chance"].astype(float), 1 / (sizes - 1))
    assert of(collected(setting, two_hop=right), Split.TWO_HOP)["chance"].max() == 0


def test_errors_are_told_apart_in_their_order(setting):
    made, _, _ = setting
    other = made.vocab.ids[THINK]  # nobody's answer or bridge
    old = items.old_answers(collected(setting, two_hop=lambda key: other))

    def codes(said, **more):
        return of(collected(setting, two_hop=said, **more), Split.TWO_HOP)["error"]

    assert (codes(right) == 0).all()
    assert (codes(lambda key: key.bridge) == 1).all()
    assert (codes(lambda key: other) == 4).all()
    assert (codes(lambda key: other, old=old) == 3).all()
    said = codes(
        lambda key: np.where(key.relation2_of_a < 0, other, key.relation2_of_a)
    )
    assert set(said) <= {0, 1, 2, 4}
    assert (said == 2).sum() >= 3


def test_old_answers_are_looked_up_by_cell_pair_and_split(setting):
    old = items.old_answers(collected(setting, hop1=right, two_hop=lambda k: k.bridge))
    found = collected(
        setting, old=old, hop1=lambda k: k.answer, two_hop=lambda k: k.bridge
    )
    # A right answer is no old answer, a bridge is a bridge before it is old.
    assert (of(found, Split.HOP1)["error"] == 0).all()
    assert (of(found, Split.TWO_HOP)["error"] == 1).all()


def test_loss_and_gap_follow_the_logits(setting):
    made, groups, _ = setting
    V = len(made.vocab.words)
    found = of(collected(setting, two_hop=right), Split.TWO_HOP)
    total = np.log(np.e + np.exp(0.25) + V - 2)
    np.testing.assert_allclose(found["loss"].astype(float), total - 1, rtol=1e-6)
    np.testing.assert_allclose(found["gap"].astype(float), -1, rtol=1e-6)
    nothing = of(collected(setting), Split.TWO_HOP)
    total = np.log(np.exp(0.25) + V - 1)
    np.testing.assert_allclose(nothing["loss"].astype(float), total, rtol=1e-6)
    np.testing.assert_allclose(nothing["gap"].astype(float), 0, atol=1e-6)
    sizes = {str(group.cell): group.size for group in groups}
    assert nothing["rank"].tolist() == [sizes[cell] for cell in nothing["cell"]]


def test_covered_is_that_of_each_person():
    made = world.generate(dataclasses.replace(SIZES, coverage=0.5), 4)
    base = Base(4, None, None, made, 0, {})
    groups = experts.groups(made)
    asked = questions.ask(base, groups, 2)
    V = len(made.vocab.words)
    answers = Answers(
        np.zeros((len(groups), 3 * asked.people + 2, V)),
        np.zeros((len(groups), asked.people), np.int32),
        *np.zeros((2, len(groups), asked.people, V)),
    )
    found = of(answer.collect(answers, asked, None), Split.TWO_HOP)
    expected = [record.covered for group in groups for record in group.two_hop]
    assert found["covered"].tolist() == expected
    assert len(set(expected)) == 2


def test_with_ties_nobody_has_a_counterfactual_answer():
    """Two of five people live in one city: whose answer it is cannot be told."""
    given = own_people(BIG)
    last = {given[-1].answer[0]: given[-4].answer[0]}
    tied = [
        dataclasses.replace(r, answer=tuple(last.get(x, x) for x in r.answer))
        for r in given
    ]
    made = world.generate(SIZES, 1, tied)
    groups = experts.groups(made)
    asked = questions.ask(Base(1, None, None, made, 0, {}), groups, FAMILIAR)
    for group, keys in zip(groups, asked.keys, strict=True):
        nobody = (keys[Split.TWO_HOP].counterfactual == -1).all()
        assert nobody == (group.cell is Cell.F_OO)
