"""Configuration of the two-hop study on symbols: every field is a flag."""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxlora.models import DecoderConfig
from jaxlora.names import unknown
from jaxlora.studies.harness.config import at_least, distinct
from jaxlora.studies.two_hop.config import METHODS, CommonConfig
from jaxlora.studies.two_hop.symbols.pretraining import PretrainConfig
from jaxlora.studies.two_hop.symbols.recipes import ExpertsConfig
from jaxlora.tasks.two_hop.world import WorldConfig

STUDY = "two-hop"
# How a study is run, not what it finds: they may differ when a run is resumed.
FREE = ("seeds_at_once", "data_dir")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoHopConfig(CommonConfig):
    """Does combining an A→B and a B→C expert answer A→C?"""

    seeds: int = 1
    """Number of bases, worlds and expert sets."""
    coverages: tuple[float, ...] = ()
    """Coverages to sweep; empty for world.coverage alone."""
    oracle_search: Literal["local", "exhaustive"] = "local"
    """How the oracle's route is searched: climbing from many starts, or all routes."""
    oracle_starts: int = 4
    """Random routes that the local search starts from, beside those made by hand."""
    oracle_sweeps: int = 3
    """Most sweeps of the local search over all layers and tokens."""
    oracle_none: bool = True
    """The oracle may leave a layer and token to the base alone, without any expert."""
    retention_items: int = 64
    """Held-out familiar two-hop queries that every combined model is asked."""
    seeds_at_once: int = 0
    """Bases trained in one program; 0 for 1 on CPU and all on an accelerator."""
    facts: Path | None = None
    """JSONL of {"head", "relation", "tail"}: your people, in the place of F-OO."""
    allow_ties: bool = False
    """Accept relations in which two heads share a tail; reports the majority answer."""
    data_dir: Path | None = None
    """Read the worlds from here, as `jaxlora data two-hop` wrote them."""
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    model: DecoderConfig = dataclasses.field(
        default_factory=lambda: DecoderConfig(max_length=9, unroll=4)
    )
    pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    experts: ExpertsConfig = dataclasses.field(default_factory=ExpertsConfig)

    def __post_init__(self):
        super().__post_init__()
        at_least(self, 1, "retention_items", "oracle_sweeps")
        at_least(self, 0, "seeds_at_once", "oracle_starts")
        if not self.all_methods:
            raise ValueError(
                f"methods is empty, expected one at least, as in {METHODS[0]!r}."
            )
        for method in self.all_methods:
            if method not in METHODS:
                raise ValueError(unknown("method", method, METHODS))
        distinct("methods", self.all_methods)
        distinct("coverages", self.coverages)
        for coverage in self.coverages:
            if not 0 <= coverage <= 1:
                raise ValueError(f"coverage is {coverage}, expected a share in [0, 1].")
        if self.world.people < 3:
            raise ValueError(
                f"people is {self.world.people}, expected at least 3: answers are "
                f"deranged one hop at a time and both at once, which needs 3."
            )
        if self.model.max_length < 9:
            raise ValueError(
                f"max_length is {self.model.max_length}, expected at least 9: the "
                f"longest question holds two facts and a query of 3 tokens each."
            )

    @property
    def all_coverages(self) -> tuple[float, ...]:
        """Coverages that are run."""
        return self.coverages or (self.world.coverage,)


def _wide(relations: int, pairs: int) -> WorldConfig:
    """Libraries of 12 people each; one coverage, so there are no two to compare."""
    sizes = {"entities": 48, "relations": relations, "pairs": pairs, "people": 12}
    return WorldConfig(comparable=False, **sizes)


PRESETS: dict[str, TwoHopConfig] = {
    # Five minutes: no steps for the formats alone, and no arm that no verdict needs.
    # The sum is not among the methods: in R-II it keeps as much as the margin asks for,
    # and no number of people decides what lies on a bound.
    "quick": TwoHopConfig(
        seeds=1,
        methods=("mean", "regmean", "arrow"),
        retention_items=16,
        world=_wide(relations=30, pairs=12),
        pretrain=PretrainConfig(format_steps=0),
        experts=ExpertsConfig(extra=False, steps=100),
    ),
    # Predictions need seeds that nobody has seen.
    "standard": TwoHopConfig(
        seeds=3,
        first_seed=46,
        methods=("mean", "sum", "factor-mean", "regmean", "arrow"),
        retention_items=32,
        world=_wide(relations=26, pairs=8),
        experts=ExpertsConfig(steps=100),
    ),
    "full": TwoHopConfig(seeds=5, first_seed=4, coverages=(0.0, 0.25, 0.5, 0.75, 1.0)),
}
