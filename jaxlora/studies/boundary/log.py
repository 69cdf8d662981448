"""What a run of the boundary study learns, in the order in which it comes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from jaxlora.evaluate.schema import Arm, Cell, Method
from jaxlora.studies.boundary.design import Point
from jaxlora.studies.boundary.regimes import Regime
from jaxlora.studies.harness import Outcome
from jaxlora.studies.two_hop import Block


class Asked(NamedTuple):
    """One regime of one point, asked of the bases of several seeds."""

    point: Point
    regime: Regime

    @property
    def condition(self) -> tuple[tuple[str, Any], ...]:
        """What every row of it names."""
        return self.point.condition + self.regime.condition

    def block(self, seed: int, arm: Arm, method: Method) -> Block:
        """Where what one arm answered is stored.

        Args:
          seed: of the base.
          arm: that is asked.
          method: that combines its experts.
        """
        return Block(self.point.world.coverage, seed, arm, method, self.condition)


@dataclasses.dataclass
class Log:
    """Blocks, criteria, and which bases failed."""

    blocks: dict[Asked, dict[Block, pd.DataFrame]] = dataclasses.field(
        default_factory=dict
    )
    """Items of every block, by regime; the base's stand in each of its regimes."""
    criteria: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Records for results.json."""
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Criteria as rows."""
    passed: dict[Point, list[int]] = dataclasses.field(default_factory=dict)
    """Seeds whose base met its criteria."""
    failed: list[str] = dataclasses.field(default_factory=list)
    """The others, in words."""
    lowest: dict[tuple[Asked, Cell, Arm], float] = dataclasses.field(
        default_factory=dict
    )
    """Lowest accuracy of an arm's experts on their own rows, over seeds."""
    refused: dict[Block, str] = dataclasses.field(default_factory=dict)
    """Why a method could not combine an arm's experts."""

    def add(self, asked: Asked, block: Block, outcome: Outcome) -> None:
        """Adds what one arm answered.

        Args:
          asked: the regime.
          block: the arm on one base.
          outcome: items and notes.
        """
        self.blocks.setdefault(asked, {})[block] = outcome.items
        if "unavailable" in outcome.notes:
            self.refused[block] = outcome.notes["unavailable"]
        shares: Mapping[str, float] = outcome.notes.get("own", {})
        for cell, value in shares.items():
            key = (asked, Cell(cell), block.arm)
            self.lowest[key] = min(self.lowest.get(key, 1.0), value)
