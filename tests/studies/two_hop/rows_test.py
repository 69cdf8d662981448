"""From items to rows: one measurement each, over one seed and over several."""

import json

import numpy as np
import pandas as pd
import pytest

from jaxlora.evaluate import statistics
from jaxlora.evaluate.schema import COLUMNS, Cell, Library, Method, Metric, Split
from jaxlora.studies.two_hop import rows
from jaxlora.studies.two_hop.items import COLUMNS as ITEM_COLUMNS
from jaxlora.studies.two_hop.rows import Block, Place

N = 5
PLACE = Place(1.0, Cell.R_OO, Library.PAIR, Method.MEAN, Split.TWO_HOP, Metric.ACCURACY)
SHARE = np.array([1.0, 0.0, 1.0, 1.0, 0.0])


def items(split=Split.TWO_HOP, **columns) -> pd.DataFrame:
    plain = dict.fromkeys(ITEM_COLUMNS, 0) | {
        "cell": "R-OO",
        "person": np.arange(N),
        "split": str(split),
        "covered": True,
    }
    return pd.DataFrame(plain | columns, index=range(N), columns=ITEM_COLUMNS)


def block(seed=0):
    return Block(1.0, seed, Library.PAIR, Method.MEAN)


def test_samples_keep_one_value_a_person_in_order():
    frame = items(correct=[1, 0, 1, 1, 0], rank=[1, 2, 3, 4, 5], error=[0, 1, 2, 3, 4])
    found = rows.samples({block(3): frame})
    assert found[PLACE][3].tolist() == SHARE.tolist()
    rank = found[PLACE._replace(metric=Metric.RANK)][3]
    assert rank.tolist() == [1, 2, 3, 4, 5]
    for i, metric in enumerate(
        (Metric.BRIDGE, Metric.RELATION2, Metric.OLD, Metric.OTHER), start=1
    ):
        values = found[PLACE._replace(metric=metric)][3]
        assert np.flatnonzero(values).tolist() == [i]


@pytest.mark.parametrize(
    ("split", "metrics"),
    [
        (Split.HOP1, {Metric.ACCURACY}),
        (Split.FAMILIAR_TWO_HOP, {Metric.ACCURACY}),
        (Split.WRITTEN, {Metric.ACCURACY, Metric.CHANCE}),
        (Split.CONTEXT, {Metric.ACCURACY, Metric.CHANCE}),
    ],
)
def test_other_splits_have_fewer_metrics(split, metrics):
    found = rows.samples({block(): items(split)})
    assert {place.metric for place in found} == metrics


def test_covered_people_are_told_apart_where_both_exist():
    frame = items(correct=[1, 0, 1, 1, 0], covered=[True, True, False, False, False])
    found = rows.samples({block(): frame})
    assert found[PLACE._replace(covered=True)][0].tolist() == [1, 0]
    assert found[PLACE._replace(covered=False)][0].tolist() == [1, 1, 0]
    assert not [p for p in rows.samples({block(): items()}) if p.covered is not None]


def test_rows_of_one_seed():
    found = {PLACE: {4: SHARE}, PLACE._replace(metric=Metric.LOSS): {4: SHARE / 3}}
    share, loss = rows.per_seed(found, [4, 5], 0.95)
    assert tuple(share) == COLUMNS
    expected = statistics.wilson(3, N)
    assert (share["lo"], share["hi"]) == pytest.approx(expected[1:3], abs=1e-6)
    assert (share["seed"], share["value"], share["n"]) == (4, 0.6, N)
    assert (loss["value"], loss["lo"], loss["hi"]) == (0.2, None, None)


def test_rows_of_all_seeds_do_not_depend_on_their_order():
    other = PLACE._replace(library=Library.TRIPLE)
    found = {PLACE: {1: SHARE, 2: SHARE[::-1], 9: SHARE}, other: {1: SHARE}}
    made = rows.pooled(found, [1, 2], 0.95, 100)
    again = rows.pooled(dict(reversed(found.items())), [1, 2], 0.95, 100)
    assert sorted(made, key=str) == sorted(again, key=str)
    first = made[0]
    assert (first["seed"], first["n"], first["value"]) == ("all", 2 * N, 0.6)
    assert 0 <= first["lo"] < 0.6 < first["hi"] <= 1


def test_a_seed_that_diverged_is_not_pooled():
    place = PLACE._replace(metric=Metric.LOSS)
    bad = np.full(N, np.nan)
    (found,) = rows.pooled({place: {1: SHARE, 2: bad}}, [1, 2], 0.95, 100)
    assert found["value"] == 0.6
    assert found["n"] == N
    (none,) = rows.pooled({place: {1: bad, 2: bad}}, [1, 2], 0.95, 100)
    assert (none["value"], none["lo"], none["hi"]) == (None, None, None)


def test_a_difference_is_of_the_same_people():
    other = PLACE._replace(library=Library.BASE, method=Method.NONE)
    found = {PLACE: {1: SHARE, 2: SHARE}, other: {1: SHARE, 3: 1 - SHARE}}
    value = rows.difference(found, PLACE, other, [1, 2, 3], 0.95, 100)
    assert (value.difference.value, value.difference.n) == (0.0, N)
    missing = PLACE._replace(library=Library.JOINT)
    assert rows.difference(found, PLACE, missing, [1, 2], 0.95, 100) is None
    row = rows.difference_row(PLACE, other, value.difference)
    assert row["metric"] == "paired difference"
    assert json.loads(row["condition"]) == {"against": "base [none]", "coverage": 1.0}


def test_draws_are_a_function_of_the_place():
    def draws(*what):
        return rows.generator(*what).random(4).tolist()

    assert draws(PLACE) == draws(PLACE)
    assert draws(PLACE) != draws(PLACE._replace(cell=Cell.F_OO))


def test_what_could_not_run_says_why():
    found = rows.unavailable("all", PLACE._replace(coverage=0.5), "no gate")
    assert (found["metric"], found["value"], found["n"]) == ("control available", 0, 0)
    assert (found["familiarity"], found["knows"]) == ("R", "OO")
    assert (found["library"], found["split"]) == ("2-combination", "two-hop")
    assert json.loads(found["condition"]) == {"coverage": 0.5, "reason": "no gate"}
