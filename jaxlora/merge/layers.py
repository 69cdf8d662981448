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
import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora.lora import Library, LoraWeight
from jaxlora.merge.linear import Linear, Reduction, WeightedSum
from jaxlora.names import hint

Layers: TypeAlias = str | Iterable[int]
"""Numbers from 0, ``"0,2-3"``, or ``"low"``, ``"high"`` or ``"all"``."""

NAMED = "low", "high", "all"
"""The first half of the layers, the second half, all of them."""

_PERIODIC = re.compile(r"layers/\d+/")

_SPANS = re.compile(r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*")


@dataclasses.dataclass(frozen=True)
class KeepLayers:
    """Zeroes each expert's delta outside of its layers."""

    by_layer: ClassVar[bool] = True

    ranges: tuple[str, ...] = ()
    """Layers of each expert; none splits all layers evenly, in the experts' order."""

    def __call__(self, key: jax.Array | None, library: Library) -> Library:
        """The library with zeros in a and b where an expert is not kept.

        Args:
          key: is not used.
          library: leaves [E, L, D, R].

        Raises:
          ValueError: if a site has no layer axis or another L, or ranges do not fit.
        """
        del key
        kept = self.mask(lora.num_experts(library), _num_layers(library))
        return lora.lora_map(lambda w: _masked(w, kept), library)

    def mask(self, experts: int, layers: int) -> np.ndarray:
        """Which expert is kept at which layer, bool [E, L].

        Args:
          experts: E.
          layers: L.

        Raises:
          ValueError: if there are not E ranges, or one names a layer that is not there.
        """
        ranges = self.ranges or _split(experts, layers)
        if len(ranges) != experts:
            raise ValueError(
                f"Got layers of {len(ranges)} experts for a library of {experts}, "
                f"expected a range for each expert, in the same order."
            )
        numbers = [_numbers(e, text, layers) for e, text in enumerate(ranges)]
        return np.stack([np.isin(np.arange(layers), kept) for kept in numbers])


@dataclasses.dataclass(frozen=True)
class SumEnds(Linear):
    """The sum in the lowest and the highest layers, the mean between them."""

    by_layer: ClassVar[bool] = True

    ends: float

    def check(self, weights: np.ndarray) -> None:
        """Refuses weights that sum to 0, as a mean does."""
        WeightedSum(normalize=True).check(weights)

    def coefficients(self, gram: jax.Array, weights: jax.Array) -> jax.Array:
        """``w_e`` at the ends, ``w_e / sum(w)`` between them, [E, L].

        Args:
          gram: inner products of deltas, [L, E, E].
          weights: [E].

        Raises:
          ValueError: if there is no layer axis.
        """
        if gram.ndim != 3:
            raise ValueError(
                f"sum_ends needs all layers of a site at once, got inner products of "
                f"shape {gram.shape}, expected [L, E, E]: it takes no steps before it, "
                f"the space 'delta', and sites a [E, L, D, R]."
            )
        number = np.arange(layers := gram.shape[0])
        # Less a rounding error, which would count one layer more: 0.1 * 30 > 3.
        count = math.ceil(self.ends * layers - 1e-9)
        full = (number < count) | (number >= layers - count)
        total, mean = (
            WeightedSum(normalize=share).coefficients(gram, weights)
            for share in (False, True)
        )
        return jnp.where(full[None], total, mean)


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
    return KeepLayers(tuple(_text(e, kept) for e, kept in enumerate(ranges)))


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


def check_alike(library: Library) -> None:
    """Refuses sites that are of some layers only, such as ``layers/3/...``.

    Args:
      library: [E, L, ...], for a merge that tells layers apart by their number.

    Raises:
      ValueError: naming the site.
    """
    for name in lora.sites(library):
        if _PERIODIC.match(name):
            raise ValueError(
                f"Site {name!r} is of each layer of its kind, in a model whose layers "
                f"are of several kinds, where merges by layer are not supported; take "
                f"one that treats all layers alike."
            )


def _text(expert: int, layers: Layers) -> str:
    """Numbers as text, so that equal ranges are equal values."""
    text = layers if isinstance(layers, str) else ",".join(map(str, layers))
    text = text.replace(" ", "")
    if not text:
        raise ValueError(
            f"Expert {expert} keeps no layer, expected at least one; the weight 0 "
            f"leaves an expert out."
        )
    read = bool(_SPANS.fullmatch(text))
    if text not in NAMED and not (read and all(x <= y for x, y in _spans(text))):
        raise ValueError(
            f"Expert {expert} keeps the layers {text!r}, expected numbers from 0 such "
            f"as 0,2-3, or one of {', '.join(NAMED)}{hint(text, NAMED)}"
        )
    return text


def _spans(text: str) -> list[tuple[int, int]]:
    """The first and the last layer of each part of a text."""
    ends = [part.split("-") for part in text.split(",")]
    return [(int(numbers[0]), int(numbers[-1])) for numbers in ends]


def _numbers(expert: int, text: str, layers: int) -> Sequence[int]:
    """The layers that a text names, in a model of ``layers``."""
    half = layers // 2
    if text in NAMED:
        named = {"low": range(half), "high": range(half, layers), "all": range(layers)}
        if not named[text]:
            raise ValueError(
                f"Expert {expert} keeps the {text} half of a model with {layers} "
                f"layers, which is empty; expected two layers or more."
            )
        return named[text]
    spans = _spans(text)
    # Ends first: a range of a billion layers is refused before it is counted.
    beyond = [sorted({first, last}) for first, last in spans if last >= layers]
    if beyond:
        shown = ",".join("-".join(map(str, ends)) for ends in beyond)
        raise ValueError(
            f"Expert {expert} keeps layers {shown} of a model with {layers} layers; "
            f"there are 0 to {layers - 1}."
        )
    return [n for first, last in spans for n in range(first, last + 1)]


def _split(experts: int, layers: int) -> tuple[str, ...]:
    """All layers, evenly, in the order of experts."""
    if experts > layers:
        raise ValueError(
            f"Got {experts} experts for {layers} layers, so that some would keep none; "
            f"expected as many layers or more, or ranges, which may overlap."
        )
    starts = [e * layers // experts for e in range(experts + 1)]
    return tuple(f"{starts[e]}-{starts[e + 1] - 1}" for e in range(experts))


def _num_layers(library: Library) -> int:
    """L, the same at every site."""
    known: dict[int, str] = {}
    for name, weight in lora.sites(library).items():
        if weight.a.ndim != 4:
            raise ValueError(
                f"Site {name!r} has a of shape {weight.a.shape}, expected "
                f"[E, L, D, R]: experts are kept by layer, on an axis of layers."
            )
        known.setdefault(weight.a.shape[1], name)
    if len(known) > 1:
        (size, first), (other, second), *_ = known.items()
        raise ValueError(
            f"Site {first!r} has {size} layers and {second!r} has {other}, expected as "
            f"many everywhere: a number would mean another layer at each."
        )
    return next(iter(known))


def _masked(weight: LoraWeight, kept: np.ndarray) -> LoraWeight:
    # Selected, not multiplied: what is not kept may be anything, NaN too.
    a, b = (jnp.where(kept[..., None, None], x, 0) for x in (weight.a, weight.b))
    # The scale stays: a factor space may take the first expert's for all of them.
    return LoraWeight(a, b, weight.scale)
