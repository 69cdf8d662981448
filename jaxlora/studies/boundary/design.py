"""The design, written down before the results: which bases, regimes and arms.

A *point* is one kind of base with its seeds; a *regime* is what the two experts are
trained on and in which layers. Every regime is asked directly and with the bridge
written, so the format in which it is asked is no part of it.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from jaxlora.evaluate.schema import Arm, Cell, Method
from jaxlora.models import DecoderConfig
from jaxlora.studies.boundary.config import Axis, BoundaryConfig
from jaxlora.studies.boundary.regimes import (
    RHO,
    Regime,
    both,
    grid,
    placed,
    practising,
    variants,
)
from jaxlora.studies.two_hop import PretrainConfig
from jaxlora.tasks.two_hop.world import WorldConfig

NEW = (Cell.R_OO, Cell.H_OO, Cell.F_OO)
"""Cells in which both facts are new to the base."""
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
