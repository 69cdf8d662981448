"""Evidence from samples written by hand: whose numbers end up where."""

import dataclasses

import numpy as np
import pytest

from jaxlora.evaluate import statistics
from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Metric, Split
from jaxlora.evaluate.verdict import Thresholds
from jaxlora.studies.harness.samples import Sample, Samples
from jaxlora.studies.two_hop import judge, summary

N, SEEDS = 40, (1, 2, 3)
MEAN, NONE = Method.MEAN, Method.NONE
CELL = Cell.R_OO
RULES = judge.Rules(
    seeds=SEEDS,
    lowest={(1.0, CELL, library): 1.0 for library in Arm},
    min_own=0.99,
    thresholds=Thresholds(),
    resamples=200,
)


def at(coverage, cell, arm, method, split, metric) -> Address:
    return Address(
        coverage=coverage,
        cell=cell,
        arm=arm,
        method=method,
        split=split,
        metric=metric,
    )


def values(p: float, seed: int, of=0) -> Sample:
    """Zeros and ones in four libraries; ``of`` is added to all of them."""
    out = np.zeros(N)
    out[: round(p * N)] = 1
    drawn = np.random.default_rng(seed).permutation(out)
    return Sample(drawn + of, np.repeat(np.arange(4), N // 4))


def place(library, method=MEAN, split=Split.TWO_HOP, metric=Metric.ACCURACY, cell=CELL):
    return at(1.0, cell, library, method, split, metric)


def samples(shares: dict, cell=CELL, coverage=1.0) -> Samples:
    return {
        at(coverage, cell, *where): {s: values(p, s) for s in SEEDS}
        for where, p in shares.items()
    }


def study(two_hop=0.9, method=MEAN, target=Arm.PAIR, **more) -> dict:
    """One library that beats its controls, and everything beside it."""
    split, right = Split.TWO_HOP, Metric.ACCURACY
    shares = {
        (target, method, split, right): two_hop,
        (target, method, split, Metric.CHANCE): 0.05,
        (target, method, Split.HOP1, right): 0.95,
        (target, method, Split.HOP2, right): 0.975,
        (Arm.JOINT, NONE, split, right): 0.5,
        (Arm.COUNTERFACTUAL1, method, split, Metric.COUNTERFACTUAL): 0.8,
        (Arm.COUNTERFACTUAL2, method, split, Metric.COUNTERFACTUAL): 0.7,
    }
    alone = (Arm.BASE, Arm.HOP1, Arm.HOP2)
    shares |= {(x, NONE, split, right): 0.0 for x in alone}
    same = (Arm.RANDOM, Arm.PERMUTED, Arm.SHUFFLED)
    shares |= {(x, method, split, right): 0.025 for x in same}
    return shares | more


def evidence(library=Arm.PAIR, rules=RULES, **changes):
    shares = study(target=library) | changes.pop("shares", {})
    return judge.evidence(samples(shares), place(library), rules)


def test_every_negative_control_is_there_under_its_method():
    found = evidence()
    assert set(found.controls) == {
        "base [none]",
        "A->B [none]",
        "B->C [none]",
        "random [mean]",
        "permuted [mean]",
        "shuffled answers [mean]",
    }
    assert found.controls["base [none]"].difference.value == pytest.approx(0.9)
    assert found.controls["random [mean]"].difference.value == pytest.approx(0.875)


def test_controls_of_another_method_do_not_stand_in():
    shares = study(method=Method.MEAN) | {
        (Arm.PAIR, Method.SUM, Split.TWO_HOP, metric): 0.9
        for metric in (Metric.ACCURACY, Metric.CHANCE)
    }
    shares[Arm.PAIR, Method.SUM, Split.HOP1, Metric.ACCURACY] = 0.9
    x = place(Arm.PAIR, Method.SUM)
    found = judge.evidence(samples(shares), x, RULES)
    missing = {name for name, control in found.controls.items() if control is None}
    assert missing == {"random [sum]", "permuted [sum]", "shuffled answers [sum]"}
    assert found.p_values == (1.0, 1.0, 1.0)
    assert found.counterfactual == {}


def test_numbers_come_from_their_places():
    found = evidence()
    assert found.two_hop.value == pytest.approx(0.9)
    assert found.two_hop.n == N * len(SEEDS)
    assert found.base_two_hop.value == 0.0
    assert found.joint.value == pytest.approx(0.5)
    assert found.chance == pytest.approx(0.05)
    got = {name: hop.value for name, hop in found.hops.items()}
    assert got == pytest.approx({"hop 1": 0.95, "hop 2": 0.975})


@pytest.mark.parametrize("library", judge.COMPARED, ids=str)
def test_only_the_3_combination_saw_these_people(library):
    assert evidence(library).target_saw_people == (library is Arm.TRIPLE)


@pytest.mark.parametrize("library", judge.COMPARED, ids=str)
def test_counterfactuals_speak_of_the_2_combination_only(library):
    moved = {name: x.value for name, x in evidence(library).counterfactual.items()}
    expected = {"counterfactual hop 1": 0.8, "counterfactual hop 2": 0.7}
    assert moved == pytest.approx(expected if library is Arm.PAIR else {})


@pytest.mark.parametrize(
    ("cell", "coverage"),
    [("R-II", 1.0), ("R-OI", 1.0), ("R-IO", None), ("R-OO", None), ("F-OO", None)],
)
def test_coverage_counts_where_the_base_knows_the_second_hop(cell, coverage):
    cell = Cell(cell)
    rules = dataclasses.replace(RULES, lowest={(1.0, cell, Arm.PAIR): 1.0})
    found = judge.evidence(samples(study(), cell), place(Arm.PAIR, cell=cell), rules)
    assert found.coverage == coverage
    assert found.expert_ok


@pytest.mark.parametrize(
    ("own", "ok"), [({}, False), (0.98, False), (0.99, True)], ids=str
)
def test_experts_must_hold_their_own_facts(own, ok):
    own = {(1.0, CELL, Arm.PAIR): own} if own else {}
    assert evidence(rules=dataclasses.replace(RULES, lowest=own)).expert_ok == ok


def test_only_seeds_whose_base_passed_are_pooled():
    found = samples(study())
    found[place(Arm.PAIR)][3] = values(0.0, 3)
    rules = dataclasses.replace(RULES, seeds=(1, 2))
    e = judge.evidence(found, place(Arm.PAIR), rules)
    assert e.two_hop.value == pytest.approx(0.9)
    assert e.two_hop.n == 2 * N
    assert e.controls["base [none]"].difference.n == 2 * N


def verdicts(shares, rules=RULES, **where):
    return judge.verdicts(samples(shares, **where), rules)


def test_a_combination_that_beats_everything_composes():
    (found,) = verdicts(study())
    assert found["label"] == "composes"
    assert (found["cell"], found["library"]) == ("R-OO", "2-combination")
    assert found["method"] == "mean"


def test_without_counterfactuals_it_does_not():
    shares = {k: v for k, v in study().items() if k[3] is not Metric.COUNTERFACTUAL}
    assert verdicts(shares)[0]["label"] == "undecided"


def test_with_an_expert_that_saw_the_people_it_retrieves():
    assert verdicts(study(target=Arm.TRIPLE))[0]["label"] == "retrieves"


@pytest.mark.parametrize("library", [Arm.TRIPLE_OTHERS, Arm.IDENTITY], ids=str)
def test_what_has_no_counterfactual_experts_gets_no_verdict(library):
    assert verdicts(study(target=library)) == []


@pytest.mark.parametrize(("joint", "cause"), [(0.9, "combination"), (0, "fine-tuning")])
def test_a_failure_is_put_down_to_the_joint_lora(joint, cause):
    shares = study(two_hop=0.0)
    shares[Arm.JOINT, NONE, Split.TWO_HOP, Metric.ACCURACY] = joint
    (found,) = verdicts(shares)
    assert (found["label"], found["cause"]) == ("no transfer", cause)


def test_no_good_seed_is_invalid_and_still_shown():
    rules = dataclasses.replace(RULES, seeds=())
    (found,) = verdicts(study(), rules)
    assert (found["label"], found["cause"]) == ("invalid", "base")


def test_p_values_are_adjusted_over_methods_by_holm():
    """Two methods in one family: each p by hand, and Holm's of the two."""
    shares = study(two_hop=0.9, method=Method.MEAN)
    shares |= study(two_hop=0.075, method=Method.SUM)
    shares |= study(two_hop=0.9, target=Arm.TRIPLE)
    made = samples(shares)
    found = {(v["library"], v["method"]): v for v in judge.verdicts(made, RULES)}
    assert len(found) == 3
    p = {
        name: judge.evidence(made, place(library, method), RULES).p_values.accuracy
        for name, (library, method) in {
            "mean": (Arm.PAIR, Method.MEAN),
            "sum": (Arm.PAIR, Method.SUM),
            "triple": (Arm.TRIPLE, Method.MEAN),
        }.items()
    }
    adjusted = statistics.holm([p["mean"], p["sum"]])
    assert found["2-combination", "mean"]["p_adjusted"] == adjusted[0] == 2 * p["mean"]
    assert found["2-combination", "sum"]["p_adjusted"] == adjusted[1]
    # Another library is another family.
    assert found["3-combination", "mean"]["p_adjusted"] == p["triple"]


def test_coverage_levels_are_judged_apart():
    made = samples(study(two_hop=0.9), coverage=1.0)
    made |= samples(study(two_hop=0.0), coverage=0.0)
    own = {(c, CELL, Arm.PAIR): 1.0 for c in (0.0, 1.0)}
    found = judge.verdicts(made, dataclasses.replace(RULES, lowest=own))
    assert [(v["coverage"], v["label"]) for v in found] == [
        (0.0, "no transfer"),
        (1.0, "composes"),
    ]


def gaps(shares, better=1.0, cell=CELL):
    """Loss minus shuffled loss of every arm; that of the combination is lower."""
    return {
        at(1.0, cell, arm, method, Split.TWO_HOP, Metric.LOSS_GAP): {
            seed: values(0.5, seed, -better if arm in judge.JUDGED else 0.0)
            for seed in SEEDS
        }
        for arm, method, split, metric in shares
        if (split, metric) == (Split.TWO_HOP, Metric.ACCURACY)
    }


def test_likelihood_is_by_how_much_the_gap_is_below_each_control():
    shares = study(two_hop=0.0)
    found = judge.evidence(samples(shares) | gaps(shares), place(Arm.PAIR), RULES)
    assert set(found.likelihood) == set(found.controls)
    for gain in found.likelihood.values():
        assert gain.difference.value == pytest.approx(1.0)
    assert judge.evidence(samples(shares), place(Arm.PAIR), RULES).likelihood == {}


@pytest.mark.parametrize(
    ("better", "label"), [(1.0, "likelihood transfer"), (0.0, "no transfer")]
)
def test_a_combination_of_which_only_the_loss_moves(better, label):
    shares = study(two_hop=0.0)
    (found,) = judge.verdicts(samples(shares) | gaps(shares, better), RULES)
    assert found["label"] == label


@pytest.mark.parametrize(
    ("cell", "alone", "moved"),
    [
        ("R-OI", "A->B [none]", "counterfactual hop 1"),
        ("R-IO", "B->C [none]", "counterfactual hop 2"),
        ("R-II", None, None),
        ("R-OO", None, None),
        ("F-OO", None, None),
    ],
)
def test_the_expert_of_the_only_new_hop_is_the_ingredient(cell, alone, moved):
    cell = Cell(cell)
    found = judge.evidence(samples(study(), cell), place(Arm.PAIR, cell=cell), RULES)
    assert found.ingredient == (None if alone is None else (alone, moved))


@pytest.mark.parametrize(
    ("cell", "arm", "label"),
    [
        (Cell.R_OI, Arm.HOP1, "composes with the base"),
        (Cell.R_IO, Arm.HOP2, "composes with the base"),
        (Cell.R_OI, Arm.HOP2, "no gain"),
        (Cell.R_OO, Arm.HOP1, "no gain"),
    ],
)
def test_an_expert_alone_may_compose_with_the_base(cell, arm, label):
    shares = study()
    shares[arm, NONE, Split.TWO_HOP, Metric.ACCURACY] = 0.9
    rules = dataclasses.replace(RULES, lowest={(1.0, cell, Arm.PAIR): 1.0})
    (found,) = judge.verdicts(samples(shares, cell), rules)
    assert found["label"] == label


def test_remarks_stand_beside_the_verdict():
    shares = study()
    shares[Arm.PAIR, MEAN, Split.HOP1, Metric.ACCURACY] = 0.5
    (found,) = verdicts(shares)
    assert found["label"] == "composes"
    assert [x.split(":")[0] for x in found["remarks"]] == ["degrades", "no headroom"]


@pytest.mark.parametrize(("joint", "reached"), [(0.75, False), (0.8, True)])
def test_headroom_is_recorded_by_cell(joint, reached):
    shares = study()
    shares[Arm.JOINT, NONE, Split.TWO_HOP, Metric.ACCURACY] = joint
    (found,) = judge.headroom(samples(shares), RULES)
    assert (found["cell"], found["coverage"]) == ("R-OO", 1.0)
    assert (found["value"], found["needs"]) == (pytest.approx(joint), 0.8)
    assert found["headroom"] == reached
    assert found["lo"] < joint < found["hi"]
    assert judge.headroom(samples({}), RULES) == []


def test_differences_of_loss_and_rank_are_rows_of_their_own():
    shares = study(two_hop=0.5)
    found = samples(shares) | gaps(shares)
    made = list(summary.differences(found, {1.0: SEEDS}, RULES.intervals))
    by_metric = {x["metric"]: x for x in made if "base [none]" in x["condition"]}
    assert set(by_metric) == {
        "paired difference",
        "paired difference: loss minus shuffled",
    }
    assert by_metric["paired difference"]["value"] == pytest.approx(0.5)
    gap = by_metric["paired difference: loss minus shuffled"]
    assert (gap["value"], gap["hi"] < 0) == (pytest.approx(-1.0), True)


def test_predictions_speak_of_all_people_and_not_of_thirds_by_entropy():
    plain = {"condition": '{"coverage": 1.0}'}
    third = {"condition": '{"coverage": 1.0, "entropy": "1 of 3, from low"}'}
    other = {"condition": '{"scored": "greedy text"}'}
    assert summary.of_everybody([plain, third, other]) == [plain]
