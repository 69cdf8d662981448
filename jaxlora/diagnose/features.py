"""What is known of two experts before they are trained, as a few numbers.

Everything is of one base, one group of people, one way to ask and one plan of rows and
layers; nothing is of a trained expert.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from jaxlora.theory.tangent import Selectivity

Ask: TypeAlias = Literal["direct", "written"]
"""Is a two-hop question answered at once, or with the bridge written before?"""
LEAST = 1e-3
"""Effects below this, or against the own answer, count as this; in nats a unit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """What the predictor reads."""

    second_selectivity: float
    """Share of two-hop questions at which the second expert's own row moves the answer
    most, where the answer is predicted."""
    second_effect: float
    """Log10 of the mean effect of that row."""
    first_selectivity: float
    """The same of the first expert, where the bridge must be written; if the question
    is answered at once, at the one-hop question."""
    first_effect: float
    """Log10 of the mean effect of that row."""
    first_known: float
    """Share of first hops that the base answers itself."""
    second_known: float
    """Share of second hops that the base answers itself."""
    skill: float
    """Accuracy of the base on two-hop questions about familiar facts, in the way that
    is asked."""
    ordered: float
    """1 if the first expert's layers lie below the second's, -1 if above, else 0."""

    @property
    def vector(self) -> np.ndarray:
        """The numbers in the order of :data:`NAMES`."""
        return np.array(dataclasses.astuple(self), np.float64)


NAMES = tuple(field.name for field in dataclasses.fields(Features))
"""Names of the features, in their order."""


def matrix(features: Sequence[Features]) -> np.ndarray:
    """Returns the features of G groups, [G, K].

    Args:
      features: of each group.
    """
    return np.stack([x.vector for x in features])


def log_effect(summary: Selectivity, weight: float) -> float:
    """Log10 of the effect that an expert has within a merge.

    Args:
      summary: of its rows.
      weight: that the merge gives it: 1 for a sum, 1 / E for a mean of E.

    >>> log_effect(Selectivity(200.0, 1.0, 3.0), 0.5)
    2.0
    """
    return math.log10(max(weight * summary.effect, LEAST))


def order(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Do the layers of the first expert lie below those of the second?

    Args:
      first: [L] layers that the first expert may change.
      second: [L] the same of the second.

    Returns:
      1 if all lie below, -1 if all lie above, else 0.

    >>> order([True, False, False], [False, True, True])
    1.0
    """
    x, y = np.flatnonzero(first), np.flatnonzero(second)
    if not x.size or not y.size:
        return 0.0
    return float(x.max() < y.min()) - float(x.min() > y.max())
