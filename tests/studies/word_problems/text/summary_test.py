"""From answers to rows: shares, spreads, comparisons and criteria, by hand."""

import numpy as np
import pandas as pd
import pytest

from jaxlora.evaluate.schema import STEP_ERRORS, Arm, Method, Metric
from jaxlora.studies.harness.samples import Intervals
from jaxlora.studies.word_problems.text import summary
from jaxlora.studies.word_problems.text.answer import COLUMNS
from jaxlora.studies.word_problems.text.config import ProblemsConfig
from jaxlora.studies.word_problems.text.design import Regime

PLAIN = Regime(("plain",))
TITLES = ("english", "GSM_p2")
HOW = Intervals(0.95, 50)


def items(correct, level="hard", **more):
    fields = {
        "test": 0,
        "level": level,
        "instance": -1,
        "template": -1,
        "correct": correct,
        "form": "plain",
        "steps": correct,
        "error": [-1 if x else 0 for x in correct],
        "ended": 1,
    }
    return pd.DataFrame(fields | more)[list(COLUMNS)]


def by_metric(samples):
    return {x.metric: values[0].values.tolist() for x, values in samples.items()}


def test_answers_become_shares_and_kinds_of_errors():
    block = PLAIN.block(0, Arm.PAIR, Method.MEAN)
    frame = items([1, 0, 0, 1], error=[-1, 2, 5, -1], steps=[1, 0, 0, 0])
    measured = by_metric(summary.measured({block: frame}, TITLES))
    assert measured[Metric.ACCURACY] == [1, 0, 0, 1]
    assert measured[Metric.STEPS_RIGHT] == [1, 0, 0, 0]
    assert measured[Metric.ARITHMETIC] == [0, 1, 0, 0]
    assert measured[Metric.MISSING] == [0, 0, 1, 0]
    assert set(measured) == {Metric.ACCURACY, Metric.STEPS_RIGHT, *STEP_ERRORS}


def test_steps_that_cannot_be_read_are_not_counted():
    block = PLAIN.block(0, Arm.PAIR, Method.MEAN)
    none = summary.measured({block: items([1, 0], steps=-1, error=-1)}, TITLES)
    assert set(by_metric(none)) == {Metric.ACCURACY}
    some = summary.measured({block: items([1, 0, 0], steps=[1, -1, 0])}, TITLES)
    assert by_metric(some)[Metric.STEPS_RIGHT] == [1, 0]
    assert by_metric(some)[Metric.ACCURACY] == [1, 0, 0]


def test_rows_name_test_level_and_regime():
    block = PLAIN.block(0, Arm.PAIR, Method.MEAN)
    (where,) = {
        x.at(metric=Metric.LOSS) for x in summary.measured({block: items([1])}, TITLES)
    }
    assert where.condition == {
        "experts differ in": "levels",
        "format": "plain",
        "test": "english",
        "level": "hard",
    }


def sets(correct):
    n = len(correct) // 2
    parallel = {"instance": [0] * n + [1] * n, "template": list(range(n)) * 2}
    return items(correct, level="all", test=1, **parallel)


def test_the_spread_is_over_parallel_sets():
    block = PLAIN.block(0, Arm.PAIR, Method.MEAN)
    other = PLAIN.block(1, Arm.PAIR, Method.MEAN)
    frames = {block: sets([1, 0, 1, 1]), other: sets([1, 1, 1, 1])}
    rows = list(summary.spreads(frames, TITLES))
    values = {x["seed"]: x["value"] for x in rows}
    assert values[0] == pytest.approx(np.std([0.5, 1], ddof=1), abs=1e-6)
    assert values[1] == 0
    assert values["all"] == pytest.approx(values[0] / 2, abs=1e-6)
    assert {x["n"] for x in rows} == {2}
    assert all("GSM_p2" in x["condition"] for x in rows)
    assert not list(summary.spreads({block: items([1, 0])}, TITLES))


def test_instances_of_a_template_count_as_alike():
    block = PLAIN.block(0, Arm.PAIR, Method.MEAN)
    (sample,) = (
        x[0]
        for at, x in summary.measured({block: sets([1, 0, 1, 1])}, TITLES).items()
        if at.metric is Metric.ACCURACY
    )
    assert sample.libraries.tolist() == [0, 1, 0, 1]


def test_a_combination_is_compared_with_everything_on_the_same_problems():
    answers = {
        summary.base_block(0): [0, 0, 0, 0],
        PLAIN.block(0, Arm.PAIR, Method.MEAN): [1, 1, 1, 0],
        PLAIN.block(0, Arm.RANDOM, Method.MEAN): [0, 1, 0, 0],
        PLAIN.block(0, Arm.RANDOM, Method.SUM): [1, 1, 1, 1],
        PLAIN.block(0, Arm.HARD): [1, 1, 1, 1],
        Regime(("python",)).block(0, Arm.EXPERT_A): [1, 1, 1, 1],
    }
    blocks = {block: items(x) for block, x in answers.items()}
    of = summary.measured(blocks, TITLES)
    rows = list(summary.compared(of, (0,), HOW))
    values = {
        x["condition"].split('"against": "')[1].split(" [")[0]: x["value"] for x in rows
    }
    assert values == {"base": 0.75, "random": 0.5, "expert of the hard level": -0.25}
    assert {x["metric"] for x in rows} == {Metric.DIFFERENCE.value}


def test_experts_are_judged_on_their_own_level():
    blocks = {
        PLAIN.block(0, Arm.EXPERT_A): pd.concat(
            [items([1, 1, 0, 1], level="easy"), items([0, 0], level="medium")]
        ),
        PLAIN.block(0, Arm.EXPERT_B): items([0, 1, 0, 0], level="medium"),
        Regime(("plain", "python")).block(0, Arm.EXPERT_A): items([0], level="easy"),
        PLAIN.block(0, Arm.JOINT): items([0], level="easy"),
    }
    config = ProblemsConfig(min_own=0.5)
    of = summary.measured(blocks, TITLES)
    judged = [(x.name, x.value, x.passed) for _, x, _ in summary.judged(of, config)]
    assert judged == [
        ("easy expert, plain, on english", 0.75, True),
        ("medium expert, plain, on english", 0.25, False),
    ]


def test_formats_that_were_written_are_counted():
    both = Regime(("plain", "python")).block(2, Arm.PAIR, Method.SUM)
    frame = items([1, 0, 1], form=["python", "plain", "python"], ended=[1, 0, 1])
    (record,) = summary.written({both: frame, summary.base_block(2): frame[:0]})
    assert record["formats"] == {"python": 2, "plain": 1}
    assert record["ended"] == pytest.approx(2 / 3)
    assert (record["seed"], record["method"]) == (2, "sum")
