"""Experts, and the systems that are made of them."""

import pytest

from jaxlora.evaluate.schema import Arm, Method
from jaxlora.studies.word_problems.text import design
from jaxlora.studies.word_problems.text.config import AskConfig, ProblemsConfig
from jaxlora.studies.word_problems.text.design import Expert, Regime

CONFIG = ProblemsConfig()
PLAIN, BOTH = Regime(("plain",)), Regime(("plain", "python"))


def test_there_are_four_experts_a_format_and_one_of_each_two():
    every = design.experts(CONFIG)
    assert len(every) == len(set(every)) == 4 * 3 + 3
    assert len(design.experts(ProblemsConfig(formats=("plain",)))) == 4
    assert len({x.name for x in every}) == 15


def test_combinations_differ_in_levels_or_in_formats():
    a, b = design.members(PLAIN, Arm.PAIR)
    assert (a.levels, b.levels) == (("easy",), ("medium",))
    assert a.formats == b.formats == ("plain",)
    a, b = design.members(BOTH, Arm.PAIR)
    assert a.levels == b.levels == ("easy", "medium")
    assert (a.formats, b.formats) == (("plain",), ("python",))
    assert design.members(BOTH, Arm.RANDOM) == (a, b)


def test_no_combined_expert_learns_the_hard_level():
    for regime in design.regimes(CONFIG):
        for arm, _ in design.plan(CONFIG, regime):
            levels = {y for x in design.members(regime, arm) for y in x.levels}
            assert ("hard" in levels) == (arm is Arm.HARD)


def test_the_joint_expert_learns_what_both_do():
    for regime in (PLAIN, BOTH):
        (joint,) = design.members(regime, Arm.JOINT)
        a, b = design.members(regime, Arm.PAIR)
        assert set(joint.levels) == {*a.levels, *b.levels}
        assert set(joint.formats) == {*a.formats, *b.formats}


def test_the_plan_has_each_system_once_and_a_control_for_each_method():
    plan = list(design.plan(CONFIG, PLAIN))
    assert len(plan) == len(set(plan))
    for method in map(Method, CONFIG.methods):
        assert {arm for arm, how in plan if how is method} == {Arm.PAIR, Arm.RANDOM}
    assert (Arm.FEW_SHOT, Method.NONE) in plan
    none = ProblemsConfig(ask=AskConfig(shots=0))
    assert (Arm.FEW_SHOT, Method.NONE) not in set(design.plan(none, PLAIN))


def test_experts_of_a_format_answered_as_joint_ones():
    for arm in (Arm.EXPERT_A, Arm.EXPERT_B):
        regime, same = design.same_as(BOTH, arm)
        assert design.members(regime, same) == design.members(BOTH, arm)
    assert design.same_as(PLAIN, Arm.EXPERT_A) == (PLAIN, Arm.EXPERT_A)
    assert design.same_as(BOTH, Arm.PAIR) == (BOTH, Arm.PAIR)


@pytest.mark.parametrize("arm", [Arm.BASE, Arm.FEW_SHOT])
def test_the_base_has_no_experts(arm):
    assert design.members(PLAIN, arm) == ()


def test_blocks_of_two_regimes_have_two_files(tmp_path):
    paths = {
        regime.block(0, arm, method).path(tmp_path)
        for regime in design.regimes(CONFIG)
        for arm, method in design.plan(CONFIG, regime)
    }
    counts = [len(list(design.plan(CONFIG, x))) for x in design.regimes(CONFIG)]
    assert len(paths) == sum(counts)


def test_names_say_levels_and_formats():
    assert Expert(("hard",), ("plain", "python")).name == "hard, plain + python"
