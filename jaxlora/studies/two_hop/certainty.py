"""Does a route know when it routes well? Right and wrong against its entropy.

The entropy is that of the gate's weights at the last token of the two-hop prompt, mean
over layers and sites; see :mod:`jaxlora.evaluate.surety`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxlora.evaluate import schema
from jaxlora.evaluate.schema import Address, Metric, Split
from jaxlora.evaluate.surety import surety
from jaxlora.studies.harness.criteria import bare
from jaxlora.studies.harness.samples import Samples

PARTS = 3
"""Ranges of entropy whose accuracies are shown."""


def certainty(
    measured: Samples, seeds: Sequence[int], confidence: float
) -> Iterator[dict[str, Any]]:
    """Rows of every combination whose gate was looked at, pooled over seeds.

    One row has the AUC (1: right answers have less entropy than wrong ones, 0.5: no
    relation), if there are both; others the accuracy in each third of the entropy.

    Args:
      measured: samples of answers and of entropies.
      seeds: those that are pooled.
      confidence: nominal coverage of the intervals.
    """
    for x in dict.fromkeys(_answers(x) for x in measured if _entropy(x)):
        pair = _right_and_entropy(measured, x, seeds)
        if pair is not None:
            yield from _rows(x, *pair, confidence)


def _entropy(x: Address) -> bool:
    where = dict(x.where)
    return x.metric is Metric.ROUTE_ENTROPY and where.get("token") == "last"


def _answers(x: Address) -> Address:
    return x.at(split=Split.TWO_HOP, metric=Metric.ACCURACY, where=())


def _right_and_entropy(measured: Samples, x: Address, seeds: Sequence[int]):
    """Right or wrong and entropy [N] of all people of all seeds."""
    layers = [y for z, y in measured.items() if _entropy(z) and _answers(z) == x]
    right = measured.get(x, {})
    usable = [s for s in seeds if s in right and all(s in y for y in layers)]
    if not usable:
        return None
    entropies = [np.mean([y[s].values for y in layers], axis=0) for s in usable]
    answers = np.concatenate([right[s].values for s in usable])
    return answers, np.concatenate(entropies)


def _rows(x: Address, right: np.ndarray, entropy: np.ndarray, confidence: float):
    sure = surety(right, entropy, parts=PARTS, confidence=confidence)
    for i, part in enumerate(sure.parts):
        name = f"{i + 1} of {len(sure.parts)}, from low"
        yield schema.row("all", x.at(where=(("entropy", name),)), part.accuracy)
    auc = sure.auc or bare(np.nan, len(right))
    yield schema.row("all", x.at(metric=Metric.ROUTE_CERTAINTY), auc)
