"""What both answerers of the two-hop study are configured by."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from jaxlora import merge, route
from jaxlora.evaluate.schema import USUAL
from jaxlora.evaluate.verdict import Thresholds
from jaxlora.lora import LoraConfig
from jaxlora.names import unknown
from jaxlora.studies.harness.config import at_least, positive

METHODS = (*merge.names(), *route.names())
C = TypeVar("C", bound="CommonConfig")


def predictions(name: str) -> Path:
    """Path of the committed predictions of a kind: ``""``, ``league`` or ``text``."""
    return Path(__file__).with_name(f"predictions{name and '_'}{name}.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonConfig:
    """Fields of every two-hop study, on symbols or on text."""

    seeds: int = 1
    """Number of seeds."""
    first_seed: int = 0
    """Number of the first seed."""
    methods: tuple[str, ...] = tuple(map(str, USUAL))
    """Ways to combine a library; ``all`` for every merge and every route."""
    routers: tuple[str, ...] = ()
    """Routes to add to the methods; ``all`` for every route."""
    arrow_top_k: int = 0
    """Experts that Arrow keeps per token and site; 0 for all."""
    arrow_temperature: float = 1.0
    """Divides Arrow's scores before the softmax."""
    resamples: int = 2000
    """Bootstrap resamples of pooled intervals."""
    facts: Path | None = None
    """JSONL of {"head", "relation", "tail"}: a user's people."""
    allow_ties: bool = False
    """Accept relations in which two heads share a tail."""
    predictions: Path | None = None
    """JSON of the predictions that are checked; by default those of the package."""
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)

    def __post_init__(self):
        at_least(self, 1, "seeds", "resamples")
        at_least(self, 0, "first_seed", "arrow_top_k")
        positive(self, "arrow_temperature")
        for name in self.routers:
            if name not in route.names():
                raise ValueError(unknown("route", name, route.names()))
        confidence = self.thresholds.confidence
        if not 0 < confidence < 1:
            raise ValueError(
                f"confidence is {confidence}, expected the coverage of an interval, "
                f"above 0 and below 1."
            )

    @property
    def all_methods(self) -> tuple[str, ...]:
        """The methods, and those routers that are not among them."""
        return (*self.methods, *(x for x in self.routers if x not in self.methods))

    @property
    def numbers(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(self.first_seed + i for i in range(self.seeds))


def settled(config: C) -> C:
    """Returns the config with its routers among its methods, as runs record it."""
    fields: dict[str, Any] = {"methods": config.all_methods, "routers": ()}
    return dataclasses.replace(config, **fields)


def check_top_k(config: CommonConfig) -> None:
    """Refuses an Arrow that keeps more experts than the smallest library has."""
    if config.arrow_top_k > 2:
        raise ValueError(
            f"arrow_top_k is {config.arrow_top_k}, expected 0 (all), 1 or 2: the "
            f"2-combination has two experts."
        )
