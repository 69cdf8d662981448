"""Configuration of the boundary study: every field is a flag."""

import dataclasses
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from jaxlora.evaluate.verdict import Thresholds
from jaxlora.lora import LoraConfig
from jaxlora.models import DecoderConfig
from jaxlora.studies.harness.config import at_least, distinct
from jaxlora.studies.two_hop import (
    METHODS,
    ExpertsConfig,
    PretrainConfig,
)
from jaxlora.tasks.two_hop.world import WorldConfig

STUDY = "boundary"
Axis: TypeAlias = Literal[
    "no formats",
    "pad",
    "2 layers",
    "8 layers",
    "looped twice",
    "looped four times",
    "shared memory",
]
AXES: tuple[Axis, ...] = get_args(Axis)
"""Other bases than that of the base point; each differs from it in one thing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundaryConfig:
    """Where do merged experts compose, where not, and why?"""

    seeds: int = 4
    """Bases of the headline regimes."""
    first_seed: int = 30
    """Number of the first of them."""
    map_seeds: int = 2
    """Bases of each point of the map: coverages, rows and placements."""
    axis_seeds: int = 1
    """Those of them that axes and the leaderboard take."""
    first_map_seed: int = 40
    """Number of the first of them."""
    rhos: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0)
    """Shares of rows that practise the second hop's role, in the phase diagram."""
    coverages: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Shares of the base's second-relation facts seen in compositions, likewise."""
    axes: tuple[Axis, ...] = ("looped twice", "shared memory", "no formats")
    """Bases that differ from the base point in one thing."""
    placements: bool = True
    """Ask all pairs of layer ranges."""
    methods: tuple[str, ...] = (
        "mean",
        "sum",
        "arrow",
        "ties",
        "dare-ties",
        "tsv",
        "iso-c",
        "breadcrumbs",
        "oracle",
    )
    """Ways to combine a library in the headline regimes."""
    ranked: tuple[str, ...] = METHODS
    """Ways that are ranked where there is headroom; empty for none."""
    retention_items: int = 16
    """Held-out familiar two-hop queries that every combined model is asked."""
    min_written: float = 0.8
    """Criterion: accuracy of a base at bridges, before written answers count."""
    resamples: int = 2000
    """Bootstrap resamples of pooled intervals; ten times as many of differences."""
    predictions: Path | None = None
    """JSON of the predictions that are checked; by default those of the package."""
    world: WorldConfig = dataclasses.field(
        default_factory=lambda: WorldConfig(entities=64, pairs=4, people=16)
    )
    """World of the headline regimes."""
    map_world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    """World of the map."""
    model: DecoderConfig = dataclasses.field(
        default_factory=lambda: DecoderConfig(max_length=9, unroll=4)
    )
    pretrain: PretrainConfig = dataclasses.field(
        default_factory=lambda: PretrainConfig(format_steps=3000)
    )
    """Recipe of the headline's bases."""
    map_pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    """Recipe of the map's bases."""
    experts: ExpertsConfig = dataclasses.field(
        default_factory=lambda: ExpertsConfig(draw=16)
    )
    """Training of every expert; its rows and layers are the regimes'."""
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)

    def __post_init__(self):
        at_least(self, 1, "retention_items", "resamples")
        counts = ("seeds", "map_seeds", "axis_seeds")
        at_least(self, 0, *counts, "first_seed", "first_map_seed")
        distinct("methods", self.methods, METHODS)
        distinct("ranked", self.ranked, METHODS)
        distinct("axes", self.axes, AXES)
        for name in ("rhos", "coverages"):
            distinct(name, getattr(self, name))
            for value in getattr(self, name):
                if not 0 <= value <= 1:
                    raise ValueError(f"{name} has {value}, expected shares in [0, 1].")
        if not self.seeds and not self.map_seeds:
            raise ValueError("seeds and map_seeds are 0: there is nothing to ask.")
        _check_coverages(self)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Seeds of the headline."""
        return tuple(self.first_seed + i for i in range(self.seeds))

    @property
    def map_numbers(self) -> tuple[int, ...]:
        """Seeds of the map."""
        return tuple(self.first_map_seed + i for i in range(self.map_seeds))


def _check_coverages(config: BoundaryConfig) -> None:
    """A coverage above 0 must leave a covered fact, or it is 0 by another name."""
    known = config.map_world.entities - 2 * config.map_world.people
    for coverage in config.coverages:
        if coverage and round(coverage * known) < 1:
            raise ValueError(
                f"coverage {coverage} of {known} known facts of a second relation "
                f"leaves no covered fact; use 0, or at least {1 / known:.3f}."
            )


PRESETS: dict[str, BoundaryConfig] = {
    # One base; 35 people a cell are the fewest that can decide every verdict.
    "quick": BoundaryConfig(
        seeds=1,
        map_seeds=0,
        methods=("mean", "sum"),
        ranked=(),
        world=WorldConfig(pairs=5, comparable=False),
        pretrain=PretrainConfig(),
    ),
    "standard": BoundaryConfig(),
    # For a GPU: more bases, and a wider model.
    "full": BoundaryConfig(
        seeds=8,
        map_seeds=4,
        axis_seeds=4,
        coverages=(0.0, 0.25, 0.5, 0.75, 1.0),
        axes=AXES,
    ),
}
