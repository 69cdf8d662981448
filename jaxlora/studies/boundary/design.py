"""The design, written down before the results: which bases, regimes and arms.

A *point* is one kind of base with its seeds; a *regime* is what the two experts are
trained on and in which layers. Every regime is asked directly and with the bridge
written, so the format in which it is asked is no part of it.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from jaxlora.evaluate.schema import Arm, Cell, Method
from jaxlora.models import DecoderConfig
from jaxlora.studies.boundary.config import Axis, BoundaryConfig
from jaxlora.studies.two_hop import ExpertsConfig, PretrainConfig
from jaxlora.tasks.two_hop.practice import Practice
from jaxlora.tasks.two_hop.world import WorldConfig

NEW = (Cell.R_OO, Cell.H_OO, Cell.F_OO)
"""Cells in which both facts are new to the base."""
RHO = 0.5
"""Share of practising rows in regimes that do not vary it."""
CONTROLS = (
    Arm.RANDOM,
    Arm.PERMUTED,
    Arm.SHUFFLED,
    Arm.COUNTERFACTUAL1,
    Arm.COUNTERFACTUAL2,
)
"""What a verdict rests on, beside the base and the experts alone."""
PLAIN = (Method.MEAN, Method.SUM)
"""Methods with a verdict; of others the combination and random experts are asked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regime:
    """What two experts are trained on, and where."""

    name: str
    first: Practice = Practice()  # noqa: RUF009 (frozen)
    second: Practice = Practice()  # noqa: RUF009 (frozen)
    first_layers: tuple[int, ...] = ()
    second_layers: tuple[int, ...] = ()
    identity: bool = False
    """Is the second expert trained on identity rows ``B -> B`` too?"""
    glance: bool = False
    """Is the combination asked beside random experts alone, without a verdict?"""

    def recipe(self, experts: ExpertsConfig) -> ExpertsConfig:
        """The training of its experts.

        Args:
          experts: steps and rate.
        """
        names = ("first", "second", "first_layers", "second_layers")
        fields: dict[str, Any] = {name: getattr(self, name) for name in names}
        return dataclasses.replace(experts, **fields)

    @property
    def placed(self) -> bool:
        """Are the experts confined to layers?"""
        return bool(self.first_layers or self.second_layers)

    @property
    def placement(self) -> str:
        """The layers of both experts, such as ``0 + 2-3``."""
        return f"{layers(self.first_layers)} + {layers(self.second_layers)}"

    @property
    def condition(self) -> tuple[tuple[str, Any], ...]:
        """What every row of it names."""
        practice = self.second if self.second.rho else self.first
        form = practice.form if practice.rho else "direct"
        return (
            ("regime", self.name),
            ("rows", form),
            ("rho", self.second.rho),
            ("rho of A->B", self.first.rho),
            ("placement", self.placement),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One kind of base, its seeds and what they are asked."""

    name: str
    seeds: tuple[int, ...]
    world: WorldConfig
    model: DecoderConfig
    pretrain: PretrainConfig
    cells: tuple[Cell, ...]
    regimes: tuple[Regime, ...]
    methods: tuple[Method, ...]
    """Of the combination of two."""
    full: bool = False
    """Are experts that saw the answers asked as well?"""
    ranked: bool = False
    """Are methods only ranked: the combination and random experts, no other control?"""

    @property
    def condition(self) -> tuple[tuple[str, Any], ...]:
        """What every row of it names, beside the coverage."""
        return (("base", self.name), ("base format", self.world.form))

    def plan(self, regime: Regime) -> Iterator[tuple[Arm, Method]]:
        """The arms of a regime with their methods; the base is asked apart.

        Args:
          regime: one of its regimes.
        """
        others = self.full and not regime.second.rho
        alone = [Arm.HOP1, Arm.HOP2, Arm.JOINT]
        alone += [Arm.TARGET] if self.full else []
        alone += [Arm.TARGET_OTHERS] if others else []
        yield from ((arm, Method.NONE) for arm in alone)
        controls = [*CONTROLS, *([Arm.REVERSED] if regime.placed else [])]
        if self.model.shared_mlp:  # what all layers share cannot change its layer
            controls.remove(Arm.PERMUTED)
        for method in self.methods:
            # What a verdict rests on is asked under the plain methods.
            judged = method in PLAIN and not (self.ranked or regime.glance)
            more = controls if judged else [Arm.RANDOM]
            yield from ((arm, method) for arm in (Arm.PAIR, *more))
        if regime.identity:
            yield from ((Arm.IDENTITY, method) for method in PLAIN)
        if self.full:
            yield from ((Arm.TRIPLE, method) for method in PLAIN)
        if others:
            yield Arm.TRIPLE_OTHERS, Method.MEAN


def layers(some: Sequence[int]) -> str:
    """Names a range of layers.

    Args:
      some: numbers of layers, in order; empty for all.

    >>> layers((2, 3)), layers((0,)), layers(())
    ('2-3', '0', 'all')
    """
    if not some:
        return "all"
    ends = f"{some[0]}-{some[-1]}" if len(some) > 1 else f"{some[0]}"
    gapless = tuple(some) == tuple(range(some[0], some[-1] + 1))
    return ends if gapless else ",".join(map(str, some))


def halves(count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Low layers for the first expert and high ones for the second.

    Of four layers 0, and 2 and 3: the lowest quarter and the upper half.

    Args:
      count: L, at least 2.

    >>> halves(4)
    ((0,), (2, 3))
    """
    low = tuple(range(max(1, count // 4)))
    return low, tuple(range(count - max(1, count // 2), count))


def practising(rho: float, **more: Any) -> Regime:
    """The second expert practises its role in a share of its rows.

    Args:
      rho: the share.
      more: other fields of the regime.
    """
    name = f"bridge rows {rho:g}" if rho else "direct"
    return Regime(name=name, second=Practice(rho=rho), **more)


def both() -> Regime:
    """Both experts practise their roles."""
    half = Practice(rho=RHO)
    return Regime(name="both practise", first=half, second=half)


def placed(count: int) -> Regime:
    """The first expert low, the second high.

    Args:
      count: layers of the base.
    """
    low, high = halves(count)
    return Regime(name="placed", first_layers=low, second_layers=high)


def variants() -> tuple[Regime, ...]:
    """Who practises, and in which form: single steps from bridge rows at one half."""
    half = Practice(rho=RHO)
    return (
        Regime(name="A->B practises", first=half),
        both(),
        Regime(name="documents", second=Practice(rho=RHO, form="document")),
        Regime(name="mixture", second=Practice(rho=RHO, form="mixture")),
        Regime(name="identity rows", identity=True),
    )


def grid(count: int) -> tuple[Regime, ...]:
    """All pairs of layer ranges.

    Args:
      count: layers of the base.
    """
    low, high = halves(count)
    ranges = ((), low, tuple(range(count // 2)), high, (count - 1,))
    return tuple(
        Regime(name="layers", first_layers=a, second_layers=b, glance=True)
        for a in ranges
        for b in ranges
        if a or b
    )


def points(config: BoundaryConfig) -> tuple[Point, ...]:
    """All points of a configuration, in the order in which they are run.

    Args:
      config: of the study.
    """
    return (*_headline(config), *_map(config), *_axes(config), *_ranked(config))


def _headline(config: BoundaryConfig) -> Iterator[Point]:
    """Two points of the same bases, whose experts are trained in programs apart."""
    regimes = (practising(0.0), practising(RHO), placed(config.model.num_layers))
    for some in (regimes, (both(),)) if config.seeds else ():
        yield Point(
            name="headline",
            seeds=config.numbers,
            world=config.world,
            model=config.model,
            pretrain=config.pretrain,
            cells=tuple(Cell),
            regimes=some,
            methods=tuple(map(Method, config.methods)),
            full=True,
        )


def _map(config: BoundaryConfig) -> Iterator[Point]:
    count = config.model.num_layers
    for coverage in sorted(config.coverages, reverse=True):
        phase = tuple(practising(rho) for rho in config.rhos)
        more = ()
        if coverage == config.map_world.coverage:
            ranges = grid(count) if config.placements else ()
            more = (*variants(), placed(count), *ranges)
        yield from _of_map(config, "map", coverage=coverage, regimes=(*phase, *more))


def _axes(config: BoundaryConfig) -> Iterator[Point]:
    for axis in config.axes:
        changed = axis_model(config.model, axis)
        regimes = [practising(0.0)]
        if axis != "no formats":  # which cannot be asked to write
            regimes += [practising(RHO), both()]
        if axis != "shared memory":  # which has no layers to be placed in
            regimes.append(placed(changed.num_layers))
        more = {"model": changed, "seeds": config.map_numbers[: config.axis_seeds]}
        yield from _of_map(config, axis, regimes=tuple(regimes), **more)


def _ranked(config: BoundaryConfig) -> Iterator[Point]:
    """Merges and routes: where a joint LoRA has headroom, and where layers differ."""
    if config.ranked:
        count = config.model.num_layers
        regimes = (both(), placed(count))
        methods = tuple(map(Method, config.ranked))
        more: dict[str, Any] = {"regimes": regimes, "methods": methods}
        more |= {"ranked": True, "seeds": config.map_numbers[: config.axis_seeds]}
        yield from _of_map(config, "leaderboard", **more)


def _of_map(config: BoundaryConfig, name: str, **more: Any) -> Iterator[Point]:
    """A point of the map's world."""
    sizes = {"coverage": more.pop("coverage", config.map_world.coverage)}
    sizes |= {"form": "pad"} if name == "pad" else {}
    recipe = config.map_pretrain
    if name == "no formats":
        recipe = dataclasses.replace(recipe, formats=())
    defaults: dict[str, Any] = {"model": config.model, "methods": PLAIN}
    defaults["seeds"] = config.map_numbers
    if config.map_seeds:
        yield Point(
            name=name,
            world=dataclasses.replace(config.map_world, **sizes),
            pretrain=recipe,
            cells=NEW,
            **defaults | more,
        )


def axis_model(model: DecoderConfig, axis: Axis) -> DecoderConfig:
    """The model of an axis; loops have half of the layers, each applied again.

    Args:
      model: of the base point.
      axis: what differs.
    """
    half = model.num_layers // 2
    changes: dict[Axis, dict[str, Any]] = {
        "2 layers": {"num_layers": half, "unroll": half},
        "8 layers": {"num_layers": 2 * model.num_layers, "unroll": 2 * model.unroll},
        "looped twice": {"num_layers": half, "unroll": half, "passes": 2},
        "looped four times": {"num_layers": half, "unroll": half, "passes": 4},
        "shared memory": {"shared_mlp": True},
    }
    return dataclasses.replace(model, **changes.get(axis, {}))
