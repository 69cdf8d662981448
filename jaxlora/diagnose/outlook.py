"""From features to a verdict, and to what would change it."""

import dataclasses
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from jaxlora.diagnose.features import NAMES, Ask, Features, matrix
from jaxlora.diagnose.predictor import Coefficients, probability

Word: TypeAlias = Literal["composes", "composes in part", "no transfer"]
HALF, LITTLE = 0.5, 0.2
"""Predicted shares from which a merge composes, and below which nothing transfers."""


class Change(NamedTuple):
    """Something to do, and what would become of the prediction."""

    advice: str
    probability: float


class Outlook(NamedTuple):
    """A predicted verdict."""

    probability: float
    """Predicted share of two-hop questions that the mean of both experts answers."""
    word: Word
    changes: tuple[Change, ...]
    """What would raise it, the most first; empty if nothing would."""
    beyond: tuple[str, ...]
    """Features outside the range that was fitted, read as its nearest end."""


def outlook(coefficients: Coefficients, features: Features, ask: Ask) -> Outlook:
    """Predicts, and tries what could be done.

    Args:
      coefficients: of the predictor.
      features: of one base, two experts and one way to ask.
      ask: the way that is asked.
    """
    p = _one(coefficients, features)
    tried = [
        Change(advice, _one(coefficients, dataclasses.replace(features, **better)))
        for advice, better in _possible(coefficients, features, ask)
    ]
    helpful = sorted((x for x in tried if x.probability > p), key=lambda x: -x[1])
    x = features.vector
    outside = (x < np.array(coefficients.low)) | (x > np.array(coefficients.high))
    beyond = tuple(name for name, odd in zip(NAMES, outside, strict=True) if odd)
    return Outlook(p, word(p), tuple(helpful), beyond)


def word(p: float) -> Word:
    """The verdict of a predicted share.

    Args:
      p: in [0, 1].

    >>> word(0.7), word(0.3), word(0.1)
    ('composes', 'composes in part', 'no transfer')
    """
    if p >= HALF:
        return "composes"
    return "composes in part" if p >= LITTLE else "no transfer"


def _one(coefficients: Coefficients, features: Features) -> float:
    return float(probability(coefficients, matrix([features]))[0])


def _possible(coefficients: Coefficients, features: Features, ask: Ask):
    """Advice, and the features that would follow it at best."""
    best = dict(zip(NAMES, coefficients.high, strict=True))

    def raised(*names: str) -> dict[str, float]:
        return {x: max(getattr(features, x), best[x]) for x in names}

    second = raised("second_selectivity", "second_effect")
    first = raised("first_selectivity", "first_effect")
    if ask == "written":
        yield (
            "train the second expert on rows that look like the combined solution: "
            "another question, its bridge written, then the answer",
            second,
        )
        yield (
            "train the first expert on rows that end in a bridge written after a "
            "two-hop question",
            first,
        )
    else:
        yield "ask for the bridge to be written, and train the second expert so", second
    yield (
        "train the first expert in the lower layers and the second above them",
        raised("ordered"),
    )
