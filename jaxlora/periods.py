"""Numbers in the names of leaves: layers of several kinds come in periods.

Where all layers are alike, ``layers/mlp/up_proj/kernel`` [L, D, F] is of all of them.
Of P kinds in a row (``DecoderConfig.kinds``) layer i is the one of number i mod P
in period i div P, and ``layers/3/mlp/up_proj/kernel`` [L / P, D, F] is of each fourth.
"""

import re
from collections.abc import Iterable

_NUMBERED = re.compile(r"layers/(\d{1,6})/(.*)")


def split(name: str) -> tuple[str, int | None]:
    """Returns a name without its number, and that number or None.

    Args:
      name: of a leaf or site.

    >>> split("layers/3/mlp/up_proj/kernel"), split("head")
    (('layers/mlp/up_proj/kernel', 3), ('head', None))
    """
    match = _NUMBERED.fullmatch(name)
    return (f"layers/{match[2]}", int(match[1])) if match else (name, None)


def length(names: Iterable[str]) -> int | None:
    """Returns P of a decoder whose layers have numbers; None where all are alike.

    Args:
      names: of its leaves, or of all of its sites.
    """
    numbers = [number for _, number in map(split, names) if number is not None]
    return 1 + max(numbers) if numbers else None


def place(name: str, layer: int, period: int | None) -> tuple[str, int]:
    """Returns the name of a layer's leaf, and the layer's index in it.

    Args:
      name: without a number.
      layer: from 0.
      period: P, or None where all layers are alike.

    >>> place("layers/mlp/up_proj/kernel", 7, 4)
    ('layers/3/mlp/up_proj/kernel', 1)
    """
    if period is None:
        return name, layer
    inner = name.removeprefix("layers/")
    return f"layers/{layer % period}/{inner}", layer // period


def layers_of(number: int | None, period: int, layers: int) -> range:
    """Returns which layers of a model a leaf is of, in the order of its axis.

    Args:
      number: of the leaf, as :func:`split` gives it.
      period: P.
      layers: L of the model.

    >>> list(layers_of(1, 4, 8)), list(layers_of(None, 1, 3))
    ([1, 5], [0, 1, 2])
    """
    return range(layers) if number is None else range(number, layers, period)
