"""Configuration of the theory study."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from jaxlora.studies.harness.config import at_least

PREDICTIONS = Path(__file__).with_name("predictions.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TheoryConfig:
    """Do models of one and two layers do what the theory says, and where not?"""

    preset: str = "standard"
    """standard: the sizes whose predictions are committed. quick: small ones."""
    seeds: int = 8
    """Random worlds of every size."""
    first_seed: int = 0
    """Number of the first."""
    decoder_seeds: tuple[int, ...] = (0, 4, 5, 6)
    """Seeds of the two-hop study whose cached bases are looked at; empty for none."""
    confidence: float = 0.95
    """Nominal coverage of the intervals of what is measured."""
    resamples: int = 1000
    """Bootstrap resamples of pooled intervals."""

    RENAMED: ClassVar = {"level": "confidence"}

    def __post_init__(self):
        at_least(self, 1, "seeds", "resamples")
        at_least(self, 0, "first_seed")
        if self.preset not in ("standard", "quick"):
            raise ValueError(
                f"No preset {self.preset!r}; there are standard and quick."
            )
        if not 0 < self.confidence < 1:
            raise ValueError(
                f"confidence is {self.confidence}, expected a share in (0, 1)."
            )
