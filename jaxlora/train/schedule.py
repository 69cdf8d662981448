"""How long and how fast a run learns, and which rows each of its updates sees."""

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlora.tasks import packing
from jaxlora.tasks.packing import Rows
from jaxlora.train.text import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast every expert learns."""

    epochs: float = 3.0
    """Passes over an expert's rows; each expert ends after its own."""
    steps: int = 0
    """Updates of every expert, in place of epochs, if not 0."""
    learning_rate: float = 2e-4
    """Peak."""
    warmup: float = 0.05
    """Share of the updates in which the rate rises."""
    decay: float = 1.0
    """Share of the peak that is gone at the end: 0 constant, 1 linear to zero."""
    batch: int = 8
    """Rows of a microbatch."""
    accumulate: int = 1
    """Microbatches of an update."""

    def __post_init__(self):
        sizes = (self.epochs, self.learning_rate)
        if not all(0 < size < math.inf for size in sizes) or self.steps < 0:
            raise ValueError(
                f"epochs={self.epochs}, steps={self.steps}, learning_rate="
                f"{self.learning_rate}: expected positive numbers (steps may be 0)."
            )
        if not 0 <= self.warmup < 1 or not 0 <= self.decay <= 1:
            raise ValueError(
                f"warmup={self.warmup}, decay={self.decay}: expected shares, from 0 "
                f"to 1 (warmup below 1)."
            )
        if self.batch < 1 or self.accumulate < 1:
            raise ValueError(
                f"batch={self.batch}, accumulate={self.accumulate}: expected 1 or more."
            )

    def total(self, rows: int) -> int:
        """Updates of an expert of so many rows.

        >>> Schedule(epochs=2, batch=4).total(10)
        5
        """
        size = self.batch * self.accumulate
        return self.steps or max(1, -(-int(rows * self.epochs) // size))


def number(name: str) -> int:
    """A number for a name, the same everywhere and always."""
    return zlib.crc32(name.encode())


def plan(schedule: Schedule, totals: Sequence[int]) -> Plan:
    """The learning rates of experts that take so many updates each."""
    total = jnp.asarray(totals, jnp.float32)
    return Plan(
        peak=jnp.full_like(total, schedule.learning_rate),
        warmup=jnp.floor(total * schedule.warmup),
        total=total,
        decay=jnp.full_like(total, schedule.decay),
    )


def batches(
    data: Mapping[str, Rows], schedule: Schedule, seed: int, steps: range
) -> Rows:
    """Rows [E, K, A, N, T] of some updates."""

    def cut(x: np.ndarray) -> np.ndarray:
        return x.reshape(schedule.accumulate, -1, x.shape[-1])

    experts = []
    for name, rows in data.items():
        size = schedule.batch * schedule.accumulate
        every: Any = packing.batches(rows, size, number(name) ^ seed)
        some = [Rows(*map(cut, every[step])) for step in steps]
        experts.append(Rows(*map(np.stack, zip(*some, strict=True))))
    return Rows(*map(np.stack, zip(*experts, strict=True)))
