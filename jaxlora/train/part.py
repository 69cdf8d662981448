"""What a training run changes: the factors of an adapter, or the keys of a gate.

The loop is one and the same: it splits a tree into what learns and what stays, and
joins them where the decoder needs the whole.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

from jaxlora import lora
from jaxlora.train import gates
from jaxlora.tree import Tree


@dataclasses.dataclass(frozen=True)
class Part:
    """One of a decoder's arguments, and how much of it learns; hashable."""

    name: Literal["adapter", "gate"]
    """The argument of ``models.hidden``."""
    split: Callable[[Tree], tuple[Tree, Tree]]
    """Into what learns and the rest."""
    join: Callable[[Tree, Tree], Tree]
    """The inverse of ``split``."""


ADAPTER = Part("adapter", lora.split, lora.combine)
"""Factors learn; scales stay."""
GATE = Part("gate", gates.split, gates.combine)
"""Keys learn; live places and fingerprints stay."""
