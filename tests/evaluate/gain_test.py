"""When an expert alone does as well, and how many people tell whether it does."""

import dataclasses

import pytest

from jaxlora.evaluate import gain
from jaxlora.evaluate.evidence import Evidence, Ingredient, Thresholds
from jaxlora.evaluate.schema import Arm, Cell, Method
from jaxlora.evaluate.statistics import Interval, Paired
from jaxlora.evaluate.verdict import Cause, Label, decide

T = Thresholds()
ALONE = ("A->B", "B->C")


def difference(lo, hi, n=90):
    return Paired(Interval((lo + hi) / 2, lo, hi, n), 0.5)


def evidence(first, second, cell=Cell.R_IO, base=(0.05, 0.35), **changes):
    """A combination at 0.2, far above chance, and its differences to the experts."""
    two_hop = Interval(0.2, 0.1, 0.3, 90)
    controls = {"base": difference(*base)}
    controls |= dict(zip(ALONE, (difference(*first), difference(*second)), strict=True))
    settings = {
        "cell": cell,
        "arm": Arm.PAIR,
        "method": Method.MEAN,
        "base_ok": True,
        "expert_ok": True,
        "two_hop": two_hop,
        "base_two_hop": two_hop,
        "hops": {"hop 1": two_hop},
        "chance": 0.05,
        "controls": controls,
        "target_saw_people": False,
        "counterfactual": {},
        "joint": two_hop,
        "alone": ALONE,
    }
    return Evidence(**(settings | changes))


def test_the_bound_is_the_margin_and_the_difference_may_be_to_either_expert():
    for first, second in (((-0.1, 0.1), (0.0, 0.3)), ((0.0, 0.3), (-0.1, 0.1))):
        verdict = decide(evidence(first, second), T)
        assert (verdict.label, verdict.cause) == (Label.NO_GAIN, Cause.NONE)
        name = ALONE[0 if first[1] <= 0.1 else 1]
        assert f"above {name} by 0.00 [-0.10, 0.10], at most 0.10" in verdict.reason
    assert decide(evidence((0.0, 0.101), (0.0, 0.3)), T).label == Label.UNDECIDED


def test_of_two_experts_the_one_that_is_beaten_least_is_named():
    found = gain.none(evidence((-0.2, 0.05), (-0.3, 0.02)), T)
    assert found is not None
    assert found[0] == "B->C"


def test_the_base_is_no_expert_and_where_it_knows_all_there_is_nothing_to_gain():
    assert gain.none(evidence((0, 0.3), (0, 0.3), base=(-0.3, 0.0)), T) is None
    assert gain.none(evidence((-0.2, 0.0), (-0.2, 0.0), Cell.R_II), T) is None


def test_an_expert_that_could_not_run_shows_nothing():
    e = evidence((0.0, 0.3), (-0.2, 0.0))
    blank = dataclasses.replace(e, controls=dict(e.controls) | {"B->C": None})
    assert gain.none(blank, T) is None


def test_what_is_undecided_says_how_many_people_would_decide():
    e = evidence((0, 0.3), (0, 0.3), Cell.R_OI, ingredient=Ingredient("A->B", "x"))
    (remark,) = [x for x in decide(e, T).remarks if x.startswith("needs")]
    # 0.15 on either side at 90 people; 80% power takes 2.04 times those of 50%.
    n = int(remark.split()[1])
    assert n == pytest.approx(90 * (0.15 / 0.1) ** 2 * 2.043, abs=1)
    assert "people: so many tell whether it beats A->B by 0.10" in remark
    assert not gain.needed(evidence((0, 0.3), (0, 0.3), Cell.R_OO), T)
