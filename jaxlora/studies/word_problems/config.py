"""Configuration of the word-problem study: every field is a flag."""

import dataclasses
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from jaxlora.evaluate.verdict import Thresholds
from jaxlora.lora import LoraConfig
from jaxlora.models import DecoderConfig
from jaxlora.studies.harness.config import at_least, distinct
from jaxlora.studies.two_hop import METHODS
from jaxlora.studies.word_problems.recipes import (
    ExpertsConfig,
    PretrainConfig,
    WorldConfig,
)

STUDY = "word problems"
Axis: TypeAlias = Literal["templates", "levels", "experts", "answers"]
AXES: tuple[Axis, ...] = get_args(Axis)
"""What else is varied: what templates share, which levels experts are trained on, how
many are merged, and whether problems are answered with steps or without."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordProblemsConfig:
    """Where does reuse solve problems that need two experts, and where does it stop?"""

    seeds: int = 3
    """Bases of the headline: the overlap of templates."""
    first_seed: int = 70
    """Number of the first of them."""
    map_seeds: int = 1
    """Bases of every axis, of each coverage and of the leaderboard."""
    first_map_seed: int = 80
    """Number of the first of them."""
    overlaps: tuple[float, ...] = (0.0, 0.05, 0.25, 1.0)
    """Shares of the second expert's rows that are in the first one's template."""
    axes: tuple[Axis, ...] = AXES
    """What else is varied."""
    coverages: tuple[int, ...] = (0, 2)
    """Unary operations that other bases know: how far the new ones' role is covered."""
    methods: tuple[str, ...] = ("mean", "sum", "arrow", "tsv", "regmean", "spectr")
    """Ways to combine a library in the headline; mean, sum and Arrow get verdicts."""
    ranked: tuple[str, ...] = tuple(x for x in METHODS if x != "oracle")
    """Ways that are ranked, and that the law is tested on; empty for none."""
    resamples: int = 2000
    """Bootstrap resamples of pooled intervals; ten times as many of differences."""
    predictions: Path | None = None
    """JSON of the predictions that are checked; by default those of the package."""
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    model: DecoderConfig = dataclasses.field(
        default_factory=lambda: DecoderConfig(
            hidden_size=96,
            num_layers=3,
            num_heads=4,
            num_kv_heads=4,
            head_dim=24,
            mlp_size=384,
            unroll=3,
        )
    )
    pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    answer_pretrain: PretrainConfig = dataclasses.field(
        default_factory=lambda: PretrainConfig(
            answer_every=2, answer_batch=256, answer_steps=3000
        )
    )
    """Recipe of the bases that are asked with steps and without."""
    experts: ExpertsConfig = dataclasses.field(default_factory=ExpertsConfig)
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    thresholds: Thresholds = dataclasses.field(
        default_factory=lambda: Thresholds(headroom=0.9)
    )

    def __post_init__(self):
        at_least(self, 1, "resamples")
        at_least(self, 0, "seeds", "map_seeds", "first_seed", "first_map_seed")
        distinct("methods", self.methods, METHODS)
        distinct("ranked", self.ranked, METHODS)
        distinct("axes", self.axes, AXES)
        distinct("overlaps", self.overlaps)
        distinct("coverages", self.coverages)
        for share in self.overlaps:
            if not 0 <= share <= 1:
                raise ValueError(f"overlaps has {share}, expected shares in [0, 1].")
        if "oracle" in (*self.methods, *self.ranked):
            raise ValueError(
                "The oracle routes by labels, which a text that is being written does "
                "not have; leave it out of methods and ranked."
            )
        if not self.seeds and not self.map_seeds:
            raise ValueError("seeds and map_seeds are 0: there is nothing to ask.")

    @property
    def numbers(self) -> tuple[int, ...]:
        """Seeds of the headline."""
        return tuple(self.first_seed + i for i in range(self.seeds))

    @property
    def map_numbers(self) -> tuple[int, ...]:
        """Seeds of everything else."""
        return tuple(self.first_map_seed + i for i in range(self.map_seeds))


PRESETS: dict[str, WordProblemsConfig] = {
    # One base and the ends of the dial are enough to see it, not to bound it.
    "quick": WordProblemsConfig(
        seeds=1,
        map_seeds=0,
        overlaps=(0.0, 1.0),
        axes=(),
        coverages=(),
        methods=("mean", "sum"),
        ranked=(),
    ),
    "standard": WordProblemsConfig(),
    # For a GPU: more bases of everything.
    "full": WordProblemsConfig(seeds=8, map_seeds=4, coverages=(0, 1, 2, 4)),
}
