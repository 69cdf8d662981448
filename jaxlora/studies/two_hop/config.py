"""Configuration of the two-hop study: every field is a command-line flag."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from jaxlora import merge, route
from jaxlora.evaluate.schema import USUAL
from jaxlora.evaluate.verdict import Thresholds
from jaxlora.lora import LoraConfig
from jaxlora.models import DecoderConfig
from jaxlora.names import hint, unknown
from jaxlora.tasks.two_hop.world import WorldConfig

PREDICTIONS = Path(__file__).with_name("predictions.json")
LEAGUE_PREDICTIONS = Path(__file__).with_name("predictions_league.json")
METHODS = (*merge.names(), *route.names())


def at_least(config: Any, least: int, *names: str) -> None:
    """Refuses a field of ``config`` that is below ``least``."""
    for name in names:
        if getattr(config, name) < least:
            raise ValueError(
                f"{name} is {getattr(config, name)}, expected at least {least}."
            )


def positive(config: Any, *names: str) -> None:
    """Refuses a field of ``config`` that is not a positive number."""
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise ValueError(
                f"{name} is {getattr(config, name)}, expected a positive number."
            )


def add_routers(config: Any) -> None:
    """Moves the routers of a frozen config to its methods, where all else looks.

    Raises:
      ValueError: if one is no route.
    """
    for name in config.routers:
        if name not in route.names():
            raise ValueError(unknown("route", name, route.names()))
    new = [name for name in config.routers if name not in config.methods]
    object.__setattr__(config, "methods", (*config.methods, *new))
    object.__setattr__(config, "routers", ())


def _once(name: str, values: Sequence[Any]) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise ValueError(f"{name} has {value!r} twice; name each once.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How a base is trained, and the gates it must pass."""

    learning_rate: float = 2e-3
    """AdamW rate after the warm-up."""
    warmup: int = 200
    """Steps of linear warm-up."""
    weight_decay: float = 0.1
    """On all parameters but norm scales and biases."""
    batch: int = 512
    """Direct rows a step."""
    extra_batch: int = 256
    """Rows of written bridges, documents and made-up contexts, on every tenth step."""
    extra_every: int = 10
    """Distance of those steps; 10 keeps them at 10% of all batches."""
    chunk: int = 250
    """Steps between two looks at the gates; a multiple of extra_every."""
    max_steps: int = 5000
    """Give up on a base, and report it as failed, after this many steps."""
    format_steps: int = 2000
    """A base that passed goes on to at most this step for its extra formats."""
    min_one_hop: float = 0.99
    """Gate: one-hop recall of known facts."""
    min_two_hop: float = 0.95
    """Gate: held-out two-hop accuracy on familiar facts, on non-study relations."""
    min_copy: float = 0.99
    """Gate: copying familiar and new names."""
    min_format: float = 0.9
    """Gate of each extra format; below it the control is marked unavailable."""

    def __post_init__(self):
        at_least(self, 1, "warmup", "batch", "extra_batch", "chunk", "max_steps")
        positive(self, "learning_rate")
        for name in ("min_one_hop", "min_two_hop", "min_copy", "min_format"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, expected a share in [0, 1]."
                )
        if self.extra_every < 2 or self.chunk % self.extra_every:
            raise ValueError(
                f"chunk is {self.chunk} and extra_every {self.extra_every}: expected a "
                f"chunk that is a multiple of an extra_every of at least 2."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """How experts and their ceilings are trained: Adam, full batch."""

    steps: int = 200
    """Steps of every LoRA."""
    learning_rate: float = 3e-3
    """Adam rate of every LoRA."""
    full_steps: int = 100
    """Steps of full fine-tuning."""
    full_learning_rate: float = 3e-4
    """Adam rate of full fine-tuning."""
    min_own: float = 0.99
    """Gate: an expert's accuracy on its own facts."""

    def __post_init__(self):
        at_least(self, 1, "steps", "full_steps")
        positive(self, "learning_rate", "full_learning_rate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoHopConfig:
    """Does combining an A->B and a B->C expert answer A->C?"""

    seeds: int = 1
    """Number of bases, worlds and expert sets."""
    first_seed: int = 0
    """Number of the first seed."""
    coverages: tuple[float, ...] = ()
    """Coverage levels to sweep; empty for world.coverage alone."""
    methods: tuple[str, ...] = tuple(map(str, USUAL))
    """Ways to combine a library; ``all`` for every merge and every route."""
    routers: tuple[str, ...] = ()
    """Routes to add to the methods; ``all`` for every route."""
    arrow_top_k: int = 0
    """Experts that Arrow keeps per token and site; 0 for all."""
    arrow_temperature: float = 1.0
    """Divides Arrow's scores before the softmax."""
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
    resamples: int = 2000
    """Bootstrap resamples of pooled intervals."""
    seeds_at_once: int = 0
    """Bases trained in one program; 0 for 1 on CPU and all on an accelerator."""
    facts: Path | None = None
    """JSONL of {"head", "relation", "tail"}: your people, in the place of F-OO."""
    allow_ties: bool = False
    """Accept relations in which two heads share a tail; reports the majority answer."""
    data_dir: Path | None = None
    """Read the worlds from here, as `jaxlora data two-hop` wrote them."""
    predictions: Path | None = None
    """JSON of the predictions that are checked; by default those of the package."""
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    model: DecoderConfig = dataclasses.field(
        default_factory=lambda: DecoderConfig(max_length=9, unroll=4)
    )
    pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    experts: ExpertsConfig = dataclasses.field(default_factory=ExpertsConfig)
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)

    def __post_init__(self):
        at_least(self, 1, "seeds", "retention_items", "resamples", "oracle_sweeps")
        at_least(self, 0, "first_seed", "seeds_at_once", "arrow_top_k", "oracle_starts")
        positive(self, "arrow_temperature")
        add_routers(self)
        for name in ("methods", "coverages"):
            _once(name, getattr(self, name))
        if not self.methods:
            raise ValueError(f"methods is empty; there are {', '.join(METHODS)}.")
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(
                    f"No method {method!r}; there are {', '.join(METHODS)}"
                    f"{hint(method, METHODS)}"
                )
        for level in self.coverages:
            if not 0 <= level <= 1:
                raise ValueError(f"coverage is {level}, expected a share in [0, 1].")
        if not 0 < self.thresholds.level < 1:
            raise ValueError(
                f"level is {self.thresholds.level}, expected the coverage of an "
                f"interval, above 0 and below 1."
            )
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
    def levels(self) -> tuple[float, ...]:
        """Coverage levels that are run."""
        return self.coverages or (self.world.coverage,)


T = TypeVar("T")


def from_plain(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Returns a config from the JSON form of one, as results.json holds it.

    Raises:
      ValueError: naming a field that does not exist, or whose value does not fit.
    """
    fields = typing.get_type_hints(kind)
    for name in values:
        if name not in fields:
            raise ValueError(
                f"The configuration has a field {where}{name}, which does not exist"
                f"{hint(name, fields, where)}"
            )
    parsed = {
        name: _parse(fields[name], value, f"{where}{name}")
        for name, value in values.items()
    }
    return kind(**parsed)


def _parse(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} is {value!r}, expected a group of fields.")
        return from_plain(kind, value, f"{where}.")
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is {value!r}, expected a list.")
        each = typing.get_args(kind)[0]
        return tuple(_parse(each, x, f"{where}[{i}]") for i, x in enumerate(value))
    if typing.get_origin(kind) is typing.Literal:
        if value not in typing.get_args(kind):
            known = ", ".join(map(repr, typing.get_args(kind)))
            raise ValueError(f"{where} is {value!r}, expected one of {known}.")
        return value
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        (kind,) = (k for k in typing.get_args(kind) if k is not types.NoneType)
        return _parse(kind, value, where)
    if kind is Path:
        if not isinstance(value, str):
            raise ValueError(f"{where} is {value!r}, expected a path or null.")
        return Path(value)
    if kind is float and type(value) is int:
        return float(value)
    # Not isinstance: true is an int to Python.
    if type(value) is not kind:
        raise ValueError(f"{where} is {value!r}, expected {kind.__name__}.")
    return value


PRESETS: dict[str, TwoHopConfig] = {
    # Five minutes: formats get no steps of their own once the base can compose.
    "quick": TwoHopConfig(seeds=1, pretrain=PretrainConfig(format_steps=0)),
    # Seeds 0 to 3 were seen while the study was built; predictions need fresh ones.
    "standard": TwoHopConfig(seeds=3, first_seed=4),
    "full": TwoHopConfig(seeds=5, first_seed=4, coverages=(0.0, 0.25, 0.5, 0.75, 1.0)),
}
