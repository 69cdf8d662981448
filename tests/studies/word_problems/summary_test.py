"""The leaderboard, and what could not run."""

import dataclasses

import pytest

from jaxlora.evaluate.schema import Arm
from jaxlora.studies.word_problems import protocol


@pytest.fixture(scope="module")
def ranked(tiny, folder):
    """The leaderboard alone, of two merges and one that has an obstacle."""
    config = dataclasses.replace(
        tiny, seeds=0, map_seeds=1, first_map_seed=70, ranked=("mean", "sum", "slerp")
    )
    return protocol.run(config, folder / "ranked", folder / "cache")


def test_methods_stand_beside_the_mean(ranked):
    board = {x["method"]: x for x in ranked.summary["leaderboard"]}
    assert set(board) == {"mean", "sum", "slerp"}
    assert board["mean"]["above mean"]["value"] == 0
    assert board["mean"]["p_adjusted"] is None
    for name in ("sum", "slerp"):
        assert 0 <= board[name]["p_adjusted"] <= 1
        difference = board[name]["value"]["value"] - board["mean"]["value"]["value"]
        assert board[name]["above mean"]["value"] == pytest.approx(difference)


def test_ranked_methods_have_a_law_and_no_verdict(ranked):
    laws = {
        x["method"] for x in ranked.summary["laws"] if x["library"] == str(Arm.PAIR)
    }
    assert laws == {"mean", "sum", "slerp"}
    assert ranked.summary["verdicts"] == []
    assert set(ranked.rows["library"]) == {
        str(x) for x in (Arm.BASE, Arm.EXPERT_A, Arm.EXPERT_B, Arm.JOINT, Arm.PAIR)
    }
