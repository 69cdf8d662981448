"""The ranking where there is headroom, from fabricated rows of the boundary study."""

import io

import numpy as np
import pandas as pd
import pytest

from jaxlora.evaluate import statistics
from jaxlora.evaluate.schema import Address, Arm, Method, Metric, Split, row
from jaxlora.evaluate.statistics import Interval, Paired
from jaxlora.report import ranking, ranking_figure, ranking_lines
from jaxlora.report.ranking_lines import Beside, Cost, Place

PLACES = (
    Place("both practise", Split.WRITTEN, "Bridge rows, the bridge written"),
    Place("placed", Split.TWO_HOP, "Placed in layers, asked directly"),
)
N = 126
VALUES = {
    Method.MEAN: 0.70,
    Method.TIES: 0.90,
    Method.CAT: 0.72,
    Method.PHATGOOSE: 0.40,
    Method.RANDOM_MEAN: 0.05,
    Method.ORACLE: 0.95,
}
COST = Cost(seconds=0.0123, forward=2.5, bytes=2048)


def rows_of(arm, method, split, p, place, metric=Metric.ACCURACY, **more):
    regime = (("base", "leaderboard"), ("regime", place.regime))
    where = (("cells", "R-OO, H-OO, F-OO"), *more.items())
    names = {"cell": None, "arm": arm, "method": method, "split": split}
    address = Address(**names, metric=metric, regime=regime, where=where)
    value = statistics.wilson(round(p * N), N)
    return {"study": "boundary", **row("all", address, value)}


def kept(arm, method, place):
    for split, p in zip(
        (Split.HOP1, Split.HOP2, Split.FAMILIAR_TWO_HOP), (0.9, 0.8, 0.7), strict=True
    ):
        yield rows_of(arm, method, split, p, place)


def place_rows(place, joint, values=VALUES):
    for arm, p in ((Arm.BASE, 0), (Arm.HOP1, 0.02), (Arm.HOP2, 0), (Arm.JOINT, joint)):
        yield rows_of(arm, Method.NONE, place.split, p, place)
        yield from kept(arm, Method.NONE, place)
    for method, p in values.items():
        for arm, share in ((Arm.PAIR, p), (Arm.RANDOM, 0.04)):
            yield rows_of(arm, method, place.split, share, place)
            yield from kept(arm, method, place)
        pair = (Arm.PAIR, method, place.split)
        yield rows_of(*pair, 0.05, place, Metric.CHANCE)
        against = {"against": "base [none]"}
        yield rows_of(*pair, 0.6, place, Metric.DIFFERENCE, **against)
        # Another way of asking, a single seed and a cell must not be taken for it.
        other = Split.TWO_HOP if place.split is Split.WRITTEN else Split.WRITTEN
        yield rows_of(Arm.PAIR, method, other, 0.11, place)
        yield rows_of(*pair, 0.12, place) | {"seed": 40}
        condition = rows_of(*pair, 0, place)["condition"].replace('"cells"', '"no"')
        cell = {"familiarity": "R", "knows": "OO", "condition": condition}
        yield rows_of(*pair, 0.13, place) | cell


def paired(value, p):
    return Paired(Interval(value, value - 0.05, value + 0.05, N), p)


@pytest.fixture(scope="module")
def rows():
    written, placed = PLACES
    return pd.DataFrame([*place_rows(written, 0.95), *place_rows(placed, 0.1)])


@pytest.fixture(scope="module")
def beside():
    regime = PLACES[0].regime
    differences = {"ties": paired(0.2, 0.001), "cat": paired(0.02, 0.4),
                   "phatgoose": paired(-0.3, 0.002), "oracle": paired(0.25, 0.001),
                   "random-mean": paired(-0.65, 0.001)}  # fmt: skip
    return Beside(
        costs={"ties": COST},
        learned={"cat": (17, 18)},
        paired={(regime, name): x for name, x in differences.items()},
    )


@pytest.fixture(scope="module")
def both(rows, beside):
    return [ranking_lines.ranking(rows, place, beside) for place in PLACES]


def named(result):
    return {line.method: line for line in result.lines}


def test_the_best_is_first_and_what_combines_nothing_is_last(both):
    assert [x.method for x in both[0].lines] == [
        "ties", "cat", "mean", "phatgoose", "random-mean", "oracle",
        "base", "A->B alone", "B->C alone", "one LoRA on both",
    ]  # fmt: skip


def test_each_number_is_read_from_the_row_of_its_name(both):
    line = named(both[0])["ties"]
    shares = (line.composed, line.random, line.hop1, line.hop2, line.familiar)
    expected = (0.90, 0.04, 0.9, 0.8, 0.7)
    np.testing.assert_allclose([x.value for x in shares], expected, atol=0.5 / N)
    low = statistics.wilson(round(0.9 * N), N).lo
    assert line.composed.lo == pytest.approx(low, abs=1e-6)
    assert both[0].chance.value == pytest.approx(0.05, abs=0.5 / N)
    assert line.cost == COST
    assert line.above.value == 0.2


@pytest.mark.parametrize(
    ("method", "kind", "sees"),
    [("ties", "merge", "nothing"), ("cat", "merge", "target data"),
     ("phatgoose", "route", "own data"), ("random-mean", "control", "nothing")],
)  # fmt: skip
def test_what_a_method_is_and_needs(both, method, kind, sees):
    line = named(both[0])[method]
    assert (line.kind, line.sees) == (kind, sees)


def test_holm_counts_merges_and_routes_and_nothing_else(both):
    lines = named(both[0])
    got = [lines[name].p for name in ("ties", "cat", "phatgoose")]
    np.testing.assert_allclose(got, statistics.holm([0.001, 0.4, 0.002]))
    assert lines["oracle"].p is None
    assert lines["random-mean"].p is None
    assert lines["mean"].p is None


def test_methods_are_listed_as_they_are_where_the_joint_lora_falls_short(both):
    assert (both[0].headroom, both[1].headroom) == (True, False)
    names = [x.method for x in both[1].lines if x.ranks]
    assert names == [m for m in map(str, Method) if m in names]
    assert names[0] == "mean"
    text = " ".join(ranking.sentences(both[1]))
    assert "No headroom" in text
    assert "listed, not ranked" in text


def test_headroom_is_unknown_where_nobody_asked_the_joint_lora(rows):
    without = rows[rows["library"] != str(Arm.JOINT)]
    result = ranking_lines.ranking(without, PLACES[0])
    assert result.headroom is None
    assert "not known" in ranking.sentences(result)[0]
    assert result.lines[0].method == "ties"


def test_sentences_count_intervals_and_differences(both):
    headroom, spread, differ, few = ranking.sentences(both[0])
    assert headroom.startswith("Headroom")
    # Of 0.90, 0.72, 0.70 and 0.40 the median is 0.71.
    assert "4 merges and routes lie between 0.40 (phatgoose) and 0.90 (ties)" in spread
    assert "the median is 0.71. 1 intervals are above the median and 1 below" in spread
    assert "3 are below the best value" in spread
    assert "1 (ties) is above the mean and 1 below it" in differ
    assert "cat" in few


def test_nothing_is_said_of_differences_that_nobody_measured(rows):
    result = ranking_lines.ranking(rows, PLACES[0])
    assert not any("Holm" in text for text in ranking.sentences(result))
    assert {x[6] for x in ranking.grid(result).body if len(x) > 1} == {"–"}


def test_the_grid_says_every_method_once_with_its_cost(both):
    grid = ranking.grid(both[0])
    body = {x[0]: x for x in grid.body}
    assert len(body) == len(grid.body)
    assert {len(x) for x in grid.body} == {1, len(grid.header)}
    best = dict(zip(grid.header, body["ties"], strict=True))
    assert best["seconds"] == "0.012"
    assert best["forward"] == "2.5x"
    assert best["kept"] == "2 KiB"
    assert best["above mean"] == "0.20 [0.15, 0.25]"
    assert dict(zip(grid.header, body["cat"], strict=True))["rows"] == "17 to 18"


def test_csv_holds_the_numbers_of_both_places(both):
    table = pd.read_csv(io.StringIO(ranking.to_csv(both)))
    assert len(table) == sum(len(x.lines) for x in both)
    mine = table[(table["method"] == "ties") & (table["regime"] == "placed")].iloc[0]
    assert mine["composed"] == pytest.approx(0.9, abs=0.5 / N)
    assert mine["bytes"] == COST.bytes
    assert not mine["headroom"]


def test_rows_of_another_study_are_refused(rows):
    wrong = rows.assign(condition="{}")
    with pytest.raises(ValueError, match="no merge or route at base 'leaderboard'"):
        ranking_lines.ranking(wrong, PLACES[0])


def test_the_figure_shows_both_places_and_is_no_wider_than_a_page(both):
    chart = ranking_figure.figure(both)
    width, _ = chart.get_size_inches() * chart.dpi
    assert width <= 900
    assert len(chart.axes) == 2
    labels = [x.get_text() for x in chart.axes[0].get_yticklabels()]
    assert labels == ["ties", "cat", "mean", "phatgoose", "random-mean", "oracle"]
    assert "not ranked" in chart.axes[1].get_title(loc="left")
    points = {
        (round(float(x), 2), round(float(y)))
        for line in chart.axes[0].lines
        for x, y in np.asarray(line.get_xydata())
    }
    assert (0.9, 0) in points  # ties, at the top


def test_saving_writes_three_files_and_the_same_ones_again(both, tmp_path):
    paths = ranking.save(both, tmp_path, about="Measured nowhere.")
    assert [x.name for x in paths] == [
        "leaderboard.md", "leaderboard.csv", ranking.FIGURE,
    ]  # fmt: skip
    before = [x.read_bytes() for x in paths]
    assert b"Measured nowhere." in before[0]
    ranking.save(both, tmp_path, about="Measured nowhere.")
    assert [x.read_bytes() for x in paths] == before
