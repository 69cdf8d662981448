"""Evidence, verdicts and the fate of the predictions, from the samples of a study."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlora.evaluate import verdict
from jaxlora.evaluate.schema import Cell, Library, Method, Metric, Split
from jaxlora.evaluate.statistics import Interval, Paired
from jaxlora.evaluate.verdict import Evidence, Thresholds
from jaxlora.studies.two_hop.rows import Place, Samples, difference, interval

# What gets a verdict, and what is only compared: there are no counterfactual experts
# for the identity rows and the A->C expert of others, so they could never compose.
JUDGED = (Library.PAIR, Library.TRIPLE)
COMPARED = (*JUDGED, Library.TRIPLE_OTHERS, Library.IDENTITY)
ALONE = (Library.BASE, Library.HOP1, Library.HOP2)
SAME_METHOD = (Library.RANDOM, Library.PERMUTED, Library.SHUFFLED)
COUNTERFACTUALS = (Library.COUNTERFACTUAL1, Library.COUNTERFACTUAL2)


@dataclasses.dataclass(frozen=True)
class Record:
    """What judging needs beside the samples."""

    seeds: tuple[int, ...]
    """Seeds whose base passed its gates."""
    own: Mapping[tuple[float, Cell, Library], float]
    """Lowest accuracy of a library's experts on their own facts."""
    min_own: float
    thresholds: Thresholds
    resamples: int


def two_hop(coverage: float, cell: Cell, library: Library, method: Method) -> Place:
    """The place of two-hop accuracy."""
    return Place(coverage, cell, library, method, Split.TWO_HOP, Metric.ACCURACY)


def controls(x: Place) -> list[Place]:
    """The negative controls of a combination: alone, and combined the same way."""
    alone = [x._replace(library=name, method=Method.NONE) for name in ALONE]
    return alone + [x._replace(library=name) for name in SAME_METHOD]


def verdicts(found: Samples, record: Record) -> list[dict[str, Any]]:
    """Judges every judged library, method, cell and coverage level.

    P-values are adjusted over the methods tried on the same cell and library.
    """
    out = []
    for coverage in sorted({place.coverage for place in found}):
        places = [
            place
            for place in found
            if place.coverage == coverage
            and place.library in JUDGED
            and place.split is Split.TWO_HOP
            and place.metric is Metric.ACCURACY
            and place.covered is None
        ]
        evidences = verdict.adjust([evidence(found, x, record) for x in places])
        for e in evidences:
            label, cause, reason = verdict.decide(e, record.thresholds)
            out.append(
                {
                    "coverage": coverage,
                    "cell": str(e.cell),
                    "library": str(e.library),
                    "method": str(e.method),
                    "label": str(label),
                    "cause": str(cause),
                    "reason": reason,
                    "p_adjusted": e.p_adjusted,
                }
            )
    return out


def evidence(found: Samples, x: Place, record: Record) -> Evidence:
    """Gathers what the verdict on one combination rests on."""
    base = x._replace(library=Library.BASE, method=Method.NONE)
    joint = x._replace(library=Library.JOINT, method=Method.NONE)
    hops = {
        name: _pool(found, x._replace(split=split), record)
        for name, split in (("hop 1", Split.HOP1), ("hop 2", Split.HOP2))
    }
    others: dict[str, Paired | None] = {
        f"{y.library} [{y.method}]": difference(
            found, x, y, record.seeds, record.thresholds.level, record.resamples
        )
        for y in controls(x)
    }
    return Evidence(
        cell=x.cell,
        library=x.library,
        method=x.method,
        base_ok=bool(record.seeds),
        expert_ok=record.own.get((x.coverage, x.cell, x.library), 0) >= record.min_own,
        two_hop=_need(found, x, record),
        base_two_hop=_need(found, base, record),
        hops={name: value for name, value in hops.items() if value is not None},
        chance=_chance(found, x, record),
        controls=others,
        target_saw_people=x.library is Library.TRIPLE,
        counterfactual=_moved(found, x, record),
        joint=_pool(found, joint, record),
        coverage=x.coverage if x.cell.knows[1] == "I" else None,
    )


def _moved(found: Samples, x: Place, record: Record) -> dict[str, Interval]:
    """Accuracy of the counterfactual answer where one hop was trained on it."""
    if x.library is not Library.PAIR:
        return {}
    places = {
        str(name): x._replace(library=name, metric=Metric.COUNTERFACTUAL)
        for name in COUNTERFACTUALS
    }
    values = {name: _pool(found, place, record) for name, place in places.items()}
    return {name: value for name, value in values.items() if value is not None}


def _pool(found: Samples, place: Place, record: Record) -> Interval | None:
    by_seed = found.get(place, {})
    # A study without a single good base still shows what it measured, as invalid.
    seeds: Sequence[int] = record.seeds or tuple(by_seed)
    values = [by_seed[seed] for seed in seeds if seed in by_seed]
    if not values:
        return None
    return interval(place, values, record.thresholds.level, record.resamples)


def _need(found: Samples, place: Place, record: Record) -> Interval:
    value = _pool(found, place, record)
    assert value is not None, place
    return value


def _chance(found: Samples, x: Place, record: Record) -> float:
    by_seed = found[x._replace(metric=Metric.CHANCE)]
    seeds = [seed for seed in record.seeds or by_seed if seed in by_seed]
    return float(np.mean(np.concatenate([by_seed[seed] for seed in seeds])))
