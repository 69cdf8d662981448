"""From items to rows: one measurement each, over one seed and over several."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxlora.evaluate import statistics
from jaxlora.evaluate.schema import COLUMNS, Arm, Cell, Method, Metric, Split
from jaxlora.evaluate.statistics import Interval
from jaxlora.studies.harness import samples
from jaxlora.studies.harness.samples import Intervals, Sample
from jaxlora.studies.two_hop import rows
from jaxlora.studies.two_hop.items import COLUMNS as ITEM_COLUMNS
from jaxlora.studies.two_hop.rows import Block

N = 5
ADDRESS = Block(1.0, 0, Arm.PAIR, Method.MEAN).address(Cell.R_OO, Split.TWO_HOP)
HOW = Intervals(0.95, 100)
SHARE = np.array([1.0, 0.0, 1.0, 1.0, 0.0])


def sample(values, libraries=(0, 0, 0, 0, 0)):
    return Sample(np.asarray(values), np.asarray(libraries))


def items(split=Split.TWO_HOP, **columns) -> pd.DataFrame:
    plain = dict.fromkeys(ITEM_COLUMNS, 0) | {
        "cell": "R-OO",
        "person": np.arange(N),
        "split": str(split),
        "covered": True,
    }
    return pd.DataFrame(plain | columns, index=range(N), columns=ITEM_COLUMNS)


def block(seed=0):
    return Block(1.0, seed, Arm.PAIR, Method.MEAN)


def test_samples_keep_one_value_a_person_in_order():
    frame = items(correct=[1, 0, 1, 1, 0], rank=[1, 2, 3, 4, 5], error=[0, 1, 2, 3, 4])
    found = rows.samples({block(3): frame})
    assert found[ADDRESS][3].values.tolist() == SHARE.tolist()
    rank = found[ADDRESS.at(metric=Metric.RANK)][3].values
    assert rank.tolist() == [1, 2, 3, 4, 5]
    for i, metric in enumerate(
        (Metric.BRIDGE, Metric.RELATION2, Metric.OLD, Metric.OTHER), start=1
    ):
        values = found[ADDRESS.at(metric=metric)][3].values
        assert np.flatnonzero(values).tolist() == [i]


ASKED = {
    Metric.ACCURACY,
    Metric.CHANCE,
    Metric.RANK,
    Metric.LOSS,
    Metric.LOSS_GAP,
    Metric.COUNTERFACTUAL,
}


@pytest.mark.parametrize(
    ("split", "metrics"),
    [
        (Split.HOP1, {Metric.ACCURACY}),
        (Split.FAMILIAR_TWO_HOP, {Metric.ACCURACY}),
        (Split.WRITTEN, ASKED),
        (Split.CONTEXT, ASKED),
    ],
)
def test_other_splits_have_fewer_metrics(split, metrics):
    found = rows.samples({block(): items(split)})
    assert {place.metric for place in found} == metrics


def test_covered_people_are_told_apart_where_both_exist():
    frame = items(correct=[1, 0, 1, 1, 0], covered=[True, True, False, False, False])
    found = rows.samples({block(): frame})
    assert found[ADDRESS.at(covered=True)][0].values.tolist() == [1, 0]
    assert found[ADDRESS.at(covered=False)][0].values.tolist() == [1, 1, 0]
    assert not [p for p in rows.samples({block(): items()}) if p.covered is not None]


def test_rows_of_one_seed():
    found = {
        ADDRESS: {4: sample(SHARE)},
        ADDRESS.at(metric=Metric.LOSS): {4: sample(SHARE / 3)},
    }
    share, loss = samples.per_seed(found, [4, 5], 0.95)
    assert ("study", *share) == COLUMNS
    expected = statistics.wilson(3, N)
    assert (share["lo"], share["hi"]) == pytest.approx(expected[1:3], abs=1e-6)
    assert (share["seed"], share["value"], share["n"]) == (4, 0.6, N)
    assert (loss["value"], loss["lo"], loss["hi"]) == (0.2, None, None)


def test_rows_of_all_seeds_do_not_depend_on_their_order():
    other = ADDRESS.at(arm=Arm.TRIPLE)
    one = sample(SHARE)
    found = {ADDRESS: {1: one, 2: sample(SHARE[::-1]), 9: one}, other: {1: one}}
    made = list(samples.pooled(found, [1, 2], HOW))
    again = list(samples.pooled(dict(reversed(found.items())), [1, 2], HOW))
    assert sorted(made, key=str) == sorted(again, key=str)
    first = made[0]
    assert (first["seed"], first["n"], first["value"]) == ("all", 2 * N, 0.6)
    assert 0 <= first["lo"] < 0.6 < first["hi"] <= 1


def test_a_seed_that_diverged_is_not_pooled():
    place = ADDRESS.at(metric=Metric.LOSS)
    good, bad = sample(SHARE), sample(np.full(N, np.nan))
    (found,) = list(samples.pooled({place: {1: good, 2: bad}}, [1, 2], HOW))
    assert found["value"] == 0.6
    assert found["n"] == N
    (none,) = list(samples.pooled({place: {1: bad, 2: bad}}, [1, 2], HOW))
    assert (none["value"], none["lo"], none["hi"]) == (None, None, None)


def test_a_difference_is_of_the_same_people():
    other = ADDRESS.at(arm=Arm.BASE, method=Method.NONE)
    one = sample(SHARE)
    found = {ADDRESS: {1: one, 2: one}, other: {1: one, 3: sample(1 - SHARE)}}
    value = samples.difference(found, ADDRESS, other, [1, 2, 3], HOW)
    assert (value.difference.value, value.difference.n) == (0.0, N)
    missing = ADDRESS.at(arm=Arm.JOINT)
    assert samples.difference(found, ADDRESS, missing, [1, 2], HOW) is None
    row = samples.difference_row(ADDRESS, other, value.difference)
    assert row["metric"] == "paired difference"
    assert json.loads(row["condition"]) == {"against": "base [none]", "coverage": 1.0}


def test_a_seed_in_which_one_side_diverged_has_no_difference():
    x, y = (ADDRESS.at(arm=a, metric=Metric.LOSS_GAP) for a in (Arm.PAIR, Arm.RANDOM))
    good, bad = sample(SHARE), sample(np.full(N, np.inf))
    found = {x: {1: good, 2: bad}, y: {1: sample(SHARE + 1), 2: good}}
    value = samples.difference(found, x, y, [1, 2], HOW)
    assert (value.difference.value, value.difference.n) == (-1.0, N)
    assert samples.difference(found, x, y, [2], HOW) is None


@pytest.mark.parametrize("metric", samples.DIFFERENCES)
def test_every_difference_has_a_name_of_its_own(metric):
    y = ADDRESS.at(arm=Arm.BASE, metric=metric)
    row = samples.difference_row(ADDRESS.at(metric=metric), y, Interval(1, 0, 2, 5))
    assert row["metric"].startswith("paired difference")
    assert len(set(samples.DIFFERENCES.values())) == len(samples.DIFFERENCES)


def test_people_of_a_relation_pair_share_a_library():
    frame = items(correct=[1, 0, 1, 1, 0], covered=[True, False, True, True, False])
    frame["pair"] = [2, 2, 0, 0, 1]
    found = rows.samples({block(): frame})
    assert found[ADDRESS][0].libraries.tolist() == [2, 2, 0, 0, 1]
    assert found[ADDRESS.at(covered=False)][0].libraries.tolist() == [2, 1]


def test_libraries_of_two_parts_stay_apart():
    both = samples.joined([sample(SHARE, [0, 0, 1, 1, 1]), sample(SHARE)])
    assert both.values.tolist() == [*SHARE, *SHARE]
    assert both.libraries.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2, 2]


def test_libraries_that_differ_widen_an_interval():
    """Twenty people of two libraries are not twenty people."""
    values = np.repeat([1.0, 0.0], 10)
    apart, alike = (
        samples.interval(ADDRESS, [Sample(values, np.asarray(x))] * 2, HOW)
        for x in (np.repeat([0, 1], 10), np.tile([0, 1], 10))
    )
    assert apart.value == alike.value == 0.5
    assert apart.hi - apart.lo > 1.5 * (alike.hi - alike.lo)


def test_draws_are_a_function_of_the_place():
    def draws(*what):
        return samples.generator(*what).random(4).tolist()

    assert draws(ADDRESS) == draws(ADDRESS)
    assert draws(ADDRESS) != draws(ADDRESS.at(cell=Cell.F_OO))


def test_the_words_behind_the_draws_stay_as_they_were():
    """Intervals of committed results follow from them, whatever classes are called."""
    address = ADDRESS.at(covered=True, where=(("layer", 0),))
    assert address.draws == (
        "Place(coverage=1.0, cell=<Cell.R_OO: 'R-OO'>, "
        "library=<Library.PAIR: '2-combination'>, method=<Method.MEAN: 'mean'>, "
        "split=<Split.TWO_HOP: 'two-hop'>, metric=<Metric.ACCURACY: 'accuracy'>, "
        "covered=True, where=(('layer', 0),))"
    )


def test_every_block_has_a_file_of_its_own():
    blocks = {
        Block(coverage, seed, arm, method)
        for coverage in (None, 0.0, 0.333, 0.334, 1 / 3, 1.0)
        for seed in (1, 11)
        for arm in Arm
        for method in Method
    }
    paths = {x.path(Path("out")) for x in blocks}
    assert len(paths) == len(blocks)
    assert all(path.parent == Path("out/blocks") for path in paths)


def test_what_could_not_run_says_why():
    found = samples.unavailable("all", ADDRESS.at(coverage=0.5), "no base")
    assert (found["metric"], found["value"], found["n"]) == ("control available", 0, 0)
    assert (found["familiarity"], found["knows"]) == ("R", "OO")
    assert (found["library"], found["split"]) == ("2-combination", "two-hop")
    assert json.loads(found["condition"]) == {"coverage": 0.5, "reason": "no base"}
