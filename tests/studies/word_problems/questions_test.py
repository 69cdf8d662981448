"""Questions about every pair, recomputed one by one by arithmetic on the table."""

import itertools

import numpy as np
import pytest

from jaxlora.evaluate.schema import Split
from jaxlora.studies.word_problems import design, questions, worlds
from jaxlora.studies.word_problems.recipes import WorldConfig
from jaxlora.tasks.word_problems import reading, skeletons

CONFIG = WorldConfig()
WORLD = worlds.generate(CONFIG, 70)
PAIRS = design.pairs(CONFIG)
NEW = WORLD.operations.unknown.tolist()


@pytest.fixture(scope="module")
def asked():
    return questions.ask(WORLD, PAIRS)


def solve(problem_ids, start, numbers, moved=()):
    """One chain, step by step; results of moved operations are moved on by one."""
    value = start
    for op, number in zip(problem_ids, numbers, strict=True):
        if op < 0:
            break
        value = int(WORLD.operations.table[op, value, number])
        value = (value + (op in moved)) % CONFIG.modulus
    return value


def chains(asked, m):
    problems = asked.problems[m]
    return zip(
        problems.operations.tolist(),
        problems.start.tolist(),
        problems.numbers[:, 1::2].tolist(),
        strict=True,
    )


def lines(asked, m):
    return asked.frame[asked.frame["pair"] == m]


def at_level_two(asked, m, split):
    some = lines(asked, m)
    return ((some["split"] == str(split)) & (some["level"] == 2)).to_numpy()


def test_answers_and_counterfactual_ones_by_hand(asked):
    for m, pair in enumerate(PAIRS):
        ops = [NEW[x] for x in pair]
        for q, chain in enumerate(chains(asked, m)):
            assert asked.answers[m, q] == solve(*chain)
            for side, op in enumerate(ops):
                assert asked.moved[side, m, q] == solve(*chain, moved=(op,))


def test_steps_are_those_of_the_chain(asked):
    for m in range(len(PAIRS)):
        for q, (ids, start, numbers) in enumerate(chains(asked, m)):
            value = start
            for s, op in enumerate(ids):
                if op < 0:
                    assert (asked.steps[m, q, s:] == -1).all()
                    break
                operand = WORLD.vocab.blank if op >= 2 else numbers[s]
                value = int(WORLD.operations.table[op, value, numbers[s]])
                assert asked.steps[m, q, s].tolist() == [op, operand, value]


@pytest.mark.parametrize("split", [Split.BOTH, Split.ANSWER_BOTH])
def test_every_operand_and_order_is_asked(asked, split):
    for m, pair in enumerate(PAIRS):
        some = asked.problems[m][at_level_two(asked, m, split)]
        got = [
            (*ids[:2], x)
            for ids, x in zip(
                some.operations.tolist(), some.start.tolist(), strict=True
            )
        ]
        orders = itertools.permutations([NEW[x] for x in pair])
        assert sorted(got) == sorted((*o, x) for o in orders for x in range(13))


def test_problems_need_what_their_split_says(asked):
    for m, pair in enumerate(PAIRS):
        ring = [NEW[(pair[0] + i) % CONFIG.new] for i in range(4)]
        rows = zip(lines(asked, m).itertuples(), chains(asked, m), strict=True)
        for line, (ids, _, _) in rows:
            needed = questions.NEEDED.get(Split(line.split), ())
            new = sorted(x for x in ids if x in NEW)
            assert new == sorted(ring[i] for i in needed), line
            assert sum(x >= 0 for x in ids) == line.level


def test_what_is_asked_at_which_level(asked):
    sizes = lines(asked, 0).groupby(["split", "level"]).size()
    same = [lines(asked, m)["split"].tolist() for m in range(len(PAIRS))]
    assert all(x == same[0] for x in same)
    assert sizes[str(Split.SKILL_A)].to_dict() == {1: 13}
    assert sizes[str(Split.BOTH)].to_dict() == {2: 26, 3: 52, 4: 52}
    assert sizes[str(Split.CHAIN_A)].to_dict() == {2: 26, 3: 26, 4: 26}
    assert sizes[str(Split.KNOWN)].to_dict() == {2: 26, 3: 26, 4: 26}
    assert sizes[str(Split.THREE_SKILLS)].to_dict() == {3: 52}
    assert sizes[str(Split.FOUR_SKILLS)].to_dict() == {4: 52}
    # All pairs of a seed together, at level 2.
    assert len(PAIRS) * sizes[str(Split.BOTH), 2] > 150


def test_a_small_world_asks_for_no_skills_that_it_has_not():
    config = WorldConfig(new=3, levels=3)
    few = questions.ask(worlds.generate(config, 70), design.pairs(config))
    assert str(Split.FOUR_SKILLS) not in set(few.frame["split"])
    assert few.frame["level"].max() == 3


def test_chains_and_known_problems_are_of_unseen_skeletons(asked):
    for m, problems in enumerate(asked.problems):
        unseen = lines(asked, m)["split"].isin(
            [str(x) for x in (Split.CHAIN_A, Split.CHAIN_B, Split.KNOWN)]
        )
        assert skeletons.is_test(problems[unseen.to_numpy()]).all()


@pytest.mark.parametrize("template", [worlds.COMMON, worlds.OTHER])
def test_prompts_say_the_problems_and_are_padded_on_the_left(asked, template):
    tokens, mask = questions.prompts(asked, WORLD, template)
    assert tokens.shape == (*asked.answers.shape, 3 + 2 * 4) == mask.shape
    assert (np.diff(mask.astype(int), axis=-1) >= 0).all()
    assert (tokens[~mask] == WORLD.vocab.pad).all()
    assert (tokens[..., -1] == WORLD.vocab.eq).all()
    for m, problems in enumerate(asked.problems):
        lengths = mask[m].sum(1)
        text = np.full_like(tokens[m], WORLD.vocab.pad)
        for q, n in enumerate(lengths):
            text[q, :n] = tokens[m, q, -n:]
        again = reading.prompts(text, lengths, WORLD.vocab)
        np.testing.assert_array_equal(again.operations, problems.operations)
        np.testing.assert_array_equal(again.start, problems.start)
        named = np.where(asked.direct, WORLD.vocab.answer_only, template)
        np.testing.assert_array_equal(text[:, 0] - WORLD.vocab.formats, named)


def test_lessons_are_problems_of_both_skills_with_their_solutions(asked):
    batch = questions.lessons(asked, WORLD, worlds.OTHER)
    assert batch.tokens.shape == (len(PAIRS), 26, 13)
    for m in range(len(PAIRS)):
        chosen = at_level_two(asked, m, Split.BOTH)
        written = np.asarray(batch.targets[m])[:, 6:]
        answers = reading.answers(written, worlds.OTHER, WORLD.vocab)
        np.testing.assert_array_equal(answers, asked.answers[m][chosen])


def test_same_seed_same_questions(asked):
    again = questions.ask(worlds.generate(CONFIG, 70), PAIRS)
    np.testing.assert_array_equal(asked.steps, again.steps)
    other = questions.ask(worlds.generate(CONFIG, 71), PAIRS)
    assert (asked.steps != other.steps).any()
    # A pair is asked the same whichever others are asked.
    alone = questions.ask(WORLD, PAIRS[2:3])
    np.testing.assert_array_equal(alone.steps[0], asked.steps[2])
