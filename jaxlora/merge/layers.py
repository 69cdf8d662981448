"""Experts by layer: a step that keeps each where it is wanted, and a symmetric sum.

A transformer that composes two facts reads the first low and the second high. An expert
whose fact comes first is then of use in the low layers only, and elsewhere it may
disturb the other. :func:`keep_layers` zeroes each expert's delta outside layers of its
own, before any reduction. It needs to know which expert comes first.

Where that is not known, nothing linear can tell experts apart: the placed sum averaged
over the orders of experts is their mean, and the union of all placements their sum. All
that is left to choose is the strength at each layer, see :func:`sum_ends`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora.lora import Library, LoraWeight
from jaxlora.merge import places as places_of
from jaxlora.merge.linear import Linear, Reduction, WeightedSum
from jaxlora.merge.places import Places
from jaxlora.merge.ranges import Layers, numbers, split, text_of
from jaxlora.tree import map_named


@dataclasses.dataclass(frozen=True)
class KeepLayers:
    """Zeroes each expert's delta outside of its layers."""

    by_layer: ClassVar[bool] = True

    ranges: tuple[str, ...] = ()
    """Layers of each expert; none splits all layers evenly, in the experts' order."""
    places: Places | None = None
    """Of sites that are of some layers only; None where each is of all of them."""

    def __call__(self, key: jax.Array | None, library: Library) -> Library:
        """The library with zeros in a and b where an expert is not kept.

        Args:
          key: is not used.
          library: leaves [E, L, ..., D, R].

        Raises:
          ValueError: if a site has no layer axis or another L, or ranges do not fit.
        """
        del key
        where, experts = self.places, lora.num_experts(library)
        layers = where.layers if where else places_of.count(lora.sites(library))
        kept = self.mask(experts, layers)

        def masked(name: str, weight: LoraWeight) -> LoraWeight:
            return _masked(weight, kept[:, where.of(name, weight)] if where else kept)

        return map_named(masked, library, is_leaf=lora.is_lora)

    def mask(self, experts: int, layers: int) -> np.ndarray:
        """Which expert is kept at which layer, bool [E, L].

        Args:
          experts: E.
          layers: L.

        Raises:
          ValueError: if there are not E ranges, or one names a layer that is not there.
        """
        ranges = self.ranges or split(experts, layers)
        if len(ranges) != experts:
            raise ValueError(
                f"Got layers of {len(ranges)} experts for a library of {experts}, "
                f"expected a range for each expert, in the same order."
            )
        every = [numbers(e, text, layers) for e, text in enumerate(ranges)]
        return np.stack([np.isin(np.arange(layers), kept) for kept in every])


@dataclasses.dataclass(frozen=True)
class SumEnds(Linear):
    """The sum in the lowest and the highest layers, the mean between them."""

    by_layer: ClassVar[bool] = True

    ends: float
    """Share of the layers at each end."""
    places: Places | None = None
    """Of the one site, if it is of some layers only."""

    def check(self, weights: np.ndarray) -> None:
        """Refuses weights that sum to 0, as a mean does."""
        WeightedSum(normalize=True).check(weights)

    def coefficients(self, gram: jax.Array, weights: jax.Array) -> jax.Array:
        """``w_e`` at the ends, ``w_e / sum(w)`` between them, [E, L, ...].

        Args:
          gram: inner products of deltas, [L, ..., E, E].
          weights: [E].

        Raises:
          ValueError: if there is no layer axis.
        """
        if gram.ndim < 3:
            raise ValueError(
                f"sum_ends needs all layers of a site at once, got inner products of "
                f"shape {gram.shape}, expected [L, E, E]: it takes no steps before it, "
                f"the space 'delta', and sites a [E, L, D, R]."
            )
        number, layers = np.arange(gram.shape[0]), gram.shape[0]
        if self.places is not None:
            ((_, some),), layers = self.places.sites, self.places.layers
            number = np.asarray(some)
        # Less a rounding error, which would count one layer more: 0.1 * 30 > 3.
        count = math.ceil(self.ends * layers - 1e-9)
        full = (number < count) | (number >= layers - count)
        total, mean = (
            WeightedSum(normalize=share).coefficients(gram, weights)
            for share in (False, True)
        )
        # Behind the layers there may be an axis of several MLPs.
        return jnp.where(full.reshape(1, -1, *[1] * (gram.ndim - 3)), total, mean)


def keep_layers(ranges: Sequence[Layers] | None = None) -> KeepLayers:
    """A transform ``(key, library) -> library`` that keeps each expert in some layers.

    Follow it by a sum: each layer then has its experts in full. A mean would divide
    them by the number of all experts, also where only one of them is left. Layers are
    counted from 0; the low half of an odd number of layers is the smaller one.

    Args:
      ranges: for each of E experts its layers: numbers, a text such as ``"0,2-3"``, or
        ``"low"``, ``"high"`` or ``"all"``. None splits L layers evenly, in the order of
        the experts: expert e keeps e L // E to (e + 1) L // E - 1.

    Raises:
      ValueError: if there is no range, or one is empty or cannot be read; when it runs,
        if experts or layers do not fit a library.

    >>> keep_layers([(0,), (2, 3)]).mask(experts=2, layers=4).astype(int).tolist()
    [[1, 0, 0, 0], [0, 0, 1, 1]]
    >>> keep_layers(["low", "1-2"]).mask(experts=2, layers=4).astype(int).tolist()
    [[1, 1, 0, 0], [0, 1, 1, 0]]
    >>> keep_layers().mask(experts=3, layers=4).astype(int).tolist()
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]
    >>> keep_layers(["low", "4-5"]).mask(experts=2, layers=4)
    Traceback (most recent call last):
    ValueError: Expert 1 keeps layers 4-5 of a model with 4 layers; there are 0 to 3.
    """
    if ranges is None:
        return KeepLayers()
    if isinstance(ranges, str) or not ranges:
        raise ValueError(
            f"Got the layers {ranges!r}, expected a range for each expert, such as "
            f"['low', 'high'] or [(0,), (2, 3)]."
        )
    return KeepLayers(tuple(text_of(e, kept) for e, kept in enumerate(ranges)))


def sum_ends(ends: float = 0.25) -> Reduction:
    """A placed sum for those who do not know which expert comes first.

    Every expert is added in full in the lowest and in the highest layers, where it
    would be needed if it came first or last, and averaged in the layers between them,
    where none has a place of its own. No expert is told apart from another, so their
    order cannot matter. It is a compromise by design and not by measurement.

    Args:
      ends: share of layers at each end, rounded up; 0 is the mean and 1/2 the sum.

    Raises:
      ValueError: if the share is not between 0 and 1/2.

    >>> gram = jnp.ones((4, 2, 2))
    >>> sum_ends().coefficients(gram, jnp.ones(2))[0].tolist()
    [1.0, 0.5, 0.5, 1.0]
    """
    if not 0 <= ends <= 0.5:
        raise ValueError(
            f"ends is {ends}, expected a share in [0, 0.5]: of the layers at each end, "
            f"and there are two ends."
        )
    return SumEnds(ends)


def _masked(weight: LoraWeight, kept: np.ndarray) -> LoraWeight:
    kept = kept.reshape(*kept.shape, *[1] * (weight.a.ndim - 2))
    # Selected, not multiplied: what is not kept may be anything, NaN too.
    a, b = (jnp.where(kept, x, 0) for x in (weight.a, weight.b))
    # The scale stays: a factor space may take the first expert's for all of them.
    return LoraWeight(a, b, weight.scale)
