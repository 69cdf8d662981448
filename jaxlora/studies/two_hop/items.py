"""From answer logits to items: one line for each question that was asked.

Items are what is stored as the study runs; every row of the results table is a function
of them, so that a resumed study ends with identical rows.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from jaxlora.evaluate import metrics
from jaxlora.evaluate.schema import Split
from jaxlora.evaluate.scoring import Answers
from jaxlora.studies.two_hop.questions import PEOPLE_SPLITS, Asked, Key
from jaxlora.tasks.two_hop.experts import Group

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
Old = dict[tuple[str, int, str], np.ndarray]
"""What the base alone says, by (cell, pair, split)."""


def collect(
    answers: Answers,
    groups: tuple[Group, ...],
    asked: Asked,
    old: Old | None,
) -> pd.DataFrame:
    """Returns the items of one combination over all groups.

    Args:
      answers: logits with a leading axis G.
      groups: the study people.
      asked: what was asked.
      old: predictions of the base; None when the base itself is asked.
    """
    host = Answers(*(np.asarray(x) for x in answers))
    frames = []
    for g, group in enumerate(groups):
        for split in PEOPLE_SPLITS:
            logits = _logits(host, g, split, group.size, asked.people)
            place = (str(group.cell), group.pair, str(split))
            said = None if old is None else old[place]
            frames.append(people(logits, group, split, asked.keys[g][split], said))
        said = np.asarray(host.bridge[g, : group.size])
        bridges = asked.keys[g][Split.WRITTEN].bridge
        frames.append(plain(Split.WRITTEN_BRIDGE, said, bridges, group))
        said = metrics.predict(host.direct[g, 3 * asked.people :])
        frames.append(
            plain(Split.FAMILIAR_TWO_HOP, said, asked.familiar_answers[g], group)
        )
    return pd.concat(frames, ignore_index=True)


def nothing() -> pd.DataFrame:
    """The items of a combination that could not be asked."""
    return pd.DataFrame({name: [] for name in COLUMNS})


def predictions(items: pd.DataFrame) -> Old:
    """The predictions in the base's items, to tell old answers from other errors."""
    keyed = items.groupby(["cell", "pair", "split"], sort=False)["predicted"]
    return {key: frame.to_numpy() for key, frame in keyed}


def _logits(answers: Answers, g: int, split: Split, n: int, people: int):
    if split is Split.WRITTEN:
        return answers.written[g, :n]
    if split is Split.CONTEXT:
        return answers.context[g, :n]
    start = people * (Split.HOP1, Split.HOP2, Split.TWO_HOP).index(split)
    return answers.direct[g, start : start + n]


def people(
    logits: ArrayLike, group: Group, split: Split, key: Key, old: np.ndarray | None
) -> pd.DataFrame:
    """Items of one kind of question about the people of a group.

    Args:
      logits: [N, V], over a vocabulary or over candidate answers.
      group: its N people.
      split: what was asked.
      key: right and telling answers, as columns of the logits.
      old: what the base alone said, [N]; None when the base itself is asked.
    """
    n = group.size
    together = np.zeros(n, int)
    candidates = np.tile(np.unique(key.answer), (n, 1))
    predicted = metrics.predict(logits)
    nobody = np.full(n, -1)
    loss = metrics.loss(logits, key.answer)
    said = nobody if old is None else np.asarray(old)
    return pd.DataFrame(
        {
            "cell": str(group.cell),
            "pair": group.pair,
            "person": np.arange(n),
            "split": str(split),
            "covered": [record.covered for record in group.two_hop],
            "correct": (predicted == key.answer).astype(int),
            "predicted": predicted,
            "rank": metrics.rank(logits, key.answer, candidates),
            "loss": loss,
            "gap": loss - metrics.shuffled_loss(logits, key.answer, together),
            "chance": metrics.chance(predicted, key.answer, together),
            "error": metrics.error_types(
                predicted, key.answer, key.bridge, key.relation2_of_a, said
            ).astype(int),
            "counterfactual": (predicted == key.counterfactual).astype(int),
        },
        columns=COLUMNS,
    )


def plain(
    split: Split, predicted: np.ndarray, answers: np.ndarray, group: Group
) -> pd.DataFrame:
    """Items of which only right or wrong is kept."""
    n = len(predicted)
    return pd.DataFrame(
        {
            "cell": str(group.cell),
            "pair": group.pair,
            "person": np.arange(n),
            "split": str(split),
            "covered": True,
            "correct": (predicted == answers).astype(int),
            "predicted": predicted,
        },
        columns=COLUMNS,
    )
