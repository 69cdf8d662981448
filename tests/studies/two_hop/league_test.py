"""The league from samples written by hand: what is pooled, compared and ordered."""

import numpy as np
import pytest

from jaxlora.evaluate import predictions
from jaxlora.evaluate.schema import USUAL, Cell, Library, Method, Metric, Split
from jaxlora.evaluate.verdict import Thresholds
from jaxlora.studies.two_hop import judge, league, protocol, record
from jaxlora.studies.two_hop.config import METHODS, TwoHopConfig
from jaxlora.studies.two_hop.rows import Block, Place

N, SEEDS = 20, (0, 1)
MEAN, DARE, SLERP = Method.MEAN, Method.DARE, Method.SLERP
SAME = (Library.RANDOM, Library.PERMUTED, Library.SHUFFLED)
RECORD = judge.Record(
    seeds=SEEDS,
    own={(1.0, cell, library): 1.0 for cell in Cell for library in Library},
    min_own=0.99,
    thresholds=Thresholds(),
    resamples=100,
)


def values(share: float) -> dict[int, np.ndarray]:
    out = np.zeros(N)
    out[: round(share * N)] = 1
    return dict.fromkeys(SEEDS, out)


def place(cell, library, method, split=Split.TWO_HOP, metric=Metric.ACCURACY):
    return Place(1.0, cell, library, method, split, metric)


def study(shares=None):
    """Every cell the same, but for ``{(cell, library, method): share}``."""
    shares, none = shares or {}, Method.NONE
    found = {}
    for cell in Cell:
        for library in (Library.BASE, Library.HOP1, Library.HOP2, Library.JOINT):
            found[place(cell, library, none)] = values(0.0)
        for method in (MEAN, DARE):
            for library in (Library.PAIR, Library.TRIPLE, *SAME):
                share = shares.get((cell, library, method), 0.0)
                found[place(cell, library, method)] = values(share)
                chance = place(cell, library, method, metric=Metric.CHANCE)
                found[chance] = values(0.05)
                for split in (Split.HOP1, Split.HOP2, Split.FAMILIAR_TWO_HOP):
                    found[place(cell, library, method, split)] = values(0.95)
    return found


def lines(found, methods=("mean", "dare"), refused=None, judging=RECORD):
    made = league.table(found, judging, methods, refused or {}, 1.0)
    return {line["method"]: line for line in made}


def test_three_cells_are_pooled_item_by_item_and_no_other():
    shares = {(Cell.R_OO, Library.PAIR, DARE): 0.5, (Cell.F_OO, Library.PAIR, DARE): 1}
    shares[Cell.R_OI, Library.PAIR, DARE] = 0.25
    line = lines(study(shares))["dare"]
    assert line["two_hop"]["value"] == pytest.approx(0.5)
    assert line["two_hop"]["n"] == 3 * N * len(SEEDS)
    assert [line[c]["value"] for c in ("R-OO", "H-OO", "F-OO")] == [0.5, 0.0, 1.0]
    assert line["known_second_hop"]["value"] == 0.25
    assert line["hop1"]["value"] == line["familiar"]["value"] == 0.95


def test_a_place_that_lacks_a_cell_is_not_pooled():
    found = study()
    del found[place(Cell.H_OO, Library.PAIR, DARE)]
    assert place(Cell.R_OO, Library.PAIR, DARE) not in league.pooled(found)
    assert place(Cell.R_OO, Library.PAIR, MEAN) in league.pooled(found)
    line = lines(found)["dare"]
    assert (line["two_hop"], line["verdict"]) == (None, "unavailable")


def test_the_difference_is_to_the_nearest_control_of_the_same_method():
    shares = {(c, Library.PAIR, DARE): 0.5 for c in league.POOLED}
    shares |= {(c, Library.PERMUTED, DARE): 0.2 for c in league.POOLED}
    shares |= {(c, Library.RANDOM, MEAN): 0.9 for c in league.POOLED}
    line = lines(study(shares))["dare"]
    assert line["against"] == "permuted [dare]"
    assert line["difference"]["value"] == pytest.approx(0.3)
    assert line["difference"]["lo"] > 0


def test_best_comes_first_then_retrieval_then_what_could_not_run():
    shares = {(c, Library.PAIR, DARE): 0.3 for c in league.POOLED}
    refused = {Block(1.0, 0, Library.TRIPLE, SLERP): "two experts at most"}
    made = league.table(study(shares), RECORD, ("slerp", "mean", "dare"), refused, 1.0)
    assert [x["method"] for x in made[:4]] == ["dare", "mean", "slerp", "base"]
    assert made[2]["unavailable"] == {"3-combination": "two experts at most"}
    assert made[2]["three"] is None
    shares = {(c, Library.TRIPLE, MEAN): 0.3 for c in league.POOLED}
    made = league.table(study(shares), RECORD, ("dare", "mean"), {}, 1.0)
    assert [x["method"] for x in made[:2]] == ["mean", "dare"]


def test_verdicts_are_adjusted_for_the_number_of_methods():
    def p(methods):
        found = study({(c, Library.PAIR, DARE): 0.04 for c in league.POOLED})
        for name in methods:
            for old in [x for x in found if x.method is MEAN]:
                found[old._replace(method=Method(name))] = found[old]
        return lines(found, ("mean", "dare", *methods))["dare"]["p_adjusted"]

    # The smallest of m p-values is multiplied by m.
    assert p(["ties", "svd"]) == pytest.approx(min(1, 2 * p([])), rel=1e-6)


def test_the_worst_expert_of_the_pooled_cells_decides_the_gate():
    own = dict(RECORD.own) | {(1.0, Cell.F_OO, Library.PAIR): 0.5}
    judging = judge.Record(SEEDS, own, 0.99, Thresholds(), 100)
    assert lines(study(), judging=judging)["mean"]["verdict"] == "invalid"
    assert lines(study())["mean"]["verdict"] == "no transfer"


def test_lines_say_what_a_method_sees_and_where_it_works():
    found = {name: league._kind(Method(name)) for name in METHODS}
    assert found["regmean"] == {"kind": "merge", "data": "own", "space": "delta"}
    assert found["cat"]["data"] == found["oracle"]["data"] == "target"
    assert found["arrow"] == {"kind": "route", "data": "free", "space": "routed"}
    controls = {name for name, kind in found.items() if kind["kind"] == "control"}
    drawn = {"random-mean", "random-sum", "permuted-mean", "random-arrow"}
    assert controls == drawn | {"scale-only"}
    assert found["phatgoose"]["data"] == "own"
    assert found["linear"]["data"] == "target"


def test_a_refused_library_is_a_row_in_every_cell():
    block = Block(1.0, 3, Library.TRIPLE, SLERP)
    made = record.refused({block: "two experts at most"}, list(Cell))
    assert {(row["seed"], row["value"]) for row in made} == {(3, 0.0), ("all", 0.0)}
    assert len(made) == 2 * len(Cell)
    assert all(row["metric"] == "control available" for row in made)
    assert all("two experts at most" in row["condition"] for row in made)


def test_predictions_of_the_league_are_made_of_the_methods_of_a_study():
    usual = protocol.claimed(TwoHopConfig())
    assert {x.method for x in usual} <= {Method.NONE, *USUAL}
    both = protocol.claimed(TwoHopConfig(methods=("mean", "regmean")))
    assert {x.method for x in both} - {x.method for x in usual} == {Method.REGMEAN}
    assert both[: len(usual)] == usual
    every = protocol.claimed(TwoHopConfig(methods=METHODS))
    claimed = {str(x.method) for x in every if x.library is Library.PAIR}
    assert claimed >= set(METHODS) - set(map(str, USUAL))
    assert len(set(map(predictions.digest, [[x] for x in every]))) == len(every)
