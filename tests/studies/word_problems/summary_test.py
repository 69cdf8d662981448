"""Rows, verdicts and the leaderboard of blocks that are made up."""

import dataclasses
import types

import pytest

from jaxlora.evaluate.schema import Arm, Method, Metric, Split
from jaxlora.studies.word_problems import design, summary
from jaxlora.studies.word_problems.log import Asked, Log
from word_problem_items import SEEDS, study

HALF = {"both": 0.5}


def finish(config, log):
    """A run that has asked everything."""
    named = types.SimpleNamespace(name="word problems", revision=None)
    given = {"config": config, "study": named, "origin": {}}
    this = types.SimpleNamespace(**given, progress=lambda *_: None)
    return summary.finish(this, log, ())


def logged(config, direct=SEEDS, methods=(Method.MEAN,), share=0.5):
    """A log of the first regime of a configuration."""
    point = design.points(config)[0]
    asked = Asked(point, point.regimes[0])
    log = Log(passed={point: [*SEEDS]}, direct={point: [*direct]})
    for method in methods:
        more = {"method": method, "regime": asked.condition}
        log.blocks.setdefault(asked, {}).update(study({"both": share}, **more))
    log.lowest = {(asked, Arm.PAIR): 1.0}
    return log, asked


@pytest.fixture
def judged(tiny):
    return dataclasses.replace(tiny, overlaps=(1.0,))


@pytest.fixture
def board(tiny):
    """The leaderboard alone."""
    return dataclasses.replace(
        tiny, seeds=0, map_seeds=1, ranked=("mean", "sum", "slerp")
    )


def rows_of(ended, **where):
    rows = ended.rows
    for column, value in where.items():
        rows = rows[rows[column] == str(value)]
    return rows


def test_a_combination_has_rows_differences_a_law_and_a_verdict(judged):
    ended = finish(judged, logged(judged)[0])
    pair = rows_of(ended, library=Arm.PAIR, split=Split.BOTH)
    seeds = pair[pair["metric"] == str(Metric.ACCURACY)]["seed"].astype(str)
    assert sorted(seeds) == [*map(str, SEEDS), "all"]
    # Below each of seven controls, and the joint LoRA.
    differences = pair[pair["metric"] == str(Metric.DIFFERENCE)]
    assert len(differences) == 8
    assert differences["condition"].str.contains("against").all()
    assert {x["kept"] for x in ended.summary["laws"]} == {
        "alone",
        "in chains",
        "answer only",
    }
    labels = {x["asked"]: x["label"] for x in ended.summary["verdicts"]}
    assert labels == {str(x): "composes" for x in (Split.BOTH, Split.ANSWER_BOTH)}


def test_without_bases_that_answer_so_that_control_is_unavailable(judged):
    ended = finish(judged, logged(judged, direct=())[0])
    direct = rows_of(ended, split=Split.ANSWER_BOTH)
    assert direct["metric"].tolist() == [str(Metric.AVAILABLE)]
    assert "no base answers known problems" in direct["condition"].item()
    assert {x["asked"] for x in ended.summary["verdicts"]} == {str(Split.BOTH)}
    assert "answer only" not in {x["kept"] for x in ended.summary["laws"]}


def test_no_base_no_rows(judged):
    log, _ = logged(judged)
    log.passed, log.direct, log.failed = {}, {}, ["70 (headline)"]
    ended = finish(judged, log)
    assert set(ended.rows["metric"]) <= {str(Metric.AVAILABLE)}
    assert ended.summary["verdicts"] == ended.summary["laws"] == []
    assert ended.failed == ["70 (headline)"]


def test_methods_stand_beside_the_mean(board):
    log, _ = logged(board, methods=(Method.MEAN, Method.SUM))
    ended = finish(board, log)
    ranks = {x["method"]: x for x in ended.summary["leaderboard"]}
    assert set(ranks) == {"mean", "sum"}
    assert ranks["mean"]["p_adjusted"] is None
    assert ranks["mean"]["above mean"]["value"] == 0
    assert 0 <= ranks["sum"]["p_adjusted"] <= 1
    difference = ranks["sum"]["value"]["value"] - ranks["mean"]["value"]["value"]
    assert ranks["sum"]["above mean"]["value"] == pytest.approx(difference)


def test_a_leaderboard_without_the_mean_is_empty(board):
    log, _ = logged(board, methods=(Method.SUM,))
    assert finish(board, log).summary["leaderboard"] == []


def test_methods_that_could_not_run_say_why(board):
    log, asked = logged(board)
    block = asked.block(70, Arm.PAIR, Method.SLERP)
    log.refused[block] = "slerp interpolates between two experts"
    log.blocks[asked][block] = next(iter(log.blocks[asked].values())).iloc[:0]
    refused = finish(board, log).summary["refused"]
    assert [x["method"] for x in refused] == ["slerp"]
    assert refused[0]["reason"].startswith("slerp interpolates")
    assert refused[0]["base"] == "leaderboard"
