"""Which arms are asked of which regimes, and what their experts are trained on."""

import dataclasses

import pytest

from jaxlora.evaluate.schema import Arm, Method
from jaxlora.studies.word_problems import design, protocol
from jaxlora.studies.word_problems.config import PRESETS, WordProblemsConfig
from jaxlora.studies.word_problems.design import Half, Regime
from jaxlora.studies.word_problems.kinds import Kind, Skill
from jaxlora.studies.word_problems.recipes import WorldConfig

STANDARD = PRESETS["standard"]
HEADLINE, *OTHERS = design.points(STANDARD)
DIAL = design.overlap(0.25)
A, B = Skill(0), Skill(1, 0.25)


def members(arm, regime=DIAL, pair=(0, 1), count=6):
    return design.members(arm, regime, pair, count)


def moved(skill):
    return dataclasses.replace(skill, moved=True)


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        (Arm.EXPERT_A, [Kind((A,))]),
        (Arm.EXPERT_B, [Kind((B,))]),
        (Arm.PAIR, [Kind((A,)), Kind((B,))]),
        (Arm.RANDOM, [Kind((A,)), Kind((B,))]),
        (Arm.PERMUTED, [Kind((A,)), Kind((B,))]),
        (Arm.JOINT, [Kind((A, B))]),
        (Arm.FULL, [Kind((A, B))]),
        (Arm.PRACTISED, [Kind((A, B), together=True)]),
        (Arm.PRACTISED_OTHERS, [Kind((Skill(2), Skill(3)), together=True)]),
        (Arm.SHUFFLED, [Kind((moved(A),)), Kind((moved(B),))]),
        (Arm.COUNTERFACTUAL_A, [Kind((moved(A),)), Kind((B,))]),
        (Arm.COUNTERFACTUAL_B, [Kind((A,)), Kind((moved(B),))]),
        (Arm.SAME_DATA, [Kind((A,)), Kind((A,), draw=1)]),
        (Arm.THREE, [Kind((A,)), Kind((B,)), Kind((Skill(2),))]),
        (Arm.HARD, [Kind((Skill(0, levels=(3,)),))]),
    ],
)
def test_members_of_an_arm(arm, expected):
    assert members(arm) == tuple(expected)


def test_more_experts_are_those_that_follow_in_the_ring():
    some = [members(arm, pair=(4, 5)) for arm in design.SIZES]
    numbers = [[k.skills[0].operation for k in kinds] for kinds in some]
    assert numbers == [[4, 5, 0], [4, 5, 0, 1], [4, 5, 0, 1, 2, 3]]
    # The second of the pair alone is trained on other rows.
    assert [k.skills[0].share for k in some[2]] == [1, 0.25, 1, 1, 1, 1]


def test_experts_of_one_operation_at_two_levels():
    ladder = design.levels()[-1]
    easy, medium = members(Arm.PAIR, ladder)
    assert easy == Kind((Skill(0, levels=(1,)),))
    assert medium == Kind((Skill(0, levels=(2,)),))
    asked = [arm for arm, _ in OTHERS[0].plan(ladder)]
    assert Arm.HARD in asked
    assert Arm.JOINT not in asked


def test_pairs_are_a_ring():
    some = design.pairs(WorldConfig(new=5))
    assert sorted(a for a, _ in some) == sorted(b for _, b in some) == [*range(5)]
    assert all(a != b for a, b in some)


def test_the_headline_is_the_dial_with_every_control():
    assert HEADLINE.name == "headline"
    assert HEADLINE.seeds == (70, 71, 72)
    shares = [regime.second.share for regime in HEADLINE.regimes]
    assert shares == sorted(STANDARD.overlaps, reverse=True)
    for regime in HEADLINE.regimes:
        assert regime.first == Half()
        plan = list(HEADLINE.plan(regime))
        assert len(plan) == len(set(plan))
        for method in design.JUDGED:
            asked = {arm for arm, how in plan if how is method}
            assert asked == {Arm.PAIR, *design.CONTROLS}
        alone = {arm for arm, how in plan if how is Method.NONE}
        more = {Arm.FULL, Arm.PRACTISED, Arm.PRACTISED_OTHERS}
        usual = {Arm.EXPERT_A, Arm.EXPERT_B, Arm.JOINT}
        assert alone == (usual | more if regime.full else usual)
    assert [r.full for r in HEADLINE.regimes] == [True, False, False, False]


def test_every_axis_may_be_left_out():
    names = [point.name for point in OTHERS]
    assert names.count("coverage") == 2
    assert {"axes", "templates", "answers", "leaderboard"} < set(names)
    nothing = dataclasses.replace(STANDARD, axes=(), coverages=(), ranked=())
    assert design.points(nothing) == (HEADLINE,)
    only = dataclasses.replace(nothing, axes=("experts",), seeds=0)
    assert [p.name for p in design.points(only)] == ["axes"]
    assert all(set(p.seeds) == {80} for p in OTHERS)


def test_regimes_and_points_are_told_apart_by_their_conditions():
    for config in PRESETS.values():
        every = [
            p.condition + r.condition for p in design.points(config) for r in p.regimes
        ]
        assert len(set(map(str, every))) == len(every)


def test_libraries_of_more_experts_are_asked_of_plain_merges():
    point = next(p for p in OTHERS if p.name == "axes")
    regime = next(r for r in point.regimes if r.sizes)
    plan = list(point.plan(regime))
    for arm in design.SIZES:
        assert {how for x, how in plan if x is arm} == set(design.PLAIN)


def test_a_small_world_has_no_arm_that_needs_more_operations():
    world = WorldConfig(new=3)
    point = dataclasses.replace(HEADLINE, world=world)
    plan = list(point.plan(Regime(name="x", full=True, sizes=True)))
    asked = {arm for arm, _ in plan}
    assert Arm.THREE in asked
    assert not asked & {Arm.FOUR, Arm.SIX, Arm.PRACTISED_OTHERS}
    for arm in asked - {Arm.FULL}:
        for kind in members(arm, pair=(2, 0), count=3):
            operations = [skill.operation for skill in kind.skills]
            assert len(set(operations)) == len(operations)


def test_all_experts_of_a_point_are_trained_once():
    every = protocol.needed(HEADLINE)
    assert len(set(every)) == len(every)
    wanted = {
        kind
        for regime in HEADLINE.regimes
        for arm, _ in HEADLINE.plan(regime)
        for pair in design.pairs(HEADLINE.world)
        for kind in members(arm, regime, pair)
    }
    assert set(every) == wanted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overlaps": (0.5, 1.5)}, r"overlaps has 1.5, expected shares in \[0, 1\]"),
        ({"methods": ("mean", "oracle")}, "The oracle routes by labels"),
        ({"ranked": ("oracle",)}, "The oracle routes by labels"),
        ({"seeds": 0, "map_seeds": 0}, "there is nothing to ask"),
        ({"methods": ("mean", "mean")}, "methods"),
        ({"methods": ("median",)}, "median"),
        ({"axes": ("shapes",)}, "shapes"),
        ({"resamples": 0}, "resamples"),
        ({"seeds": -1}, "seeds"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(ValueError, match=message):
        WordProblemsConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"new": 2}, "new"),
        ({"levels": 2}, "levels"),
        ({"templates": 1}, "templates"),
        ({"templates": 6}, "templates is 6, expected 2 to 5"),
    ],
)
def test_bad_worlds(changes, message):
    with pytest.raises(ValueError, match=message):
        WorldConfig(**changes)
