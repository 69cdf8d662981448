"""Layers that an expert keeps, as a text: read, checked, and counted.

``"0,2-3"`` is the layers 0, 2 and 3; ``"low"``, ``"high"`` and ``"all"`` are the first
half of the layers, the second half, and all of them.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from jaxlora.names import hint

Layers: TypeAlias = str | Iterable[int]
"""Numbers from 0, ``"0,2-3"``, or ``"low"``, ``"high"`` or ``"all"``."""

NAMED = "low", "high", "all"
"""The first half of the layers, the second half, all of them."""

_SPANS = re.compile(r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*")


def text_of(expert: int, layers: Layers) -> str:
    """Returns layers as text, so that equal ranges are equal values.

    Args:
      expert: its number, for messages.
      layers: that it keeps.

    Raises:
      ValueError: if there is none, or they cannot be read.
    """
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


def numbers(expert: int, text: str, layers: int) -> Sequence[int]:
    """Returns the layers that a text names.

    Args:
      expert: its number, for messages.
      text: as :func:`text_of` gives it.
      layers: L of the model.

    Raises:
      ValueError: if the model has no such layer.
    """
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


def split(experts: int, layers: int) -> tuple[str, ...]:
    """Returns all layers, evenly, in the order of experts.

    Args:
      experts: E.
      layers: L, E or more.

    Raises:
      ValueError: if there are fewer.

    >>> split(3, 4)
    ('0-0', '1-1', '2-3')
    """
    if experts > layers:
        raise ValueError(
            f"Got {experts} experts for {layers} layers, so that some would keep none; "
            f"expected as many layers or more, or ranges, which may overlap."
        )
    starts = [e * layers // experts for e in range(experts + 1)]
    return tuple(f"{starts[e]}-{starts[e + 1] - 1}" for e in range(experts))
