"""What is recommended was measured: each number stands in the leaderboard."""

import pathlib

import pandas as pd
import pytest

from jaxlora import merge
from jaxlora.commands import merge_choice

ROOT = pathlib.Path(__file__).parents[2]
BOARD = pd.read_csv(ROOT / "experiments/boundary/leaderboard.csv")
WRITTEN = BOARD[BOARD.regime == "both practise"].set_index("method")
LAYERS = BOARD[BOARD.regime == "placed"].set_index("method")


@pytest.mark.parametrize("choice", merge_choice.CHOICES, ids=lambda x: x.name)
def test_numbers_are_those_of_the_leaderboard(choice):
    assert choice.written == pytest.approx(WRITTEN.composed[choice.name], abs=0.005)
    assert choice.layers == pytest.approx(LAYERS.composed[choice.name], abs=0.005)
    assert choice.kept == pytest.approx(WRITTEN.familiar[choice.name], abs=0.005)


def test_the_bound_and_the_count_are_those_of_the_leaderboard():
    joint = [board.composed["one LoRA on both"] for board in (WRITTEN, LAYERS)]
    assert pytest.approx(joint, abs=0.005) == merge_choice.JOINT
    assert set(WRITTEN.n) == set(LAYERS.n) == {merge_choice.PEOPLE}


def test_none_is_better_than_the_mean_where_it_is_first_choice():
    rivals = WRITTEN[WRITTEN.kind.isin(["merge", "route"])].drop("mean")
    assert len(rivals) == 68
    better = rivals[(rivals.p_adjusted < 0.05) & (rivals.above > 0)]
    assert better.empty


def test_choices_are_merges_and_say_what_they_need():
    for choice in merge_choice.CHOICES:
        free = merge.describe(choice.name).data == "free"
        assert (choice.needs == "-") == free
