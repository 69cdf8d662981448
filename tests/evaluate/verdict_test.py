"""Every rule, its causes, and the order in which the rules are tried."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from jaxlora.evaluate.schema import Arm, Cell, Method
from jaxlora.evaluate.statistics import Interval, Paired
from jaxlora.evaluate.verdict import (
    Cause,
    Evidence,
    Ingredient,
    Label,
    PValues,
    Thresholds,
    adjust,
    decide,
    has_headroom,
)

T = Thresholds()
KEPT = Interval(1.0, 0.94, 1.0, 60)
LOST = Interval(0.7, 0.6, 0.8, 60)
NOTHING = Interval(0.02, 0.0, 0.06, 60)
HALF = Interval(0.4, 0.3, 0.5, 60)
WON = Paired(Interval(0.4, 0.3, 0.5, 60), 0.001)
TIED = Paired(Interval(0.0, -0.06, 0.06, 60), 1.0)


def evidence(**changes):
    """A combination that does nothing: *no transfer*, and the joint LoRA fails too."""
    settings = {
        "cell": Cell.R_OO,
        "arm": Arm.PAIR,
        "method": Method.MEAN,
        "base_ok": True,
        "expert_ok": True,
        "two_hop": NOTHING,
        "base_two_hop": NOTHING,
        "hops": {"hop 1": KEPT, "hop 2": KEPT},
        "chance": 0.05,
        "controls": {"base": TIED, "random": TIED},
        "target_saw_people": False,
        "counterfactual": {},
        "joint": NOTHING,
    }
    return Evidence(**(settings | changes))


BEATS = {"two_hop": HALF, "controls": {"base": WON, "random": WON}}
MOVES = {"counterfactual": {"counterfactual hop 1": HALF}}
ALONE = Ingredient("random", "counterfactual hop 1")
"""What is called random here is the expert of the new hop."""
LIKELIER = {"likelihood": {"base": WON, "random": WON}}

# Each rule's own conditions. Merged, all of them hold at once (but for pairs that
# exclude each other), so that only the order decides.
CONDITIONS = {
    Label.INVALID: {"base_ok": False},
    Label.PRESERVED: {"cell": Cell.R_II},
    Label.RETRIEVES: dict(**BEATS, target_saw_people=True),
    Label.COMPOSES: dict(**BEATS, **MOVES),
    Label.COMPOSES_WITH_BASE: {
        "two_hop": HALF,
        "controls": {"base": WON, "random": TIED},
        "ingredient": ALONE,
        **MOVES,
    },
    Label.LIKELIHOOD: LIKELIER,
    Label.NO_TRANSFER: {"two_hop": NOTHING},
    Label.NO_GAIN: {
        "two_hop": HALF,
        "controls": {"base": WON, "random": TIED},
        "alone": ("random",),
    },
}


@pytest.mark.parametrize("label", CONDITIONS)
def test_each_rule_alone(label):
    assert decide(evidence(**CONDITIONS[label]), T).label == label


# Who saw these people retrieves; likelihood transfer is what no accuracy separates.
EXCLUDE = (Label.COMPOSES, Label.COMPOSES_WITH_BASE, Label.LIKELIHOOD)
PAIRS = [
    (first, second)
    for first, second in itertools.combinations(CONDITIONS, 2)
    if not (first is Label.RETRIEVES and second in EXCLUDE)
    and (first, second) != (Label.COMPOSES, Label.LIKELIHOOD)
    # Above every control is above each expert alone.
    and (first not in (Label.RETRIEVES, Label.COMPOSES) or second is not Label.NO_GAIN)
]
# What switches a rule off, and leaves all others as they are.
OFF = {
    Label.INVALID: {"base_ok": True},
    Label.PRESERVED: {"cell": Cell.R_OO},
    Label.RETRIEVES: {"controls": {"base": TIED}},
    Label.COMPOSES: {"controls": {"base": WON, "random": TIED}},
    Label.COMPOSES_WITH_BASE: {"ingredient": None},
    Label.LIKELIHOOD: {"likelihood": {}},
    Label.NO_TRANSFER: {"two_hop": HALF},
}


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_of_two_rules_that_hold_the_first_wins(first, second):
    both = evidence(**(CONDITIONS[second] | CONDITIONS[first]))
    if first is Label.COMPOSES and second is Label.COMPOSES_WITH_BASE:
        both = dataclasses.replace(both, ingredient=ALONE)
    if second is Label.NO_TRANSFER:
        both = dataclasses.replace(both, two_hop=NOTHING)
    # The second rule must hold by itself, or the order would not matter.
    assert decide(dataclasses.replace(both, **OFF[first]), T).label == second
    assert decide(both, T).label == first


def test_the_enum_lists_the_order():
    assert list(CONDITIONS) == list(Label)[:-1]


def test_a_degraded_combination_that_beats_the_controls_composes_and_says_so():
    verdict = decide(evidence(**BEATS, **MOVES, hops={"hop 2": LOST}, joint=KEPT), T)
    assert verdict.label == Label.COMPOSES
    assert verdict.remarks == ("degrades: hop 2 0.70 [0.60, 0.80] is below 0.90",)


@pytest.mark.parametrize("hi", [0.89, 0.9])
def test_degrades_needs_the_whole_interval_below(hi):
    lost = {"hop 1": Interval(0.6, 0.5, hi, 60), "hop 2": KEPT}
    verdict = decide(evidence(hops=lost, joint=None), T)
    assert len(verdict.remarks) == (hi < 0.9)


@pytest.mark.parametrize(("joint", "there"), [(0.79, False), (0.8, True)])
def test_headroom_is_what_the_joint_lora_leaves(joint, there):
    joint = Interval(joint, 0.7, 0.9, 60)
    assert has_headroom(joint, T) == there
    remarks = decide(evidence(joint=joint), T).remarks
    assert remarks == (
        ()
        if there
        else ("no headroom: the joint LoRA has 0.79 [0.70, 0.90], below 0.80",)
    )
    assert decide(evidence(joint=None), T).remarks == ()
    assert has_headroom(joint, Thresholds(headroom=0.5))


def test_an_invalid_row_has_no_remarks():
    assert decide(evidence(expert_ok=False, hops={"hop 1": LOST}), T).remarks == ()


WITH_BASE = CONDITIONS[Label.COMPOSES_WITH_BASE]


@pytest.mark.parametrize(
    "change",
    [
        {"ingredient": None},
        {"controls": {"base": TIED, "random": TIED}},
        {"controls": {"base": None, "random": TIED}},
        {"controls": {"base": WON, "random": TIED, "permuted": TIED}},
        {"counterfactual": {}},
        {"counterfactual": {"counterfactual hop 1": NOTHING}},
        {"counterfactual": {"counterfactual hop 2": HALF}},
        {"target_saw_people": True},
        {"adjusted": PValues(1.0, 0.06, 1.0)},
    ],
    ids=str,
)
def test_composing_with_the_base_needs_all_of_its_evidence(change):
    verdict = decide(evidence(**(WITH_BASE | change)), T)
    assert verdict.label == Label.UNDECIDED


def test_the_ingredient_may_run_as_well_as_the_combination_or_not_at_all():
    for control in (TIED, None, Paired(Interval(-0.2, -0.3, -0.1, 60), 1.0)):
        controls = {"base": WON, "random": control}
        verdict = decide(evidence(**(WITH_BASE | {"controls": controls})), T)
        assert verdict.label == Label.COMPOSES_WITH_BASE
        assert "so random is no negative control" in verdict.reason
        assert "each of 1 negative controls" in verdict.reason


def test_an_ingredient_that_is_no_control_is_refused():
    with pytest.raises(ValueError, match="names the ingredient 'x', expected one of"):
        evidence(ingredient=Ingredient("x", "counterfactual hop 1"))


@pytest.mark.parametrize(
    "change",
    [
        {"likelihood": {}},
        {"likelihood": {"base": WON, "random": TIED}},
        {"likelihood": {"base": WON, "random": None}},
        {"adjusted": PValues(1.0, 1.0, 0.05)},
        {"target_saw_people": True},
    ],
    ids=str,
)
def test_likelihood_transfer_needs_all_of_its_evidence(change):
    assert decide(evidence(**(LIKELIER | change)), T).label == Label.NO_TRANSFER


def test_likelihood_transfer_is_where_the_first_choice_does_not_separate():
    verdict = decide(evidence(**LIKELIER, adjusted=PValues(1.0, 1.0, 0.04)), T)
    assert (verdict.label, verdict.cause) == (Label.LIKELIHOOD, Cause.NONE)
    assert "by at least 0.40 [0.30, 0.50] nats" in verdict.reason
    assert "not above control base" in verdict.reason
    # It separates, but no counterfactual expert moves the answer: something else.
    assert decide(evidence(**BEATS, **LIKELIER), T).label == Label.UNDECIDED


def test_criteria():
    base = decide(evidence(base_ok=False, expert_ok=False), T)
    expert = decide(evidence(expert_ok=False, joint=HALF), T)
    assert (base.label, base.cause) == (Label.INVALID, Cause.BASE)
    assert (expert.label, expert.cause) == (Label.INVALID, Cause.FINE_TUNING)


def test_preserved_compares_the_lower_bound_with_the_base():
    strong = {"cell": Cell.R_II, "base_two_hop": Interval(0.98, 0.93, 1, 60)}
    kept = decide(evidence(**strong, two_hop=Interval(0.95, 0.89, 0.99, 60)), T)
    assert (kept.label, kept.cause) == (Label.PRESERVED, Cause.NONE)
    low = decide(evidence(**strong, two_hop=Interval(0.95, 0.87, 0.99, 60)), T)
    assert low.label == Label.UNDECIDED
    other = dict(strong, cell=Cell.R_OI, two_hop=Interval(0.95, 0.89, 0.99, 60))
    assert decide(evidence(**other), T).label == Label.UNDECIDED


def test_preserving_what_the_base_never_had_is_put_down_to_the_base():
    verdict = decide(evidence(cell=Cell.R_II), T)
    assert (verdict.label, verdict.cause) == (Label.PRESERVED, Cause.BASE)
    assert "does not compose" in verdict.reason


@pytest.mark.parametrize("saw", [True, False])
def test_a_positive_verdict_needs_every_control(saw):
    positive = evidence(**BEATS, **MOVES, target_saw_people=saw)
    want = Label.RETRIEVES if saw else Label.COMPOSES
    verdict = decide(positive, T)
    assert (verdict.label, verdict.cause) == (want, Cause.NONE)
    touches = Paired(Interval(0.1, 0.0, 0.2, 60), 0.03)
    for other, why in (
        (TIED, "not above control random"),
        (touches, "not above control random"),
        (None, "could not run"),
    ):
        blocked = dataclasses.replace(positive, controls={"base": WON, "random": other})
        verdict = decide(blocked, T)
        assert verdict.label == Label.UNDECIDED
        assert why in verdict.reason


def test_composing_needs_counterfactual_experts_that_move_the_answer():
    assert decide(evidence(**BEATS), T).label == Label.UNDECIDED
    moved = {"counterfactual hop 1": HALF, "counterfactual hop 2": NOTHING}
    verdict = decide(evidence(**BEATS, counterfactual=moved), T)
    assert verdict.label == Label.UNDECIDED
    assert "counterfactual hop 2 moves it to 0.02" in verdict.reason


def test_no_transfer_needs_the_whole_interval_near_chance():
    edge = Interval(0.05, 0.0, 0.15, 60)
    assert decide(evidence(two_hop=edge), T).label == Label.NO_TRANSFER
    above = Interval(0.05, 0.0, 0.16, 60)
    assert decide(evidence(two_hop=above), T).label == Label.UNDECIDED


def test_the_cause_of_a_failure():
    failed, label = evidence(), Label.NO_TRANSFER
    for changes, cause in (
        ({"joint": HALF}, Cause.COMBINATION),
        ({"joint": HALF, "coverage": 0.0}, Cause.COMBINATION),
        ({"joint": NOTHING}, Cause.FINE_TUNING),
        ({"joint": NOTHING, "coverage": 1.0}, Cause.FINE_TUNING),
        ({"joint": NOTHING, "coverage": 0.25}, Cause.BASE),
        ({"joint": None}, Cause.NONE),
        # Composes only if the lower bound is above chance + margin.
        ({"joint": Interval(0.2, 0.15, 0.3, 60)}, Cause.FINE_TUNING),
        ({"joint": Interval(0.2, 0.16, 0.3, 60)}, Cause.COMBINATION),
    ):
        verdict = decide(dataclasses.replace(failed, **changes), T)
        assert (verdict.label, verdict.cause) == (label, cause), changes


@pytest.mark.parametrize("joint", [HALF, NOTHING, None])
@pytest.mark.parametrize("two_hop", [HALF, Interval(0.14, 0.08, 0.22, 60)])
def test_an_undecided_row_has_no_cause(joint, two_hop):
    verdict = decide(evidence(two_hop=two_hop, joint=joint, coverage=0.0), T)
    assert (verdict.label, verdict.cause) == (Label.UNDECIDED, Cause.NONE)


def test_without_cells_nothing_is_preserved():
    strong = {"base_two_hop": HALF, "two_hop": KEPT}
    assert decide(evidence(cell=Cell.R_II, **strong), T).label == Label.PRESERVED
    assert decide(evidence(cell=None, **strong), T).label == Label.UNDECIDED
    assert decide(evidence(cell=None), T).label == Label.NO_TRANSFER
    assert decide(evidence(cell=None, **BEATS, **MOVES), T).label == Label.COMPOSES


@pytest.mark.parametrize("label", list(CONDITIONS)[1:])
def test_a_sentence_says_what_was_asked(label):
    asked = "both skills, level 3"
    changes = CONDITIONS[label] | {"asked": asked}
    reason = decide(evidence(**changes), T).reason
    assert asked in reason
    assert "two-hop" not in reason


def test_a_sentence_says_why_it_is_no_retrieval():
    usual = decide(evidence(**BEATS, **MOVES), T).reason
    assert "; no A->C expert saw these people, and" in usual
    unseen = "no expert saw a problem that needs both"
    reason = decide(evidence(**BEATS, **MOVES, unseen=unseen), T).reason
    assert reason == usual.replace("no A->C expert saw these people", unseen)


def test_the_reason_is_a_sentence_with_its_numbers():
    assert decide(evidence(), T).reason == (
        "two-hop 0.02 [0.00, 0.06] is at most chance 0.05 + 0.10; kept: "
        "hop 1 1.00 [0.94, 1.00], hop 2 1.00 [0.94, 1.00]; the joint LoRA fails too "
        "(0.02 [0.00, 0.06])"
    )
    for changes in CONDITIONS.values():
        reason = decide(evidence(**changes), T).reason
        assert re.search(r"\d\.\d\d|criteri", reason), reason
        assert "\n" not in reason


def test_a_value_that_is_not_a_number_fulfils_no_rule():
    nan = Interval(np.nan, np.nan, np.nan, 60)
    worst = evidence(
        cell=Cell.R_II,
        two_hop=nan,
        base_two_hop=nan,
        hops={"hop 1": nan},
        controls={"base": Paired(nan, np.nan), "random": WON},
        likelihood={"base": Paired(nan, np.nan)},
        ingredient=ALONE,
        counterfactual={"counterfactual hop 1": nan},
        joint=None,
        chance=np.nan,
    )
    assert decide(worst, T).label == Label.UNDECIDED


def test_thresholds_are_used():
    positive = evidence(**BEATS, **MOVES, adjusted=PValues(0.04, 0.04, 0.04))
    assert decide(positive, T).label == Label.COMPOSES
    assert decide(positive, Thresholds(alpha=0.01)).label == Label.UNDECIDED
    assert decide(positive, Thresholds(chance_margin=0.5)).label == Label.NO_TRANSFER
    lost = evidence(hops={"hop 1": LOST}, joint=None)
    assert decide(lost, T).remarks
    assert not decide(lost, Thresholds(retention=0.5)).remarks
    weak = evidence(cell=Cell.R_II, base_two_hop=HALF)
    assert decide(weak, T).label == Label.NO_TRANSFER
    assert decide(weak, Thresholds(preserved_margin=0.5)).label == Label.PRESERVED
    uncovered = evidence(coverage=0.25)
    assert decide(uncovered, Thresholds(coverage=0.2)).cause == Cause.FINE_TUNING


@pytest.mark.parametrize("field", ["retention", "chance_margin", "alpha"])
def test_thresholds_are_shares(field):
    with pytest.raises(ValueError, match=f"Threshold {field} is 90"):
        Thresholds(**{field: 90})


@pytest.mark.parametrize("field", ["hops", "controls"])
def test_evidence_without_controls_or_hops_is_refused(field):
    with pytest.raises(ValueError, match=f"R-OO has no {field}"):
        evidence(**{field: {}})


def test_what_an_expert_gives_back_rests_on_no_hop():
    found = decide(evidence(target_saw_people=True, hops={}, joint=None), T)
    assert found.label == Label.NO_TRANSFER
    assert "kept" not in found.reason
    with pytest.raises(ValueError, match="R-OO has no controls"):
        evidence(target_saw_people=True, controls={})


def test_evidence_without_a_cell_is_refused_by_what_was_asked():
    with pytest.raises(ValueError, match="Evidence on both skills has no hops"):
        evidence(cell=None, asked="both skills", hops={})
    with pytest.raises(ValueError, match="Evidence on both skills names the ingredi"):
        evidence(cell=None, asked="both skills", ingredient=Ingredient("x", "y"))


def with_p(p, **changes):
    control = Paired(WON.difference, p)
    return evidence(
        **(BEATS | MOVES | {"controls": {"base": WON, "random": control}} | changes)
    )


def test_adjust_is_holm_within_cell_and_library():
    tried = [
        with_p(0.02),
        with_p(0.03, method=Method.SUM),
        with_p(0.04, cell=Cell.F_OO),
        with_p(0.04, arm=Arm.TRIPLE_OTHERS),
    ]
    adjusted = adjust(tried)
    p = [x.adjusted.accuracy for x in adjusted]
    assert p == pytest.approx([0.04, 0.04, 0.04, 0.04])
    assert [x.method for x in adjusted] == [x.method for x in tried]
    many = [with_p(0.02, method=method) for method in Method]
    assert all(decide(x, T).label == Label.COMPOSES for x in many)
    for x in adjust(many):
        verdict = decide(x, T)
        assert verdict.label == Label.UNDECIDED
        assert "Holm" in verdict.reason


def test_each_p_value_is_adjusted_in_its_own_family():
    def tried(p, method):
        gains = {"base": Paired(WON.difference, p / 10)}
        return with_p(p, method=method, ingredient=ALONE, likelihood=gains)

    first, second = adjust([tried(0.2, Method.MEAN), tried(0.3, Method.SUM)])
    assert first.adjusted == pytest.approx((0.4, 2 * WON.p, 0.04))
    assert second.adjusted == pytest.approx((0.4, 2 * WON.p, 0.04))
    assert decide(first, T).label == Label.COMPOSES_WITH_BASE


def test_the_p_value_of_a_method_is_its_worst_control():
    assert with_p(0.3).p_values == (0.3, 0.3, 1.0)
    assert with_p(0.3, ingredient=ALONE).p_values == (0.3, WON.p, 1.0)
    assert with_p(0.0001).p_values.accuracy == WON.p
    assert evidence(controls={"base": WON, "random": None}).p_values.accuracy == 1
    gains = {"base": WON, "random": Paired(WON.difference, 0.2)}
    assert evidence(likelihood=gains).p_values.likelihood == 0.2
