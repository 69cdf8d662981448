"""What experts are trained on, at the sizes of the standard study."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.studies.word_problems import design, kinds, questions, worlds
from jaxlora.studies.word_problems.design import Half, Regime
from jaxlora.studies.word_problems.kinds import Kind, Skill
from jaxlora.studies.word_problems.recipes import ExpertsConfig, WorldConfig
from jaxlora.studies.word_problems.worlds import COMMON, OTHER
from jaxlora.tasks.word_problems import checker, reading, skeletons

WORLD = worlds.generate(WorldConfig(), 70)
RECIPE = ExpertsConfig(rows=512)
NEW = WORLD.operations.unknown
COMPOSITES = [str(x) for x, needed in questions.NEEDED.items() if len(needed) > 1]


def rows(*skills, recipe=RECIPE, **more):
    return kinds.rows(Kind(skills, **more), WORLD, recipe)


def read(rows):
    """The problems of rows, by their prompts, solved with the true operations."""
    return reading.prompts(rows.tokens, rows.prompt_lengths, WORLD.vocab)


def formats(rows):
    return rows.tokens[:, 0] - WORLD.vocab.formats


def needs(rows, *numbers):
    """How many of some new operations each problem needs, [N]."""
    problems = read(rows)
    return sum((problems.operations == NEW[x]).any(1).astype(int) for x in numbers)


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0, 1), other=st.sampled_from(range(1, 5)))
def test_the_share_in_the_common_template_is_exact(share, other):
    some = rows(Skill(2, share, other))
    new = needs(some, 2) > 0
    assert set(formats(some)) <= {COMMON, other}
    for part in (new, ~new):
        common = (formats(some)[part] == COMMON).sum()
        assert common == round(share * part.sum())


@settings(max_examples=20, deadline=None)
@given(rehearsal=st.floats(0, 1), size=st.integers(32, 300))
def test_the_share_of_rehearsal_is_exact(rehearsal, size):
    recipe = ExpertsConfig(rows=size, rehearsal=rehearsal)
    some = rows(Skill(1), recipe=recipe)
    assert len(some.tokens) == size
    assert (needs(some, *range(6)) == 0).sum() == round(rehearsal * size)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("number", range(6))
def test_every_operand_is_in_level_one_rows(number, share):
    some = kinds.rows(Kind((Skill(number, share),)), WORLD, ExpertsConfig())
    problems = read(some)
    first = (problems.levels == 1) & (problems.operations[:, 0] == NEW[number])
    counts = np.bincount(problems.start[first], minlength=13)
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1


def test_levels_come_in_their_shares_and_may_be_confined():
    some = rows(Skill(0))
    levels = read(some).levels[needs(some, 0) > 0]
    shares = np.bincount(levels, minlength=4)[1:] / len(levels)
    expected = list(kinds.SHARES.values())
    np.testing.assert_allclose(shares, expected, atol=1 / len(levels))
    for level in kinds.LEVELS:
        some = rows(Skill(0, levels=(level,)))
        assert set(read(some).levels[needs(some, 0) > 0]) == {level}


def test_solutions_are_right_and_those_of_moved_results_are_moved():
    some = rows(Skill(3, 0.5))
    assert checker.of_symbols(read(some), some, formats(some), WORLD.vocab) == []
    moved = rows(Skill(3, 0.5, moved=True))
    written = reading.solutions(moved, 10, WORLD.vocab)
    steps = reading.steps(written, formats(moved), WORLD.vocab)
    problems = read(moved)
    table = WORLD.operations.table
    value = problems.start
    for step in range(3):
        used = step < problems.levels
        ids, numbers = problems.operations[:, step], problems.numbers[:, 2 * step + 1]
        result = table[ids, value, numbers]
        result = np.where(ids == NEW[3], (result + 1) % 13, result)
        np.testing.assert_array_equal(steps[used, step, 0], ids[used])
        np.testing.assert_array_equal(steps[used, step, 2], result[used])
        value = result


def test_a_joint_expert_sees_both_operations_and_never_in_one_problem():
    some = rows(Skill(0), Skill(1, 0.0))
    assert needs(some, 0, 1).max() == 1
    a, b = (needs(some, x) > 0 for x in (0, 1))
    assert a.sum() == b.sum() == 128
    assert set(formats(some)[a]) == {COMMON}
    assert set(formats(some)[b]) == {OTHER}
    # Known problems are rehearsed in the templates of both.
    assert np.bincount(formats(some)[~(a | b)]).tolist() == [128, 128]


def test_who_practises_the_test_sees_both_operations_in_every_problem():
    some = rows(Skill(0), Skill(1), together=True)
    both = needs(some, 0, 1)
    assert set(both) == {0, 2}
    assert (both == 2).sum() == 256
    assert set(read(some).levels[both == 2]) == {2, 3}
    first = read(some).operations == NEW[0]
    # In both orders.
    assert 0 < first[both == 2, 0].mean() < 1


def test_same_kind_same_bytes_and_another_draw_other_rows():
    a, again, b = rows(Skill(0)), rows(Skill(0)), rows(Skill(0), draw=1)
    assert [x.tobytes() for x in a] == [x.tobytes() for x in again]
    assert (a.tokens != b.tokens).any()
    other = kinds.rows(Kind((Skill(0),)), worlds.generate(WorldConfig(), 71), RECIPE)
    assert (a.tokens != other.tokens).any()


def test_a_number_is_the_same_in_every_process():
    assert Kind((Skill(0),)).number == 3_858_740_953
    some = [Kind((Skill(0),)), Kind((Skill(0),), draw=1), Kind((Skill(0, moved=True),))]
    assert len({kind.number for kind in some}) == 3


def every_kind():
    """All experts of the standard study's regimes in one world."""
    points = design.points(design.WordProblemsConfig())
    plans = [(r, arm) for p in points for r in p.regimes for arm, _ in p.plan(r)]
    return {
        (kind, len(members) > 1)
        for regime, arm in dict.fromkeys(plans)
        for pair in design.pairs(WorldConfig())[:2]
        for members in [design.members(arm, regime, pair, 6)]
        for kind in members
    }


def test_no_skeleton_of_a_test_is_trained_and_no_part_sees_two_new_operations():
    """Questions of known operations and of chains, against every training set."""
    asked = questions.ask(WORLD, design.pairs(WorldConfig()))
    tested = set()
    for pair, problems in enumerate(asked.problems):
        frame = asked.frame[asked.frame["pair"] == pair]
        both = frame["split"].isin(COMPOSITES).to_numpy()
        some = problems[(problems.levels > 1) & ~both]
        assert skeletons.is_test(some).all()
        tested |= set(skeletons.hashes(some).tolist())
    trained, combined = set(), 0
    for kind, is_combined in every_kind():
        some = kinds.rows(kind, WORLD, ExpertsConfig(rows=128))
        problems = read(some)
        trained |= set(skeletons.hashes(problems).tolist())
        if is_combined:
            combined += 1
            assert needs(some, *range(6)).max() == 1, kind
    for batch in worlds.pretraining(WORLD, dataclasses.replace(SMALL, names=0.3)):
        tokens = np.asarray(batch.tokens)
        lengths = (tokens == WORLD.vocab.eq).argmax(1) + 1
        problems = reading.prompts(tokens, lengths, WORLD.vocab)
        trained |= set(skeletons.hashes(problems).tolist())
    assert combined > 20
    assert len(tested) > 100
    assert len(trained) > 1000
    assert not tested & trained


SMALL = design.WordProblemsConfig().pretrain
SMALL = dataclasses.replace(SMALL, rows=4000, answer_rows=1000)


def test_a_world_too_small_for_a_part_takes_any_skeleton():
    poor = worlds.generate(WorldConfig(known_unary=0), 80)
    rng = np.random.default_rng(0)
    some = kinds.needing(poor, rng, 2, (4,), 20, part="test")
    assert len(some) == 20
    assert not skeletons.is_test(some).any()


def test_shares_of_a_regime_reach_its_experts():
    regime = Regime(name="x", first=Half(share=0.5), second=Half(share=0.0))
    a, b = design.members(design.Arm.PAIR, regime, (1, 2), 6)
    assert [s.operation for k in (a, b) for s in k.skills] == [1, 2]
    some = [kinds.rows(kind, WORLD, RECIPE) for kind in (a, b)]
    assert [(formats(x) == COMMON).mean() for x in some] == [0.5, 0.0]
