"""Verdicts and laws of items that are made up, against loops."""

import numpy as np
import pytest

from jaxlora.evaluate.schema import STEP_ERRORS, Arm, Method, Metric, Split
from jaxlora.evaluate.solutions import KINDS
from jaxlora.evaluate.verdict import Thresholds
from jaxlora.studies.harness.samples import Intervals
from jaxlora.studies.word_problems import judging
from jaxlora.studies.word_problems.judging import Rules
from word_problem_items import PAIRS, SEEDS, study

RULES = Rules(Thresholds(), 50, min_own=0.9)
HOW = Intervals(0.95, 50)
FULL = {Arm.PAIR: 1.0}


def verdict_of(blocks, lowest=FULL, rules=RULES, asked=Split.BOTH):
    of = judging.measured(blocks)
    every = judging.verdicts(of, SEEDS, lowest, rules)
    return next(x for x in every if x["asked"] == str(asked))


def test_a_pair_above_every_control_composes():
    record = verdict_of(study({"both": 0.7}))
    assert record["label"] == "composes"
    assert record["level"] == 2
    assert record["method"] == "mean"
    assert "both skills, level 2 0." in record["reason"]
    assert "no expert saw a problem that needs both" in record["reason"]
    assert record["p_adjusted"] < 0.05
    assert record["remarks"] == []


def test_a_pair_at_chance_has_no_transfer_by_the_combination():
    record = verdict_of(study({"both": 0.05}))
    assert (record["label"], record["cause"]) == ("no transfer", "combination")
    joint = study({"both": 0.05}, **{Arm.JOINT: {"both": 0.05}})
    record = verdict_of(joint)
    assert (record["label"], record["cause"]) == ("no transfer", "fine-tuning")
    assert any(x.startswith("no headroom") for x in record["remarks"])


def test_experts_below_their_criterion_are_invalid():
    record = verdict_of(study({"both": 0.7}), lowest={Arm.PAIR: 0.89})
    assert (record["label"], record["cause"]) == ("invalid", "fine-tuning")
    assert verdict_of(study({"both": 0.7}), lowest={})["label"] == "invalid"


@pytest.mark.parametrize("arm", [Arm.EXPERT_A, Arm.RANDOM, Arm.SAME_DATA, Arm.BASE])
def test_one_control_as_good_is_enough_against_composing(arm):
    record = verdict_of(study({"both": 0.7}, **{arm: {"both": 0.75}}))
    assert record["label"] == "undecided"
    assert f"not above control {arm}" in record["reason"]


def test_composing_needs_answers_that_move_with_either_operation():
    still = study({"both": 0.7}, **{Arm.COUNTERFACTUAL_B: {"moved": 1}})
    record = verdict_of(still)
    assert record["label"] == "undecided"
    assert str(Arm.COUNTERFACTUAL_B) in record["reason"]
    # An answer that both counterfactual operations give counts for each.
    agree = {arm: {"moved": 3} for arm in judging.MOVED}
    assert verdict_of(study({"both": 0.7}, **agree))["label"] == "composes"


def test_known_problems_and_skills_that_are_lost_are_remarked():
    record = verdict_of(study({"both": 0.7, "known": 0.5, "skills": 0.8}))
    assert record["label"] == "composes"
    words = [x.partition(":")[2].split(" 0.")[0].strip() for x in record["remarks"]]
    assert words == ["skill A", "skill B", "known problems"]


def test_without_shuffled_experts_there_is_no_verdict():
    of = judging.measured(study({"both": 0.7}, shuffled=False))
    assert list(judging.verdicts(of, SEEDS, FULL, RULES)) == []


def test_p_values_are_adjusted_over_the_methods():
    blocks = study({"both": 0.7}) | study({"both": 0.7}, method=Method.SUM)
    of = judging.measured(blocks)
    both = [
        x
        for x in judging.verdicts(of, SEEDS, FULL, RULES)
        if x["asked"] == str(Split.BOTH)
    ]
    assert {x["method"] for x in both} == {"mean", "sum"}
    single = verdict_of(study({"both": 0.7}))["p_adjusted"]
    assert max(x["p_adjusted"] for x in both) >= 2 * single * 0.99


def test_the_law_counts_as_a_loop_does():
    blocks = study({"both": 0.5, "skills": 0.7})
    mean = [(b, x) for b, x in blocks.items() if b.arm is Arm.PAIR]
    by_kept = {}
    for address, law in judging.laws(blocks, SEEDS, (), HOW):
        if address.arm is Arm.PAIR:
            by_kept[dict(address.where)["kept"]] = law
    assert set(by_kept) == {"alone", "in chains"}
    for kept, (a, b), level in (
        ("alone", (Split.SKILL_A, Split.SKILL_B), 1),
        ("in chains", (Split.CHAIN_A, Split.CHAIN_B), 2),
    ):
        products, composites = [], []
        for _, frame in mean:
            for pair in range(PAIRS):
                some = frame[frame["pair"] == pair]
                share = lambda split, at, some=some: some[  # noqa: E731
                    (some["split"] == str(split)) & (some["level"] == at)
                ]["correct"].mean()
                products.append(share(a, level) * share(b, level))
                composites.append(share(Split.BOTH, 2))
        law = by_kept[kept]
        assert law.product.value == pytest.approx(np.mean(products))
        assert law.composite.value == pytest.approx(np.mean(composites))
        assert law.ratio.value == pytest.approx(np.mean(composites) / np.mean(products))
        assert law.product.n == len(SEEDS) * PAIRS * 26


def test_answers_without_steps_have_a_law_of_the_bases_that_give_them():
    blocks = study({"both": 0.5})
    laws = list(judging.laws(blocks, SEEDS, SEEDS[:2], HOW))
    direct = [law for x, law in laws if x.split is Split.ANSWER_BOTH]
    steps = [law for x, law in laws if x.split is Split.BOTH]
    assert {law.product.n for law in direct} == {2 * PAIRS * 26}
    assert {law.product.n for law in steps} == {3 * PAIRS * 26}
    arms = {(x.arm, x.method) for x, _ in laws}
    assert arms == {
        (Arm.PAIR, Method.MEAN),
        (Arm.RANDOM, Method.MEAN),
        (Arm.JOINT, Method.NONE),
    }


def test_seeds_that_failed_are_not_counted():
    laws = dict(judging.laws(study({"both": 0.5}), SEEDS[:1], (), HOW))
    assert {law.product.n for law in laws.values()} == {PAIRS * 26}
    assert not dict(judging.laws(study({"both": 0.5}), (), (), HOW))


def test_what_is_measured_of_items():
    of = judging.measured(study({"both": 0.5}))
    pair = {x.metric for x in of if x.arm is Arm.PAIR and x.split is Split.BOTH}
    assert pair == {
        Metric.ACCURACY,
        Metric.CHANCE,
        Metric.STEPS_RIGHT,
        *STEP_ERRORS,
    }
    moved = {x.metric for x in of if x.arm is Arm.COUNTERFACTUAL_A}
    assert moved == {Metric.ACCURACY, Metric.CHANCE, Metric.COUNTERFACTUAL}
    wrong = next(x for x in of if x.arm is Arm.PAIR and x.metric is STEP_ERRORS[2])
    right = wrong.at(metric=Metric.ACCURACY)
    for seed in SEEDS:
        np.testing.assert_array_equal(
            of[wrong][seed].values, 1 - of[right][seed].values
        )
        assert set(of[wrong][seed].libraries) == set(range(PAIRS))


def test_numbers_of_wrong_steps_are_those_of_solutions():
    named = [metric.value.removeprefix("first wrong step: ") for metric in STEP_ERRORS]
    assert named == [kind.value for kind in KINDS]
