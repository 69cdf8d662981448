"""Do rows land where tables and figures look for them?"""

import math

import pandas as pd
import pytest

from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Metric, Split, row
from jaxlora.evaluate.statistics import Interval
from jaxlora.report import readings
from jaxlora.report.lines import NEGATIVE_LINES, Line
from jaxlora.report.readings import ABSENT, UNAVAILABLE, Reading

PAIR = Line("", Arm.PAIR, Method.MEAN)


def edit(rows: pd.DataFrame, mask: pd.Series, **values) -> pd.DataFrame:
    out = rows.copy()
    for name, value in values.items():
        out.loc[mask, name] = value
    return out


def pooled(rows: pd.DataFrame, line: Line, cell: Cell, metric=Metric.ACCURACY):
    return (
        (rows["seed"].astype(str) == "all")
        & (rows["familiarity"] == cell.familiarity)
        & (rows["knows"] == cell.knows)
        & (rows["library"] == line.library.value)
        & (rows["method"] == line.method.value)
        & (rows["split"] == line.split.value)
        & (rows["metric"] == metric.value)
    )


def test_reads_the_whole_population_not_a_subset_of_the_items(rows):
    found = readings.book(rows)
    reading = readings.read(found, Cell.R_OI, PAIR)
    mask = pooled(rows, PAIR, Cell.R_OI) & ~rows["condition"].str.contains("covered")
    expected = rows[mask].iloc[0]
    assert reading == Reading(
        expected["value"], expected["lo"], expected["hi"], 180, readings.MEASURED
    )


def test_takes_the_pooled_value_and_never_a_seed(rows):
    seeds = rows["seed"].astype(str) != "all"
    changed = edit(rows, seeds & (rows["metric"] == "accuracy"), value=0.5)
    assert readings.book(changed) == readings.book(rows)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_reads_the_coverage_asked_for_and_by_default_the_highest(wide_rows, level):
    value = readings.read(readings.book(wide_rows, level), "R-OI", PAIR).value
    assert value == pytest.approx(0.5 * level)
    highest = readings.read(readings.book(wide_rows), "R-OI", PAIR).value
    assert highest == pytest.approx(0.5)
    assert readings.coverages(wide_rows) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_missing_value_and_a_missing_row_are_told_apart(rows):
    found = readings.book(rows)
    context = Line("", Arm.BASE, Method.NONE, Split.CONTEXT)
    assert readings.read(found, "R-OO", context).status == UNAVAILABLE
    never = Line("", Arm.COUNTERFACTUAL1, Method.MEAN)
    assert readings.read(found, "R-OO", never).status == ABSENT


def test_a_control_that_is_unavailable_everywhere_is_so_in_every_cell(rows):
    found = readings.book(rows)
    document = Line("", Arm.DOCUMENT)
    assert {readings.read(found, c, document).text() for c in Cell} == {"unavailable"}


def test_a_control_that_ran_in_one_seed_counts_as_available(rows):
    mask = (rows["metric"] == Metric.AVAILABLE.value) & (rows["seed"] == "all")
    some = edit(rows, mask, value=1.0)
    document = Line("", Arm.DOCUMENT)
    assert readings.read(readings.book(some), "R-OO", document).status == ABSENT


def unavailable(seed: int | str, cell: Cell | None, value: float = 0.0) -> dict:
    address = Address(
        cell=cell,
        arm=Arm.PAIR,
        method=Method.MEAN,
        split=Split.WRITTEN,
        metric=Metric.AVAILABLE,
        coverage=1.0,
        where=(("reason", "its criterion failed"),),
    )
    interval = Interval(value, math.nan, math.nan, 0)
    return {"study": "two-hop", **row(seed, address, interval)}


def statuses(rows: pd.DataFrame, *more: dict) -> dict[str, str]:
    found = readings.book(pd.concat([rows, pd.DataFrame(more)], ignore_index=True))
    written = PAIR._replace(split=Split.WRITTEN)
    return {c.value: readings.read(found, c, written).status for c in Cell}


@pytest.mark.parametrize("cell", [None, Cell.R_OO])
def test_a_format_that_one_base_lacks_does_not_hide_the_pooled_value(rows, cell):
    found = statuses(rows, unavailable(0, cell), unavailable(2, cell))
    assert set(found.values()) == {readings.MEASURED}


def test_a_pooled_row_without_a_cell_speaks_of_all_and_with_one_of_that(rows):
    assert set(statuses(rows, unavailable("all", None)).values()) == {UNAVAILABLE}
    found = statuses(rows, unavailable("all", Cell.R_OO))
    assert [c for c, status in found.items() if status == UNAVAILABLE] == ["R-OO"]


def test_what_a_cell_says_of_itself_counts_more(rows):
    mine = unavailable("all", Cell.R_OO, 1.0)
    for more in ((unavailable("all", None), mine), (mine, unavailable("all", None))):
        found = statuses(rows, *more)
        kept = [c for c, status in found.items() if status == readings.MEASURED]
        assert kept == ["R-OO"]


def test_csv_gives_the_same_readings(rows, tmp_path):
    rows.to_csv(tmp_path / "results.csv", index=False)
    back = pd.read_csv(tmp_path / "results.csv", dtype={"seed": str})
    assert readings.book(back) == readings.book(rows)


def test_band_spans_the_intervals_of_the_negative_controls(rows):
    found = readings.book(rows)
    each = [readings.read(found, "R-II", line) for line in NEGATIVE_LINES]
    low, high = readings.band(found, "R-II")
    assert low == min(r.lo for r in each if r.lo is not None)
    assert high == max(r.hi for r in each if r.hi is not None)


def test_chance_falls_back_on_the_combination_and_then_the_base(rows):
    mine = pooled(rows, PAIR, Cell.R_OO, Metric.CHANCE)
    changed = edit(rows, mine, value=0.07)
    found = readings.book(changed)
    unknown = Line("", Arm.DOCUMENT)
    assert readings.chance(found, "R-OO", unknown).value == 0.07
    without = readings.book(rows[~mine])
    assert readings.chance(without, "R-OO").value == 0.03
    assert readings.chance({}, "R-OO").status == ABSENT


@pytest.mark.parametrize(
    ("reading", "text", "short"),
    [
        (Reading(0.051, 0.02, 0.129, 9), "0.05 [0.02, 0.13]", ".05 .02–.13"),
        (Reading(1.0, 0.96, 1.0, 9), "1.00 [0.96, 1.00]", "1.0 .96–1.0"),
        (Reading(0.999, 0.9, 1.0, 9), "1.00 [0.90, 1.00]", "1.0 .90–1.0"),
        (Reading(-0.05, -0.1, 0.0, 9), "-0.05 [-0.10, 0.00]", "-.05 -.10–.00"),
        (Reading(0.5), "0.50", ".50"),
        (Reading(), "–", "–"),
        (Reading(status=UNAVAILABLE), "unavailable", "unavailable"),
    ],
)
def test_words_of_a_reading(reading, text, short):
    assert (reading.text(), reading.short()) == (text, short)


def test_rows_of_something_else_are_refused():
    with pytest.raises(ValueError, match=r"lack the columns study, .* Is this"):
        readings.book(pd.DataFrame({"loss": [1.0]}))


def test_an_interval_that_is_missing_is_not_a_number_in_disguise(rows):
    mask = pooled(rows, PAIR, Cell.R_OO)
    found = readings.book(edit(rows, mask, lo=math.nan, hi=math.nan))
    assert readings.read(found, "R-OO", PAIR).text() == "0.01"
