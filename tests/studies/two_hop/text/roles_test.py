"""Roles come from flags or from what adapters answer; what is left out is listed."""

import dataclasses

import pytest

from jaxlora.evaluate.schema import Arm
from jaxlora.studies.two_hop.arms import MEMBERS
from jaxlora.studies.two_hop.text import roles
from jaxlora.studies.two_hop.text.config import TextConfig
from jaxlora.studies.two_hop.text.roles import Skill
from jaxlora.tasks.two_hop.experts import Expert

SKILLS = {
    "first": Skill(1.0, 0.1, 0.0),
    "second": Skill(0.2, 0.95, 0.1),
    "both": Skill(0.95, 0.96, 0.1),
    "answers": Skill(0.0, 0.3, 1.0),
    "nothing": Skill(0.0, 0.0, 0.0),
}


def config(*names, **flags):
    return TextConfig(adapter=names, facts="facts.jsonl", **flags)


def some(*names):
    return {name: SKILLS[name] for name in names}


def test_roles_are_what_adapters_answer():
    found = roles.roles_of(config(*SKILLS), SKILLS)
    assert found.of == {
        Expert.HOP1: "first",
        Expert.HOP2: "second",
        Expert.JOINT: "both",
        Expert.TARGET: "answers",
    }
    assert found.unused == ("nothing",)
    assert found.how == "hop1 measured; hop2 measured"


def test_two_adapters_are_the_two_hops_even_if_one_holds_both():
    names = ("both", "second")
    found = roles.roles_of(config(*names), some(*names))
    assert found.of == {Expert.HOP1: "both", Expert.HOP2: "second"}


def test_flags_outdo_what_was_measured():
    flags = {"hop1": "second", "target": "nothing"}
    found = roles.roles_of(config(*SKILLS, **flags), SKILLS)
    assert found.of[Expert.HOP1] == "second"
    assert found.of[Expert.TARGET] == "nothing"
    assert found.of[Expert.HOP2] == "answers"
    assert "hop1 by flag" in found.how
    assert "hop2 measured" in found.how


def test_an_adapter_below_the_criterion_has_no_role():
    names = ("first", "second", "nothing")
    found = roles.roles_of(config(*names), some(*names))
    assert set(found.of) == {Expert.HOP1, Expert.HOP2}
    assert found.unused == ("nothing",)


def test_a_flag_for_the_target_leaves_two_for_the_hops():
    names = ("both", "second", "answers")
    found = roles.roles_of(config(*names, target="answers"), some(*names))
    assert found.of[Expert.HOP1] == "both"
    assert found.of[Expert.HOP2] == "second"
    assert Expert.JOINT not in found.of


@pytest.mark.parametrize(
    "present",
    [
        {Expert.HOP1, Expert.HOP2},
        {Expert.HOP1, Expert.HOP2, Expert.TARGET, Expert.JOINT},
    ],
)
def test_every_library_is_run_or_listed(present):
    found = roles.left_out(config("a", "b"), present)
    listed = {left["what"] for left in found}
    assert str(Arm.FULL) in listed
    assert "the verdicts composes and retrieves" in listed
    for library, members in MEMBERS.items():
        assert (str(library) in listed) == (not set(members) <= present)
    assert all(left["why"] for left in found)


def test_what_is_switched_off_is_listed():
    full = TextConfig()
    off = dataclasses.replace(
        full, ask=dataclasses.replace(full.ask, generate=False, written=False)
    )
    everything = {left["what"] for left in roles.left_out(full, set(Expert))}
    assert everything == {"full fine-tuning", "method oracle"}
    less = {left["what"] for left in roles.left_out(off, set(Expert))}
    assert less - everything == {"generation", "written bridge"}
