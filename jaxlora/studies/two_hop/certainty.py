"""Does a route know when it routes well? Right and wrong against its entropy.

The entropy is that of the gate's weights at the last token of the two-hop prompt, mean
over layers and sites; see :mod:`jaxlora.evaluate.surety`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlora.evaluate.schema import Metric, Split
from jaxlora.evaluate.statistics import Interval
from jaxlora.evaluate.surety import surety
from jaxlora.studies.two_hop import rows
from jaxlora.studies.two_hop.rows import Place, Samples

PARTS = 3
"""Ranges of entropy whose accuracies are told."""


def certainty(
    found: Samples, seeds: Sequence[int], level: float
) -> list[dict[str, Any]]:
    """Rows of every combination whose gate was looked at, pooled over seeds.

    One row has the AUC (1: right answers have less entropy than wrong ones, 0.5: no
    relation), if there are both; others the accuracy in each third of the entropy.

    Args:
      found: samples of answers and of entropies.
      seeds: those that are pooled.
      level: coverage of the intervals.
    """
    out: list[dict[str, Any]] = []
    for place in dict.fromkeys(_answers(x) for x in found if _entropy(x)):
        sure = _sure(found, place, seeds)
        if sure is not None:
            out += _rows(place, *sure, level)
    return out


def _entropy(x: Place) -> bool:
    where = dict(x.where)
    return x.metric is Metric.ROUTE_ENTROPY and where.get("token") == "last"


def _answers(x: Place) -> Place:
    return x._replace(split=Split.TWO_HOP, metric=Metric.ACCURACY, where=())


def _sure(found: Samples, place: Place, seeds: Sequence[int]):
    """Right or wrong and entropy [N] of all people of all seeds."""
    layers: Mapping[Place, Mapping[int, np.ndarray]] = {
        x: y for x, y in found.items() if _entropy(x) and _answers(x) == place
    }
    right = found.get(place, {})
    usable = [s for s in seeds if s in right and all(s in y for y in layers.values())]
    if not usable:
        return None
    entropies = [np.mean([y[s] for y in layers.values()], axis=0) for s in usable]
    return np.concatenate([right[s] for s in usable]), np.concatenate(entropies)


def _rows(place: Place, right: np.ndarray, entropy: np.ndarray, level: float):
    told = surety(right, entropy, parts=PARTS, level=level)
    for i, part in enumerate(told.parts):
        name = f"{i + 1} of {len(told.parts)}, from low"
        here = place._replace(where=(("entropy", name),))
        yield rows.to_row("all", here, part.accuracy)
    nothing = Interval(np.nan, np.nan, np.nan, len(right))
    here = place._replace(metric=Metric.ROUTE_CERTAINTY)
    yield rows.to_row("all", here, told.auc or nothing)
