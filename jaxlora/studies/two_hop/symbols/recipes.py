"""How experts are trained, on what, and what they must be able to do."""

import dataclasses
from collections.abc import Mapping

from jaxlora.studies.harness.config import at_least, distinct, positive
from jaxlora.tasks.two_hop.experts import Expert
from jaxlora.tasks.two_hop.practice import Practice, Practices


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """How experts and their ceilings are trained: Adam, full batch."""

    steps: int = 200
    """Steps of every LoRA."""
    draw: int = 0
    """Rows of a step, drawn without replacement; 0 for all."""
    first: Practice = dataclasses.field(default_factory=Practice)
    """Rows of the A→B expert."""
    second: Practice = dataclasses.field(default_factory=Practice)
    """Rows of the B→C expert."""
    first_layers: tuple[int, ...] = ()
    """Layers that the A→B expert may change; empty for all."""
    second_layers: tuple[int, ...] = ()
    """Layers that the B→C expert may change; empty for all."""
    learning_rate: float = 3e-3
    """Adam rate of every LoRA."""
    full_steps: int = 100
    """Steps of full fine-tuning."""
    full_learning_rate: float = 3e-4
    """Adam rate of full fine-tuning."""
    min_own: float = 0.99
    """Criterion: an expert's accuracy on its own facts."""
    extra: bool = True
    """Train experts that no verdict rests on: of others, of documents, of copies."""

    def __post_init__(self):
        at_least(self, 1, "steps", "full_steps")
        at_least(self, 0, "draw")
        for name in ("first_layers", "second_layers"):
            layers = getattr(self, name)
            distinct(name, layers)
            if any(layer < 0 for layer in layers):
                raise ValueError(f"{name} is {layers}, expected numbers from 0 on.")
        positive(self, "learning_rate", "full_learning_rate")

    @property
    def placed(self) -> bool:
        """Are the experts confined to layers?"""
        return bool(self.first_layers or self.second_layers)

    @property
    def practices(self) -> Practices:
        """Rows of both experts."""
        return Practices(self.first, self.second)


@dataclasses.dataclass(frozen=True)
class Kind:
    """All that decides what an expert is trained on, but for its people."""

    expert: Expert
    practices: Practices = Practices()  # noqa: RUF009 (frozen)
    layers: tuple[int, ...] = ()
    """That may change; empty for all."""


FIRST = (Expert.HOP1, Expert.COUNTER1)
SECOND = (Expert.HOP2, Expert.COUNTER2, Expert.IDENTITY)
EXTRA = (
    Expert.TARGET_FIRST,
    Expert.TARGET_SECOND,
    Expert.IDENTITY,
    Expert.DOCUMENT,
)
"""What verdicts are given without."""
REVERSED = {Expert.HOP1_REVERSED: Expert.HOP1, Expert.HOP2_REVERSED: Expert.HOP2}


def kinds(recipe: ExpertsConfig) -> Mapping[Expert, Kind]:
    """The kind of every expert of a recipe; equal kinds are equal experts.

    Args:
      recipe: of all experts.
    """
    reversed_ = REVERSED if recipe.placed else {}
    names = [x for x in Expert if x not in REVERSED or x in reversed_]
    names = [x for x in names if recipe.extra or x not in EXTRA]
    return {name: _kind(name, recipe) for name in names}


def _kind(name: Expert, recipe: ExpertsConfig) -> Kind:
    first, second = recipe.first, recipe.second
    if name in FIRST:
        return Kind(name, Practices(first=first), recipe.first_layers)
    if name in SECOND:
        return Kind(name, Practices(second=second), recipe.second_layers)
    # Placed the wrong way round: what must not work if the order of layers matters.
    if name is Expert.HOP1_REVERSED:
        return Kind(Expert.HOP1, Practices(first=first), recipe.second_layers)
    if name is Expert.HOP2_REVERSED:
        return Kind(Expert.HOP2, Practices(second=second), recipe.first_layers)
    if name is Expert.JOINT:
        return Kind(name, recipe.practices)
    # Others are trained on two-hop rows: written ones too, where anything practises.
    if name is Expert.DOCUMENT or not (first.rho or second.rho):
        return Kind(name)
    return Kind(name, Practices(second=Practice(rho=1.0)))
