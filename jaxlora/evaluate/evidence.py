"""What a verdict rests on: measurements of one row, thresholds, adjusted p-values."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, TypeAlias

from jaxlora.evaluate.schema import Arm, Cell, Method
from jaxlora.evaluate.statistics import Interval, Paired, holm

Controls: TypeAlias = Mapping[str, Paired | None]
"""A paired difference to every negative control, by name; ``None``: it did not run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The numbers in the rules, to be registered before the results.

    Attributes:
      preserved_margin: *preserved* if the lower bound of two-hop is at least the
        base's two-hop minus this.
      retention: the remark *degrades* if the upper bound of a kept hop is below this.
      chance_margin: *no transfer* if the upper bound of two-hop is at most chance
        plus this; *no gain* if that of its difference to an expert alone is at most
        this. A joint LoRA composes, and counterfactual experts move the answer, if the
        lower bound of theirs is above chance plus this.
      confidence: nominal coverage of every interval.
      alpha: a positive verdict needs an adjusted p-value below this.
      coverage: a failure is put down to the base if a smaller share of the facts it
        knows of the second relation ever took part in a trained composition.
      headroom: the remark *no headroom* if the joint LoRA's accuracy is below this;
        methods are ranked only where it is reached.
    """

    preserved_margin: float = 0.1
    retention: float = 0.9
    chance_margin: float = 0.10
    confidence: float = 0.95
    alpha: float = 0.05
    coverage: float = 0.5
    headroom: float = 0.8

    RENAMED: ClassVar = {"level": "confidence"}

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise ValueError(
                    f"Threshold {field.name} is {value}, expected a share in [0, 1]."
                )


class Ingredient(NamedTuple):
    """The expert that holds the only hop which the base does not know."""

    control: str
    """Its name among the controls: alone it is part of composing with the base."""
    counterfactual: str
    """The name of what was measured where it was trained on counterfactual answers."""


class PValues(NamedTuple):
    """The largest p-values over negative controls; 1 if one of them could not run.

    To beat all controls is an intersection-union test: its size needs no correction
    for their number.
    """

    accuracy: float
    """Over every control."""
    with_base: float
    """Over every control but the ingredient."""
    likelihood: float
    """Of the likelihood, over every control."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was measured of one arm under one method in one cell."""

    cell: Cell | None
    """``None`` in a study whose questions have no cells."""
    arm: Arm
    method: Method
    base_ok: bool
    """The base met its criteria."""
    expert_ok: bool
    """Every expert met its criterion."""
    two_hop: Interval
    """Accuracy of the combined model."""
    base_two_hop: Interval
    """Accuracy of the base on the same items."""
    hops: Mapping[str, Interval]
    """Retention of each hop, by name; those that some expert or the base holds. May be
    empty where an A->C expert saw the people: what it gives back rests on no hop."""
    chance: float
    """Accuracy of the combined model with the answers shuffled among people."""
    controls: Controls
    """Two-hop accuracy minus that of each negative control."""
    target_saw_people: bool
    """An A->C expert in the library was trained on these people."""
    counterfactual: Mapping[str, Interval]
    """Accuracy of the counterfactual answer where the experts of one hop were trained
    on it, by arm; empty if it was not measured."""
    joint: Interval | None
    """Two-hop accuracy of one LoRA on both fact sets; ``None`` if it could not run."""
    likelihood: Controls = dataclasses.field(default_factory=dict)
    """Loss minus shuffled loss of each negative control, minus that of the combined
    model, in nats: above 0 is better. Empty if it was not measured."""
    ingredient: Ingredient | None = None
    """``None`` where the base knows both hops or neither."""
    alone: tuple[str, ...] = ()
    """Names of those controls that are one of the experts alone."""
    coverage: float | None = None
    """Share of the second-relation facts that took part in a trained composition;
    ``None`` where the base knows none of them."""
    adjusted: PValues | None = None
    """P-values adjusted for the number of methods by ``adjust``."""
    asked: str = "two-hop"
    """What the accuracy is called in sentences."""
    unseen: str = "no A->C expert saw these people"
    """Why what is above every control is no retrieval, in a sentence."""

    def __post_init__(self) -> None:
        for name in ("controls",) if self.target_saw_people else ("hops", "controls"):
            if not getattr(self, name):
                raise ValueError(
                    f"Evidence on {self.cell or self.asked} has no {name}: a rule over "
                    f"none of them would always hold. Give each by name; a control "
                    f"that could not run is None."
                )
        if self.ingredient and self.ingredient.control not in self.controls:
            raise ValueError(
                f"Evidence on {self.cell or self.asked} names the ingredient "
                f"{self.ingredient.control!r}, expected one of its controls: "
                f"{', '.join(self.controls)}."
            )

    @property
    def others(self) -> Controls:
        """The negative controls of composing with the base: all but the ingredient."""
        left_out = self.ingredient and self.ingredient.control
        return {name: x for name, x in self.controls.items() if name != left_out}

    @property
    def p_values(self) -> PValues:
        """Before they are adjusted."""
        return PValues(*map(_worst, (self.controls, self.others, self.likelihood)))


def adjust(evidences: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """Returns the evidences with Holm's p-values over the methods tried on an arm.

    A family is all methods in the same cell on the same arm.
    """
    adjusted = list(evidences)
    for family in dict.fromkeys((e.cell, e.arm) for e in evidences):
        members = [i for i, e in enumerate(evidences) if (e.cell, e.arm) == family]
        each = zip(*(evidences[i].p_values for i in members), strict=True)
        by_member = zip(*(holm(values).tolist() for values in each), strict=True)
        for i, values in zip(members, by_member, strict=True):
            adjusted[i] = dataclasses.replace(evidences[i], adjusted=PValues(*values))
    return tuple(adjusted)


def _worst(controls: Controls) -> float:
    return max((1.0 if x is None else x.p for x in controls.values()), default=1.0)
