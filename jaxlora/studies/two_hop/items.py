"""Items: one line for each question that was asked, and the key to its answers.

Items are what is stored as the study runs; every row of the results table is a function
of them, so that a resumed study ends with identical rows.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from jaxlora.evaluate import metrics
from jaxlora.evaluate.schema import Split
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tasks.two_hop.records import Record, Vocab

COLUMNS = (
    "cell",
    "pair",
    "person",
    "split",
    "covered",
    "correct",
    "predicted",
    "rank",
    "loss",
    "gap",
    "chance",
    "error",
    "counterfactual",
)
OldAnswers = dict[tuple[str, int, str], np.ndarray]
"""What the base alone answers, [N], by (cell, pair, split)."""


class Key(NamedTuple):
    """Right and telling answers to one kind of question about one group, [N] each.

    -1 stands for "there is none".
    """

    answer: np.ndarray
    bridge: np.ndarray
    relation2_of_a: np.ndarray
    counterfactual: np.ndarray


def keys(
    group: Group, vocab: Vocab, known: Mapping[tuple[str, ...], str]
) -> dict[Split, Key]:
    """Right and telling answers to every kind of question about a group.

    Args:
      group: study people.
      vocab: whose ids stand for names.
      known: facts that the base knows, ``{(head, relation): tail}``.
    """
    ids = vocab.ids

    def tokens(words) -> np.ndarray:
        return np.array([ids[word] if word else -1 for word in words])

    def answers(records: tuple[Record, ...]) -> np.ndarray:
        return tokens([record.answer[0] for record in records])

    nobody = np.full(group.size, -1)
    bridge = tokens([record.bridge for record in group.two_hop])
    # A may itself be somebody's bridge, of whom an expert knows the second hop.
    known = dict(known) | {record.prompt: record.answer[0] for record in group.hop2}
    second = [
        known.get((record.prompt[0], record.prompt[2]), "") for record in group.two_hop
    ]
    tail = answers(group.two_hop)
    # With ties there is no telling whose answer the deranged one is.
    tied = len(set(tail.tolist())) < group.size or len(set(bridge)) < group.size
    moved = nobody if tied else np.roll(tail, -1)
    two_hop = Key(tail, bridge, tokens(second), moved)
    return {
        Split.HOP1: Key(answers(group.hop1), nobody, nobody, nobody),
        Split.HOP2: Key(answers(group.hop2), nobody, nobody, nobody),
        Split.TWO_HOP: two_hop,
        Split.WRITTEN: two_hop,
        Split.CONTEXT: two_hop,
    }


def nothing() -> pd.DataFrame:
    """The items of an arm that could not be asked."""
    return pd.DataFrame({name: [] for name in COLUMNS})


def old_answers(items: pd.DataFrame) -> OldAnswers:
    """The predictions in the base's items, to tell old answers from other errors."""
    keyed = items.groupby(["cell", "pair", "split"], sort=False)["predicted"]
    return {key: frame.to_numpy() for key, frame in keyed}


def people(
    logits: ArrayLike, group: Group, split: Split, key: Key, old: OldAnswers | None
) -> pd.DataFrame:
    """Items of one kind of question about the people of a group.

    Args:
      logits: [N, V], over a vocabulary or over candidate answers.
      group: its N people.
      split: what was asked.
      key: right and telling answers, as columns of the logits.
      old: what the base alone answers; None when the base itself is asked.
    """
    n = group.size
    alike = np.zeros(n, int)  # all people of a group are shuffled among each other
    candidates = np.tile(np.unique(key.answer), (n, 1))
    predicted = metrics.predict(logits)
    loss = metrics.loss(logits, key.answer)
    name = (str(group.cell), group.pair, str(split))
    before = np.full(n, -1) if old is None else np.asarray(old[name])
    errors = metrics.error_types(
        predicted, key.answer, key.bridge, key.relation2_of_a, before
    )
    # One table of all columns: to add them to one that is there takes twice the time.
    columns = _right_or_wrong(split, predicted, key.answer, group) | {
        "covered": [record.covered for record in group.two_hop],
        "rank": metrics.rank(logits, key.answer, candidates),
        "loss": loss,
        "gap": loss - metrics.shuffled_loss(logits, key.answer, alike),
        "chance": metrics.chance(predicted, key.answer, alike),
        "error": errors.astype(int),
        "counterfactual": (predicted == key.counterfactual).astype(int),
    }
    return pd.DataFrame(columns, columns=COLUMNS)


def right_or_wrong(
    split: Split, predicted: np.ndarray, answers: np.ndarray, group: Group
) -> pd.DataFrame:
    """Items of which only right or wrong is kept.

    Args:
      split: what was asked.
      predicted: [N], the answers given.
      answers: [N], the right ones.
      group: whose people.
    """
    columns = _right_or_wrong(split, predicted, answers, group)
    return pd.DataFrame(columns, columns=COLUMNS)


def _right_or_wrong(
    split: Split, predicted: np.ndarray, answers: np.ndarray, group: Group
) -> dict[str, Any]:
    return {
        "cell": str(group.cell),
        "pair": group.pair,
        "person": np.arange(len(predicted)),
        "split": str(split),
        "covered": True,
        "correct": (predicted == answers).astype(int),
        "predicted": predicted,
    }
