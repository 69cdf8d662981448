"""Sizes of a two-hop world, checked before anything is drawn."""

import dataclasses
from typing import get_args

from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.records import Form

FAMILIAR_CELLS = (Cell.R_II, Cell.R_OI, Cell.R_IO, Cell.R_OO)
"""Cells whose people are all familiar to the base."""

MOST = {
    **dict.fromkeys(("entities", "relations", "people", "pairs"), 10**4),
    "context_rows": 10**6,
}
"""What is counted in a world, all of which is drawn before it is used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Sizes of the world and what its pretraining covers."""

    entities: int = 40
    """Familiar entities."""
    relations: int = 20
    """Relations, the study's included; each is a permutation of the entities."""
    pairs: int = 3
    """Study relation pairs (spouse, residence); each is its own library."""
    people: int = 7
    """People A per cell and pair; four cells share the familiar entities."""
    trained: float = 0.9
    """Share, in (0, 1), of the two-hop queries allowed at coverage 0 that is trained.

    The number is the same at every coverage: higher ones leave more queries out."""
    comparable: bool = True
    """Train as many queries at every coverage; if false, all that a coverage allows."""
    coverage: float = 1.0
    """Share of the study's known second-relation facts that are covered, in [0, 1]."""
    copy_share: float = 0.05
    """Share of the direct rows that copy a name, over familiar and new entities."""
    context_rows: int = 10_240
    """Rows of made-up facts followed by a query about them."""
    form: Form = "next-token"
    """Where direct answers are read: at the prompt's last token, or at a third one."""

    def __post_init__(self):
        if self.form not in get_args(Form):
            raise ValueError(
                f"form is {self.form!r}, expected one of {', '.join(get_args(Form))}."
            )
        for field in ("coverage", "trained", "copy_share"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(
                    f"{field} is {getattr(self, field)}, expected a share in [0, 1]."
                )
        if self.copy_share == 1:
            raise ValueError("copy_share is 1, expected less: no fact would be told.")
        for field, most in MOST.items():
            if getattr(self, field) > most:
                raise ValueError(
                    f"{field} is {getattr(self, field)}, expected at most {most}."
                )
        if self.people < 2 or self.pairs < 1:
            raise ValueError(
                f"people is {self.people} and pairs {self.pairs}, expected at least 2 "
                f"people (answers are shuffled among them) and 1 pair."
            )
        if len(FAMILIAR_CELLS) * self.people > self.entities:
            raise ValueError(
                f"{self.people} people in each of {len(FAMILIAR_CELLS)} familiar cells "
                f"need {len(FAMILIAR_CELLS) * self.people} entities, but the world has "
                f"{self.entities}; lower people or raise entities."
            )
        if 2 * self.pairs + 2 > self.relations:
            raise ValueError(
                f"{self.pairs} study pairs use {2 * self.pairs} relations and the "
                f"criteria need at least 2 others, but relations is {self.relations}."
            )
