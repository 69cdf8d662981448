"""What a merge did, in one sentence: strength, direction, and how experts overlap."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxlora.io import collection_about
from jaxlora.io.collection import Collection
from jaxlora.io.collection_base import GAIN
from jaxlora.merge.groups import Totals
from jaxlora.names import few

SMALL = 0.01
"""A direction that is off by less is that of the exact sum."""
LARGE = 1.5
"""A merge this many times the weighted norms of its experts, added up, is remarked."""
ORTHOGONAL = 0.1
"""Experts whose cosines are smaller hardly see each other."""
NAMED = 4
"""So many experts are named; of more only the range is."""
_FRACTIONS = {
    1: "in full",
    1 / 2: "at half strength",
    1 / 3: "at a third of its strength",
    1 / 4: "at a quarter of its strength",
}
_EXACT = ("mean", "sum")


def sentence(
    method: str, experts: Sequence[str], weights: Sequence[float], totals: Totals
) -> str:
    """Says what a merge did to the experts that it was given.

    Args:
      method: by its name.
      experts: their names.
      weights: one for each of them; 0 leaves an expert out.
      totals: the merge beside them.

    >>> half = np.full(2, 0.5)
    >>> totals = Totals(0.7, 1.4, 0.5, 1.0, np.ones(2), half, 0.02)
    >>> sentence("mean", ["a", "b"], [1, 1], totals).partition(";")[0]
    'exact mean: each expert acts at half strength, nothing else is lost'
    """
    present = [
        (name, float(c))
        for name, weight, c in zip(experts, weights, totals.coefficients, strict=True)
        if weight and math.isfinite(c)
    ]
    if not present or math.isnan(totals.cosine):
        return f"{method}: nothing to compare, as the experts or their sum are zero"
    off = math.sqrt(max(0.0, 1 - totals.cosine**2))
    lead = f"exact {method}" if method in _EXACT and off < SMALL else method
    parts = [f"{_strengths(present)}, {_direction(off, present)}"]
    if len(present) > 1:
        parts.append(_overlap(totals.overlap))
    return f"{lead}: {'; '.join(parts)}"


def nothing(
    library: Collection, weights: Sequence[float], grams: Mapping[str, np.ndarray]
) -> Iterator[str]:
    """Says which adapters, and which modules of them or of their merge, are zero.

    Args:
      library: the adapters.
      weights: one for each of them; 0 leaves an adapter out.
      grams: by group, ``groups.products`` [L, 1 + E, 1 + E].
    """
    squares = {name: np.diagonal(x, axis1=1, axis2=2).T for name, x in grams.items()}
    kept = np.asarray(weights) != 0
    of_experts = {
        name: np.where(kept[:, None], x[1:], 1) for name, x in squares.items()
    }
    yield from collection_about.nothing(library, of_experts)
    # A gain of 1 (of DoRA) is no update, and no module of its own.
    updates = {x: y for x, y in library.modules.items() if GAIN not in x}
    zero = [
        path
        for name, paths in updates.items()
        for path, square in zip(paths, squares[name][0], strict=True)
        if square == 0
    ]
    if zero:
        count = sum(map(len, updates.values()))
        yield (f"The merge is zero in {len(zero)} of {count} modules: {few(zero)}.")


def too_large(weights: Sequence[float], totals: Totals) -> Iterator[str]:
    """Says that a merge is much larger than all that went into it.

    Args:
      weights: one for each expert.
      totals: the merge beside them.
    """
    together = float(np.abs(weights) @ totals.norms)
    if together and totals.merged > LARGE * together:
        yield (
            f"The merge is {totals.merged / together:.1f} times as large as all "
            f"adapters added up: the method divides by small singular values, as where "
            f"ranks fill the layer; compare with `--method mean` before use."
        )


def _strengths(present: Sequence[tuple[str, float]]) -> str:
    values = [value for _, value in present]
    if max(values) - min(values) < 2 * SMALL:
        who = "each expert" if len(values) > 1 else present[0][0]
        return f"{who} acts {strength(float(np.mean(values)))}"
    if len(values) <= NAMED:
        return ", ".join(f"{name} acts {strength(value)}" for name, value in present)
    return f"experts act at {min(values):.2f} to {max(values):.2f} of their strength"


def strength(coefficient: float) -> str:
    """A coefficient in words, where there are words for it.

    Args:
      coefficient: ``<merged, delta> / |delta|^2`` of an expert.

    >>> strength(0.334), strength(0.7)
    ('at a third of its strength', 'at 0.70 of its strength')
    """
    for value, words in _FRACTIONS.items():
        if abs(coefficient - value) < SMALL:
            return words
    return f"at {coefficient:.2f} of its strength"


def _direction(off: float, present: Sequence[tuple[str, float]]) -> str:
    if off >= SMALL:
        return (
            f"and the direction is {off:.2f} off the exact sum's (scale taken out; 0 "
            f"is the same, 1 has nothing of it)"
        )
    full = all(abs(value - 1) < SMALL for _, value in present)
    return f"nothing {'' if full else 'else '}is lost"


def _overlap(largest: float) -> str:
    if math.isnan(largest):
        return "one of the experts is zero"
    words = "are nearly orthogonal" if largest < ORTHOGONAL else "overlap"
    return f"the experts {words} (largest cosine {largest:.2f})"
