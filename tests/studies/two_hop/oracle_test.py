"""The oracle's labels, and that its layer split is never chosen on who it scores."""

import numpy as np
import pandas as pd
import pytest

from jaxlora.evaluate.schema import Split
from jaxlora.studies.two_hop import blocks, oracle
from jaxlora.studies.two_hop.oracle import Choice

L, N, K = 3, 2, 5
FIRST, SECOND = [1.0, 0.0], [0.0, 1.0]


def parts(labels):
    """Hop 1, hop 2, two-hop and familiar questions of the direct labels."""
    return np.split(np.asarray(labels.direct), [N, 2 * N, 3 * N], axis=1)


def test_candidates_are_every_split_of_two_kinds():
    found = oracle.candidates(L)
    assert len(found) == len(set(found)) == 2 * (L + 1)
    assert {choice.split for choice in found} == set(range(L + 1))


@pytest.mark.parametrize("choice", oracle.candidates(L), ids=str)
def test_labels_have_the_shapes_of_the_questions(choice):
    labels = oracle.labels(choice, L, N, K)
    assert labels.direct.shape == (L, 3 * N + K, 3, 2)
    assert labels.written.shape == (L, N, 5, 2)
    assert labels.context.shape == (L, N, 9, 2)


@pytest.mark.parametrize("choice", oracle.candidates(L), ids=str)
def test_single_hops_go_to_their_expert_and_familiar_queries_to_none(choice):
    labels = oracle.labels(choice, L, N, K)
    hop1, hop2, two_hop, familiar = parts(labels)
    assert (hop1 == FIRST).all()
    assert (hop2 == SECOND).all()
    assert not familiar.any()
    assert not np.asarray(labels.context).any()
    # Every token of the two-hop prompt has exactly one expert.
    np.testing.assert_array_equal(two_hop.sum(-1), 1)


@pytest.mark.parametrize("choice", oracle.candidates(L), ids=str)
def test_the_last_token_is_split_by_layer(choice):
    two_hop = parts(oracle.labels(choice, L, N, K))[2]
    expected = [FIRST if layer < choice.split else SECOND for layer in range(L)]
    for person in range(N):
        assert two_hop[:, person, 2].tolist() == expected
        for token in (0, 1):
            early = expected if choice.early else [FIRST] * L
            assert two_hop[:, person, token].tolist() == early


def test_a_written_bridge_is_asked_of_one_expert_and_read_by_the_other():
    written = np.asarray(oracle.labels(Choice(1, False), L, N, K).written)
    # Tokens: A, S, Z, <think>, then the bridge.
    for token, expert in enumerate([FIRST, FIRST, SECOND, FIRST, SECOND]):
        assert (written[:, :, token] == expert).all()


def test_choose_takes_most_right_then_the_lowest_loss_then_the_first():
    losses = [[1.0, 1.0], [3.0, 1.0], [0.5, 0.5]]
    wrong, half, right = [0, 0], [1, 0], [1, 1]
    assert oracle.choose([wrong, half, right], losses) == 2
    assert oracle.choose([half, right, half], losses) == 1
    assert oracle.choose([half, half, wrong], losses) == 0
    assert oracle.choose([half, half, half], losses) == 2
    assert oracle.choose([half, half], [[1.0, 1.0]] * 2) == 0


def frame(correct: dict[str, list[int]]) -> pd.DataFrame:
    """Items of one candidate: two-hop and hop-1 rows of each person of each cell."""
    parts = []
    for cell, right in correct.items():
        for split in (Split.HOP1, Split.TWO_HOP):
            n = len(right)
            columns = {
                "cell": cell,
                "person": np.arange(n),
                "split": str(split),
                # Hop 1 says the opposite: it must not take part in the choice.
                "correct": right if split is Split.TWO_HOP else 1 - np.array(right),
                "loss": np.ones(n),
            }
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def two_hop(found: pd.DataFrame, cell: str) -> list[int]:
    mine = (found["cell"] == cell) & (found["split"] == str(Split.TWO_HOP))
    return found.loc[mine, "correct"].tolist()


def test_each_half_is_scored_under_the_choice_of_the_other():
    """Candidate 0 suits the even people, candidate 1 the odd ones.

    Chosen on the people themselves the score would be 1; on the others it is 0.
    """
    choices = oracle.candidates(1)[:2]
    even = frame({"R-OO": [1, 0, 1, 0, 1, 0]})
    odd = frame({"R-OO": [0, 1, 0, 1, 0, 1]})
    found = blocks._searched(choices, [even, odd])
    assert two_hop(found.items, "R-OO") == [0] * 6
    assert found.notes["oracle"] == {
        "R-OO, half 0": choices[1]._asdict(),
        "R-OO, half 1": choices[0]._asdict(),
    }


def test_cells_choose_for_themselves_and_all_splits_follow_the_choice():
    choices = oracle.candidates(1)[:2]
    one = frame({"R-OO": [1, 1, 1, 1], "F-OO": [0, 0, 0, 0]})
    two = frame({"R-OO": [0, 0, 0, 1], "F-OO": [0, 1, 1, 1]})
    found = blocks._searched(choices, [one, two])
    assert two_hop(found.items, "R-OO") == [1, 1, 1, 1]
    assert two_hop(found.items, "F-OO") == [0, 1, 1, 1]
    hop1 = found.items["split"] == str(Split.HOP1)
    of_f = found.items[hop1 & (found.items["cell"] == "F-OO")]
    assert of_f["correct"].tolist() == [1, 0, 0, 0]
    assert len(found.items) == len(one)


def test_counterfactual_experts_are_led_to_their_own_answer():
    """And not by the loss, which is that of the true one."""
    choices = oracle.candidates(1)[:2]
    true = frame({"R-OO": [1, 1, 1, 1]}).assign(counterfactual=0, loss=0.0)
    moved = frame({"R-OO": [0, 0, 0, 0]}).assign(counterfactual=1)
    assert two_hop(blocks._searched(choices, [true, moved]).items, "R-OO") == [1] * 4
    found = blocks._searched(choices, [true, moved], "counterfactual").items
    assert two_hop(found, "R-OO") == [0] * 4
    equal = true.assign(counterfactual=1, loss=5.0)
    found = blocks._searched(choices, [equal, moved], "counterfactual").items
    assert two_hop(found, "R-OO") == [1] * 4


def test_the_candidates_given_are_left_as_they_were():
    given = [frame({"R-OO": [1, 0, 1]}), frame({"R-OO": [0, 1, 0]})]
    copies = [x.copy() for x in given]
    blocks._searched(oracle.candidates(1)[:2], given)
    for x, copy in zip(given, copies, strict=True):
        pd.testing.assert_frame_equal(x, copy)
