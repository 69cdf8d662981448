"""Records of what a combination needs: shares of people, one line a layer."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from jaxlora.studies.boundary.donors import POSITIONS
from jaxlora.studies.boundary.why import Ablated, Lens, Patched

Off: TypeAlias = tuple[str, tuple[int, ...]]
"""An expert, and which of its layers are switched off."""


def masks(layers: int) -> dict[Off, np.ndarray]:
    """Masks [2, L] of the layers that stay on, by what is switched off.

    Nothing, then of either expert each layer, the layers below one, those above one,
    and all.

    Args:
      layers: L.

    >>> [off for expert, off in masks(3) if expert == "B->C"]
    [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)]
    """
    every = tuple(range(layers))
    single = [(i,) for i in every]
    below, above = [every[:i] for i in every[2:]], [every[i:] for i in every[1:-1]]
    out: dict[Off, np.ndarray] = {("none", ()): np.ones((2, layers), np.float32)}
    for e, expert in enumerate(("A->B", "B->C")):
        for off in dict.fromkeys([*single, *below, *above, every]):
            mask = np.ones((2, layers), np.float32)
            mask[e, list(off)] = 0
            out[expert, off] = mask
    return out


def shares(
    measured: Lens | Patched, cells: Sequence[str], donor: str = ""
) -> Iterator[dict[str, Any]]:
    """Means over the people of each cell: a record for each layer and position.

    Of patching also ``follows right``: the share among people whose donor is right.

    Args:
      measured: what was read or patched.
      cells: name of the cell of each group [G].
      donor: name of the donor, of patching.
    """
    values = {name: np.asarray(x, float) for name, x in measured._asdict().items()}
    for cell in dict.fromkeys(cells):
        chosen = np.asarray(cells) == cell
        mine = {x: v[chosen].reshape(-1, *v.shape[2:]) for x, v in values.items()}
        if isinstance(measured, Patched):
            mine["follows right"] = mine["follows"][mine["donor"] > 0]
        for quantity, people in mine.items():
            if len(people):
                where = {"cell": cell, "donor": donor, "quantity": quantity}
                yield from _means(people, where | {"n": len(people)})


def _means(people: np.ndarray, where: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Over people [N], or [N, S + 1, T]."""
    if people.ndim == 1:
        yield where | {"value": people.mean()}
        return
    for (s, t), value in np.ndenumerate(people.mean(0)):
        yield where | {"layer": s, "position": POSITIONS[t], "value": value}


def needs(
    ablated: Ablated, of: Sequence[Off], cells: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Means over the people of each cell: a record for each mask.

    Args:
      ablated: [M, G, N].
      of: what each of the M masks switches off.
      cells: name of the cell of each group [G].
    """
    for quantity, values in ablated._asdict().items():
        for cell in dict.fromkeys(cells):
            mine = np.asarray(values)[:, np.asarray(cells) == cell].astype(float)
            mine = mine.reshape(len(mine), -1)
            for (expert, off), value in zip(of, mine.mean(1), strict=True):
                switched = {"expert": expert, "off": "-".join(map(str, off))}
                counted = {"cell": cell, "quantity": quantity, "n": mine.shape[1]}
                yield counted | switched | {"value": value}
