"""The leaderboard from samples by hand: what is pooled, compared and ordered."""

import numpy as np
import pytest

from jaxlora.evaluate import predictions
from jaxlora.evaluate.schema import USUAL, Address, Arm, Cell, Method, Metric, Split
from jaxlora.evaluate.verdict import Thresholds
from jaxlora.studies.harness import Outcome
from jaxlora.studies.harness.samples import Sample
from jaxlora.studies.two_hop import arms, items, judge, leaderboard
from jaxlora.studies.two_hop import protocol as common
from jaxlora.studies.two_hop.config import METHODS
from jaxlora.studies.two_hop.rows import Block
from jaxlora.studies.two_hop.symbols import protocol
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig
from jaxlora.studies.two_hop.symbols.recipes import ExpertsConfig, kinds

N, SEEDS = 20, (0, 1)
MEAN, DARE, SLERP = Method.MEAN, Method.DARE, Method.SLERP
SAME = (Arm.RANDOM, Arm.PERMUTED, Arm.SHUFFLED)
RULES = judge.Rules(
    seeds=SEEDS,
    lowest={(1.0, cell, library): 1.0 for cell in Cell for library in Arm},
    min_own=0.99,
    thresholds=Thresholds(),
    resamples=100,
)


def values(share: float) -> dict[int, Sample]:
    out = np.zeros(N)
    out[: round(share * N)] = 1
    return dict.fromkeys(SEEDS, Sample(out, np.zeros(N, int)))


def place(cell, library, method, split=Split.TWO_HOP, metric=Metric.ACCURACY):
    return Address(
        coverage=1.0,
        cell=cell,
        arm=library,
        method=method,
        split=split,
        metric=metric,
    )


def study(shares=None, joint=0.9):
    """Every cell the same, but for ``{(cell, library, method): share}``."""
    shares, none = shares or {}, Method.NONE
    found = {}
    for cell in Cell:
        for library in (Arm.BASE, Arm.HOP1, Arm.HOP2, Arm.JOINT):
            share = joint if library is Arm.JOINT else 0.0
            found[place(cell, library, none)] = values(share)
        for method in (MEAN, DARE):
            for library in (Arm.PAIR, Arm.TRIPLE, *SAME):
                share = shares.get((cell, library, method), 0.0)
                found[place(cell, library, method)] = values(share)
                chance = place(cell, library, method, metric=Metric.CHANCE)
                found[chance] = values(0.05)
                for split in (Split.HOP1, Split.HOP2, Split.FAMILIAR_TWO_HOP):
                    found[place(cell, library, method, split)] = values(0.95)
    return found


def lines(found, methods=("mean", "dare"), refused=None, judging=RULES):
    made = leaderboard.table(found, judging, methods, refused or {}, 1.0)
    return {line["method"]: line for line in made}


def test_three_cells_are_pooled_item_by_item_and_no_other():
    shares = {(Cell.R_OO, Arm.PAIR, DARE): 0.5, (Cell.F_OO, Arm.PAIR, DARE): 1}
    shares[Cell.R_OI, Arm.PAIR, DARE] = 0.25
    line = lines(study(shares))["dare"]
    assert line["two_hop"]["value"] == pytest.approx(0.5)
    assert line["two_hop"]["n"] == 3 * N * len(SEEDS)
    assert [line[c]["value"] for c in ("R-OO", "H-OO", "F-OO")] == [0.5, 0.0, 1.0]
    assert line["known_second_hop"]["value"] == 0.25
    assert line["hop1"]["value"] == line["familiar"]["value"] == 0.95


def test_a_place_that_lacks_a_cell_is_not_pooled():
    found = study()
    del found[place(Cell.H_OO, Arm.PAIR, DARE)]
    assert place(Cell.R_OO, Arm.PAIR, DARE) not in leaderboard.pooled(found)
    assert place(Cell.R_OO, Arm.PAIR, MEAN) in leaderboard.pooled(found)
    line = lines(found)["dare"]
    assert (line["two_hop"], line["verdict"]) == (None, "unavailable")


def test_the_difference_is_to_the_nearest_control_of_the_same_method():
    shares = {(c, Arm.PAIR, DARE): 0.5 for c in leaderboard.POOLED}
    shares |= {(c, Arm.PERMUTED, DARE): 0.2 for c in leaderboard.POOLED}
    shares |= {(c, Arm.RANDOM, MEAN): 0.9 for c in leaderboard.POOLED}
    line = lines(study(shares))["dare"]
    assert line["against"] == "permuted [dare]"
    assert line["difference"]["value"] == pytest.approx(0.3)
    assert line["difference"]["lo"] > 0


def test_best_comes_first_then_retrieval_then_what_could_not_run():
    shares = {(c, Arm.PAIR, DARE): 0.3 for c in leaderboard.POOLED}
    refused = {Block(1.0, 0, Arm.TRIPLE, SLERP): "two experts at most"}
    made = leaderboard.table(
        study(shares), RULES, ("slerp", "mean", "dare"), refused, 1.0
    )
    assert [x["method"] for x in made[:4]] == ["dare", "mean", "slerp", "base"]
    assert made[2]["unavailable"] == {"3-combination": "two experts at most"}
    assert made[2]["three"] is None
    shares = {(c, Arm.TRIPLE, MEAN): 0.3 for c in leaderboard.POOLED}
    made = leaderboard.table(study(shares), RULES, ("dare", "mean"), {}, 1.0)
    assert [x["method"] for x in made[:2]] == ["mean", "dare"]


def test_without_headroom_methods_are_listed_and_not_ranked():
    shares = {(c, Arm.PAIR, DARE): 0.3 for c in leaderboard.POOLED}
    for joint, order in ((0.9, ["dare", "mean"]), (0.7, ["mean", "dare"])):
        made = leaderboard.table(
            study(shares, joint), RULES, ("mean", "dare"), {}, 1.0
        )[:2]
        assert [x["method"] for x in made] == order
        assert {x["headroom"] for x in made} == {joint == 0.9}
        noted = any("no headroom: " in x for x in made[0]["remarks"])
        assert noted == (joint == 0.7)


def test_verdicts_are_adjusted_for_the_number_of_methods():
    def p(methods):
        found = study({(c, Arm.PAIR, DARE): 0.04 for c in leaderboard.POOLED})
        for name in methods:
            for old in [x for x in found if x.method is MEAN]:
                found[old.at(method=Method(name))] = found[old]
        return lines(found, ("mean", "dare", *methods))["dare"]["p_adjusted"]

    # The smallest of m p-values is multiplied by m.
    assert p(["ties", "svd"]) == pytest.approx(min(1, 2 * p([])), rel=1e-6)


def test_the_worst_expert_of_the_pooled_cells_decides_the_criterion():
    own = dict(RULES.lowest) | {(1.0, Cell.F_OO, Arm.PAIR): 0.5}
    judging = judge.Rules(SEEDS, own, 0.99, Thresholds(), 100)
    assert lines(study(), judging=judging)["mean"]["verdict"] == "invalid"
    assert lines(study())["mean"]["verdict"] == "no transfer"


def test_lines_say_what_a_method_sees_and_where_it_works():
    found = {name: leaderboard._kind(Method(name)) for name in METHODS}
    assert found["regmean"] == {"kind": "merge", "data": "own", "space": "delta"}
    assert found["cat"]["data"] == found["oracle"]["data"] == "target"
    assert found["arrow"] == {"kind": "route", "data": "free", "space": "routed"}
    controls = {name for name, kind in found.items() if kind["kind"] == "control"}
    drawn = {"random-mean", "random-sum", "permuted-mean", "random-arrow"}
    assert controls == drawn | {"scale-only"}
    assert found["phatgoose"]["data"] == "own"
    assert found["linear"]["data"] == "target"


def test_a_refused_library_is_a_row_in_every_cell():
    block = Block(1.0, 3, Arm.TRIPLE, SLERP)
    notes = {"unavailable": "two experts at most"}
    log = common.Log(outcomes={block: [Outcome(items.nothing(), notes)]})
    made = common.refused_rows(log, list(Cell))
    assert {(row["seed"], row["value"]) for row in made} == {(3, 0.0), ("all", 0.0)}
    assert len(made) == 2 * len(Cell)
    assert all(row["metric"] == "control available" for row in made)
    assert all("two experts at most" in row["condition"] for row in made)


def test_predictions_of_the_leaderboard_are_made_of_the_methods_of_a_study():
    usual = protocol.claimed(TwoHopConfig())
    assert {x.method for x in usual} <= {Method.NONE, *USUAL}
    both = protocol.claimed(TwoHopConfig(methods=("mean", "regmean")))
    assert {x.method for x in both} == {Method.NONE, Method.MEAN, Method.REGMEAN}
    mine = [x for x in usual if x.method in (Method.NONE, Method.MEAN)]
    assert list(both[: len(mine)]) == mine
    every = protocol.claimed(TwoHopConfig(methods=METHODS))
    claimed = {str(x.method) for x in every if x.library is Arm.PAIR}
    later = {"placed-sum", "placed-both"}  # than these predictions
    assert claimed >= set(METHODS) - set(map(str, USUAL)) - later
    assert len(set(map(predictions.digest, [[x] for x in every]))) == len(every)


def test_a_study_without_extra_arms_makes_no_claims_on_them():
    every = protocol.claimed(TwoHopConfig())
    few = protocol.claimed(TwoHopConfig(experts=ExpertsConfig(extra=False)))
    assert set(few) < set(every)
    left_out = {x.library for x in every} - {x.library for x in few}
    assert left_out == {Arm.TRIPLE_OTHERS, Arm.DOCUMENT, Arm.FULL}
    trained = kinds(ExpertsConfig(extra=False))
    plan = arms.plan(("mean",), extra=False)
    needed = {e for arm, _ in plan for e in arms.MEMBERS.get(arm, ())}
    assert set(trained) == needed
