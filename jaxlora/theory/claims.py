"""The claims: what is said, under which assumptions, why, and how it is tested.

Proofs are in our own words. The target paper's Theorem 2 was not available to us: what
stands here is a reconstruction from its setting, and may differ from it.
"""

import dataclasses
import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from scipy import stats

from jaxlora.theory import (
    measure,
    measure_bounds,
    measure_layers,
    predict,
    predict_layers,
)
from jaxlora.theory.claims_text import TEXTS


class Rule(StrEnum):
    """How far a measured share may be from the predicted one; see :func:`interval`."""

    EXACT = "exact"
    SURE = "sure"
    NEAR = "near"
    CHANCE = "chance"


class Program(NamedTuple):
    """A measurement and its prediction, of the same arguments after the key."""

    measure: Callable[..., dict[str, Any]]
    predict: Callable[..., dict[str, float]]


PROGRAMS = {
    "two-hop": Program(measure.two_hop, predict.two_hop),
    "apart": Program(measure.apart, predict.apart),
    "alike": Program(measure.alike, predict.alike),
    "dominance": Program(measure.dominance, predict.dominance),
    "added": Program(measure.added, predict.added),
    "placed": Program(measure_layers.placed, predict_layers.placed),
    "capacity": Program(measure_bounds.capacity, predict.capacity),
    "interference": Program(measure_bounds.interference, predict.interference),
    "low-rank": Program(measure_bounds.low_rank, predict.low_rank),
    "scaled": Program(measure_bounds.scaled, predict.scaled),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement that can fail."""

    name: str
    program: str
    """Which of :data:`PROGRAMS` tests it."""
    items: dict[str, Rule] = dataclasses.field(hash=False)
    """What of its measurements the claim speaks of; a last ``*`` stands for the best of
    all whose names begin so."""

    @property
    def statement(self) -> str:
        """What is claimed."""
        return TEXTS[self.name].statement

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What must hold; each is broken on purpose by a test."""
        return TEXTS[self.name].assumptions

    @property
    def proof(self) -> str:
        """Why, in short."""
        return TEXTS[self.name].proof


def _claim(name: str, program: str, **rules: tuple[str, ...]) -> Claim:
    items = {item: Rule(rule) for rule, names in rules.items() for item in names}
    return Claim(name=name, program=program, items=items)


_RANKS = measure_bounds.RANKS
_SCALED = tuple(
    f"{kind}, rank {part:g} D"
    for kind in ("adding", "overwriting")
    for part in measure_bounds.PARTS
)
_SECOND = ("second pass, gain 0.5", "second pass, gain 2")

CLAIMS = (
    _claim("edit is exact", "two-hop", exact=("expert 1", "expert 2")),
    _claim("sum keeps both hops", "two-hop", exact=("sum: hop 1", "sum: hop 2")),
    _claim("sum keeps added hops", "added", sure=("hop 1", "hop 2", "bridge")),
    _claim("two-hop answers the bridge", "two-hop", sure=("sum: bridge",)),
    _claim(
        "composition is chance",
        "two-hop",
        sure=("sum: composed",),
        chance=("sum: composed among ends", "mean: composed among ends"),
    ),
    _claim("mean ties old and new", "two-hop", near=("mean: hop 1", "mean: hop 2")),
    _claim("no scalar gate repairs it", "two-hop", chance=("gate *",)),
    _claim(
        "a written bridge repairs it",
        "two-hop",
        sure=("written, stale 0", "written, stale 0.5", "written, stale 2"),
    ),
    _claim(
        "a second pass repairs it",
        "two-hop",
        sure=(*_SECOND, "second pass, untied", "second layer: new"),
        near=("second layer: old",),
    ),
    _claim(
        "placed edits compose",
        "placed",
        near=("placed: composed", "placed: bridge"),
        exact=("placed: hop 1", "placed: hop 2"),
    ),
    _claim(
        "other placements do not",
        "placed",
        sure=tuple(f"{p}: composed" for p in ("reversed", "both low", "both high")),
        near=("both low: bridge",),
    ),
    _claim(
        "edits in both layers",
        "placed",
        exact=("halves, sum: hop 1", "halves, sum: hop 2"),
        near=(
            "base: composed",
            "halves, sum: composed",
            *(f"halves, mean: {x}" for x in ("hop 1", "hop 2", "composed")),
            *(f"placed, mean: {x}" for x in ("hop 1", "hop 2", "composed")),
        ),
    ),
    _claim("edits made apart", "apart", near=("together",), exact=("one alone",)),
    _claim(
        "alike embeddings close the gap",
        "alike",
        sure=("hop 1", "hop 2"),
        near=("composed among ends",),
    ),
    _claim("the stronger relation wins", "dominance", near=("r1 of X", "r2 of X")),
    _claim("capacity", "capacity", near=("outer products", "least squares")),
    _claim("interference", "interference", near=("kept",)),
    _claim("rank to add", "low-rank", near=tuple(f"adding, rank {r}" for r in _RANKS)),
    _claim(
        "rank to overwrite",
        "low-rank",
        near=tuple(f"overwriting, rank {r}" for r in _RANKS),
    ),
    _claim("scale and rank", "scaled", near=_SCALED),
)


def claim(name: str) -> Claim:
    """Returns a claim by name.

    Args:
      name: one of those in :data:`CLAIMS`.

    Raises:
      ValueError: if there is none, naming those that there are.

    >>> claim("capacity").program
    'capacity'
    """
    by_name = {claim.name: claim for claim in CLAIMS}
    if name not in by_name:
        names = ", ".join(map(repr, by_name))
        raise ValueError(f"No claim {name!r}; there are {names}.")
    return by_name[name]


def interval(
    rule: Rule, predicted: float, items: int, tries: int = 1
) -> tuple[float, float]:
    """Returns where the pooled share must lie; never wider than 0.2.

    ``exact``: within 0.01. ``sure``: within 0.05. ``near``: within 0.1. ``chance``:
    what a share of ``items`` draws stays in with 99.9% (all ``tries`` of them
    together), from 0 on, because fewer hits than chance refute nothing.

    Args:
      rule: of the four.
      predicted: the share.
      items: prompts that are pooled.
      tries: how many shares the largest is taken of.

    >>> interval(Rule.NEAR, 0.5, 100)
    (0.4, 0.6)
    >>> interval(Rule.CHANCE, 0.02, 400)
    (0.0, 0.05)
    """
    if rule is Rule.CHANCE:
        most = stats.binom.isf(0.001 / tries, items, predicted) / items
        return 0.0, math.ceil(100 * most) / 100
    within = {Rule.EXACT: 0.01, Rule.SURE: 0.05, Rule.NEAR: 0.1}[rule]
    low, high = max(predicted - within, 0.0), min(predicted + within, 1.0)
    return round(low, 4), round(high, 4)
