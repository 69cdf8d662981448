"""Criteria: conditions that a base or an expert must meet before results count."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlora.evaluate import schema
from jaxlora.evaluate.schema import Address, Metric
from jaxlora.evaluate.statistics import Interval


class Criterion(NamedTuple):
    """One condition and what was measured of it."""

    name: str
    value: float
    n: int
    """Items behind the value."""
    threshold: float
    """The least value that meets it."""
    required: bool = True
    """Without it nothing follows; false where a single control rests on it."""

    @property
    def passed(self) -> bool:
        """Whether the condition is met."""
        return self.value >= self.threshold

    def record(self, **where: Any) -> dict[str, Any]:
        """Returns it as results.json holds it.

        Args:
          where: what else identifies it, such as the seed; comes first.
        """
        return where | {
            "criterion": self.name,
            "value": self.value,
            "n": self.n,
            "threshold": self.threshold,
            "passed": self.passed,
            "required": self.required,
        }

    def rows(self, seed: int | str, address: Address) -> list[dict[str, Any]]:
        """Returns two rows: what was measured, and whether that was enough.

        Args:
          seed: of the base.
          address: of the measurement; its metric is replaced.
        """
        metrics = ((Metric.ACCURACY, self.value), (Metric.PASSED, self.passed))
        return [
            schema.row(seed, address.at(metric=metric), bare(value, self.n))
            for metric, value in metrics
        ]


def bare(value: float | np.floating, n: int) -> Interval:
    """A measurement without an interval."""
    return Interval(float(value), float("nan"), float("nan"), n)


def met(criteria: Sequence[Criterion]) -> bool:
    """Whether all that are required are met."""
    return all(x.passed for x in criteria if x.required)
