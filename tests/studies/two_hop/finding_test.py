"""All combinations and all new facts as one: whose numbers the finding has."""

import dataclasses

import numpy as np
import pytest

from jaxlora.evaluate import statistics
from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Metric, Split
from jaxlora.evaluate.verdict import Thresholds
from jaxlora.studies.harness.samples import Sample
from jaxlora.studies.two_hop import finding, judge, leaderboard

N = 40
CELLS = leaderboard.POOLED
METHODS = (Method.MEAN, Method.SUM)
RULES = judge.Rules(
    seeds=(1,),
    lowest={(1.0, cell, arm): 1.0 for cell in Cell for arm in Arm},
    min_own=0.99,
    thresholds=Thresholds(),
    resamples=200,
)


def shares(cells=CELLS, **of):
    """Samples of one seed: who is right is drawn by arm and cell."""
    out = {}
    rng = np.random.default_rng(0)
    libraries = np.repeat(np.arange(4), N // 4)

    def put(cell, arm, method, split, metric, p):
        x = Address(
            coverage=1.0, cell=cell, arm=arm, method=method, split=split, metric=metric
        )
        right = rng.permutation(np.arange(N) < round(p * N)).astype(float)
        out[x] = {1: Sample(right, libraries)}

    for cell in cells:
        for method in METHODS:
            for arm in (Arm.PAIR, Arm.TRIPLE, *judge.SAME_METHOD):
                p = of.get(f"{arm} {method}", of.get(str(arm), 0.0))
                put(cell, arm, method, Split.TWO_HOP, Metric.ACCURACY, p)
                put(cell, arm, method, Split.TWO_HOP, Metric.CHANCE, 0.05)
                put(cell, arm, method, Split.HOP1, Metric.ACCURACY, 1.0)
            for arm in judge.COUNTERFACTUALS:
                put(cell, arm, method, Split.TWO_HOP, Metric.COUNTERFACTUAL, 0.9)
        for arm in judge.ALONE:
            put(cell, arm, Method.NONE, Split.TWO_HOP, Metric.ACCURACY, 0.0)
    return out


def test_nothing_joined_and_all_given_back():
    found = finding.finding(shares(**{"3-combination": 0.9}), RULES)
    assert found is not None
    assert (found["value"], found["n"], found["chance"]) == (0.0, 3 * N, 0.05)
    assert found["hi"] == pytest.approx(statistics.wilson(0, 3 * N).hi, abs=1e-6)
    assert {x["label"] for x in found["combinations"].values()} == {"no transfer"}
    assert found["given_back"]["label"] == "retrieves"
    assert found["given_back"]["value"] == pytest.approx(0.9)


def test_the_value_is_the_mean_over_methods_and_each_has_its_verdict():
    found = finding.finding(shares(**{"2-combination mean": 0.8}), RULES)
    assert found is not None
    assert found["value"] == pytest.approx(0.4)
    labels = {name: x["label"] for name, x in found["combinations"].items()}
    assert labels == {"mean": "composes", "sum": "no transfer"}


def test_people_count_once_however_many_methods_there_are():
    found = finding.finding(shares(**{"2-combination": 0.1}), RULES)
    assert found is not None
    people = statistics.wilson(12, 3 * N)
    assert found["lo"] <= people.lo + 1e-6
    assert found["hi"] >= people.hi - 1e-6


def test_only_cells_that_were_asked_are_pooled():
    found = finding.finding(shares(cells=CELLS[1:]), RULES)
    assert found is not None
    assert found["cells"] == ["H-OO", "F-OO"]
    assert found["n"] == 2 * N
    assert finding.finding(shares(cells=(Cell.R_II,)), RULES) is None
    nobody = dataclasses.replace(RULES, seeds=())
    assert finding.finding(shares(), nobody) is None
