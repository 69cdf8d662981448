"""Predictions: read, hashed, checked; and every way in which a file can be wrong."""

import json
import math

import pytest

from jaxlora.evaluate import predictions, schema
from jaxlora.evaluate.predictions import Claim, Ending, Prediction
from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Metric, Split
from jaxlora.evaluate.statistics import Interval

RECORD = {
    "cell": "R-OO",
    "library": "2-combination",
    "method": "mean",
    "claim": "upper_at_most_chance_plus",
    "bound": 0.1,
    "statement": "two edits do not compose",
}


def row(value, lo=None, hi=None, *, seed="all", n=60, condition=None, **changes):
    fields = {
        "cell": Cell.R_OO,
        "arm": Arm.PAIR,
        "method": Method.MEAN,
        "split": Split.TWO_HOP,
        "metric": Metric.ACCURACY,
        "where": tuple((condition or {}).items()),
    }
    ends = (math.nan if x is None else x for x in (value, lo, hi))
    return schema.row(seed, Address(**fields | changes), Interval(*ends, n))


def predict(claim, bound, **changes):
    record = RECORD | {"claim": claim, "bound": bound} | changes
    return predictions.parse([record])


def outcome(claim, bound, rows):
    (got,) = predictions.check(predict(claim, bound), rows)
    return got


def write(tmp_path, content):
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(content))
    return path


def test_load_reads_every_field(tmp_path):
    second = {
        "cell": None,
        "library": "base",
        "method": "none",
        "split": "familiar two-hop",
        "metric": "loss",
        "claim": "reported",
        "condition": {"coverage": 0.5},
        "statement": "for the record",
    }
    got = predictions.load(write(tmp_path, [RECORD, second]))
    assert got == (
        Prediction(
            cell=Cell.R_OO,
            library=Arm.PAIR,
            method=Method.MEAN,
            claim=Claim.UPPER_AT_MOST_CHANCE_PLUS,
            bound=0.1,
            statement="two edits do not compose",
        ),
        Prediction(
            cell=None,
            library=Arm.BASE,
            method=Method.NONE,
            claim=Claim.REPORTED,
            bound=None,
            statement="for the record",
            split=Split.FAMILIAR_TWO_HOP,
            metric=Metric.LOSS,
            condition={"coverage": 0.5},
        ),
    )
    assert isinstance(got[0].cell, Cell)
    assert len(set(got)) == 2


def test_digest_is_of_the_content_only():
    other = RECORD | {"bound": 1}
    first = predictions.digest(predictions.parse([RECORD, other]))
    shuffled = dict(reversed(list(RECORD.items())))
    again = predictions.parse([other | {"bound": 1.0}, shuffled])
    assert predictions.digest(again) == first
    assert len(first) == 64
    for change in (
        {"bound": 0.11},
        {"statement": "they do"},
        {"cell": "F-OO"},
        {"split": "hop 1"},
        {"condition": {"coverage": 1}},
    ):
        changed = predictions.parse([RECORD | change, other])
        assert predictions.digest(changed) != first


ROW = row(0.5, 0.4, 0.6)


HELD, FAILED, UNDECIDED = Ending.HELD, Ending.FAILED, Ending.UNDECIDED


@pytest.mark.parametrize(
    ("claim", "bound", "ending"),
    [
        (claim, bound, ending)
        for claims, cases in {
            # The interval is [0.4, 0.6], its value 0.5.
            (Claim.VALUE_AT_LEAST, Claim.LOWER_AT_LEAST): (
                *((0.39, HELD), (0.4, HELD), (0.41, UNDECIDED), (0.5, UNDECIDED)),
                *((0.6, UNDECIDED), (0.61, FAILED)),
            ),
            (Claim.VALUE_AT_MOST, Claim.UPPER_AT_MOST): (
                *((0.61, HELD), (0.6, HELD), (0.59, UNDECIDED), (0.4, UNDECIDED)),
                (0.39, FAILED),
            ),
            # Chance is 0.2.
            (Claim.UPPER_AT_MOST_CHANCE_PLUS,): (
                *((0.41, HELD), (0.39, UNDECIDED), (0.21, UNDECIDED), (0.19, FAILED)),
            ),
            (Claim.INTERVAL_CONTAINS,): (
                *((0.4, HELD), (0.6, HELD), (0.39, FAILED), (0.61, FAILED)),
            ),
        }.items()
        for claim in claims
        for bound, ending in cases
    ],
)
def test_each_claim_around_its_bounds(claim, bound, ending):
    got = outcome(claim, bound, [ROW, row(0.2, metric=Metric.CHANCE)])
    assert got.ending == ending
    assert got.held == {HELD: True, FAILED: False}.get(ending)
    assert got.sentence.endswith(f": {ending}.")


def test_a_value_without_an_interval_is_on_one_side():
    assert outcome("value_at_least", 0.5, [row(0.5)]).ending == HELD
    assert outcome("value_at_most", 0.4, [row(0.5)]).ending == FAILED


def test_a_promise_to_report_is_not_held():
    got = outcome("reported", None, [ROW])
    assert (got.ending, got.held) == (Ending.REPORTED, None)
    assert outcome("reported", None, [row(0.5)]).ending == Ending.NOT_MEASURED


@pytest.mark.parametrize(
    ("claim", "rows", "sentence"),
    [
        ("value_at_least", [], "no such row"),
        ("value_at_least", [row(None)], "no value"),
        ("value_at_least", [row(float("nan"))], "no value"),
        ("value_at_least", [row(0.5, 0.4, 0.6, seed=0)], "no such row"),
        ("value_at_least", [row(0.5, metric=Metric.RANK)], "no such row"),
        ("lower_at_least", [row(0.5)], "lower bound"),
        ("upper_at_most_chance_plus", [ROW], "chance unknown"),
    ],
)
def test_what_was_not_measured_is_neither_held_nor_missed(claim, rows, sentence):
    got = outcome(claim, 0.1, rows)
    assert (got.ending, got.held) == (Ending.NOT_MEASURED, None)
    assert sentence in got.sentence
    assert "not measured" in got.sentence


@pytest.mark.parametrize(
    "change",
    [
        {"cell": Cell.H_OO},
        {"cell": Cell.R_OI},
        {"cell": None},
        {"arm": Arm.TRIPLE},
        {"method": Method.SUM},
        {"split": Split.HOP1},
    ],
)
def test_a_prediction_speaks_of_its_own_row_only(change):
    rows = [row(0.9, **change), ROW]
    assert outcome("value_at_most", 0.6, rows).held is True
    assert outcome("value_at_most", 0.6, rows[:1]).held is None


def test_chance_is_that_of_the_same_row():
    rows = [
        row(0.9, metric=Metric.CHANCE, cell=Cell.F_OO),
        row(0.9, metric=Metric.CHANCE, condition={"coverage": 0}),
        row(0.05, metric=Metric.CHANCE),
        row(0.25, 0.2, 0.3),
    ]
    assert outcome("upper_at_most_chance_plus", 0.1, rows).held is False


def test_several_rows_each_get_an_outcome():
    rows = [
        row(0.9, condition={"coverage": 1.0}),
        row(0.2, condition={"coverage": 0.0, "phi": 14}),
    ]
    both = predictions.check(predict("value_at_least", 0.8), rows)
    assert [x.held for x in both] == [True, False]
    assert '{"coverage": 1.0}' in both[0].sentence
    (one,) = predictions.check(
        predict("value_at_least", 0.8, condition={"coverage": 0}), rows
    )
    assert one.value == 0.2
    (none,) = predictions.check(
        predict("value_at_least", 0.8, condition={"level": 2}), rows
    )
    assert none.held is None


def test_the_base_rows_of_no_cell():
    base = row(0.99, cell=None, arm=Arm.BASE, method=Method.NONE)
    claims = predict("value_at_least", 0.95, cell=None, library="base", method="none")
    assert [x.held for x in predictions.check(claims, [base, ROW])] == [True]


def test_the_sentence():
    rows = [row(0.02, 0.0, 0.06), row(0.05, metric=Metric.CHANCE)]
    assert outcome("upper_at_most_chance_plus", 0.1, rows).sentence == (
        "R-OO, 2-combination, mean, two-hop accuracy: 0.02 [0.00, 0.06]; predicted "
        "upper bound at most chance 0.05 + 0.1: held."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"librari": "base"}, "unknown field 'librari' (did you mean 'library'?)"),
        ({"cell": "R-00"}, "prediction 1, cell: got 'R-00' (did you mean 'R-OO'?)"),
        ({"cell": "F-II"}, "There are: R-II, R-OI, R-IO, R-OO, H-OO, F-OO"),
        ({"library": "2-combo"}, "did you mean '2-combination'?"),
        ({"method": "men"}, "did you mean 'mean'?"),
        ({"claim": "value_atleast"}, "did you mean 'value_at_least'?"),
        ({"split": "two hop"}, "did you mean 'two-hop'?"),
        ({"metric": 3}, "metric: got 3. There are: accuracy"),
        ({"library": None}, "library: got None"),
        ({"bound": None}, "needs a finite number as its bound, got None"),
        ({"bound": True}, "got True"),
        ({"bound": "0.1"}, "got '0.1'"),
        ({"bound": float("nan")}, "got nan"),
        ({"bound": float("inf")}, "got inf"),
        ({"claim": "reported"}, "takes no bound, got 0.1"),
        ({"statement": " "}, "expected a statement in words"),
        ({"condition": 1.0}, "expected a condition"),
        ({"condition": {"coverage": float("nan")}}, "without NaN"),
    ],
)
def test_a_wrong_entry_is_explained(tmp_path, change, message):
    path = write(tmp_path, [RECORD | change])
    with pytest.raises(ValueError, match=r"predictions\.json, prediction 1") as error:
        predictions.load(path)
    assert message in str(error.value)


def test_a_missing_field_is_named(tmp_path):
    short = {k: v for k, v in RECORD.items() if k not in ("method", "statement")}
    with pytest.raises(ValueError, match="prediction 2: missing method, statement"):
        predictions.load(write(tmp_path, [RECORD, short]))
    unbound = {k: v for k, v in RECORD.items() if k != "bound"}
    with pytest.raises(ValueError, match="got None"):
        predictions.load(write(tmp_path, [unbound]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"predictions": []}, "expected a list of predictions, got dict"),
        (["R-OO"], "prediction 1: expected an object with fields, got str"),
        ([RECORD, RECORD], "prediction 2 repeats prediction 1"),
    ],
)
def test_a_wrong_list_is_explained(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        predictions.load(write(tmp_path, content))


def test_a_file_that_is_no_json(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('[\n{"cell": }]')
    with pytest.raises(ValueError, match=r"p\.json is not JSON: expecting value at li"):
        predictions.load(path)
    path.write_bytes(b"[\xff]")
    with pytest.raises(ValueError, match=r"byte 0xff at offset 1 is no UTF-8"):
        predictions.load(path)
