"""In which layers an adapter holds what it changes."""

from collections.abc import Sequence

import numpy as np

from jaxlora import lora
from jaxlora.lora import Adapter, LoraWeight

USED = 0.01
"""Share of an adapter's energy from which a layer counts as used."""


def layer_norms(adapter: Adapter) -> np.ndarray:
    """Returns the Frobenius norm of an adapter's delta in each layer, [L].

    ``|s a b|^2 = s^2 tr(a^T a b b^T)``: no delta is made.

    Args:
      adapter: one adapter; sites are [L, D, R].
    """
    energies = [_energy(weight) for weight in lora.sites(adapter).values()]
    return np.sqrt(np.sum(energies, axis=0))


def _energy(weight: LoraWeight) -> np.ndarray:
    a, b, scale = (
        np.asarray(x, np.float64) for x in (weight.a, weight.b, weight.scale)
    )
    inner = np.swapaxes(a, -1, -2) @ a
    outer = b @ np.swapaxes(b, -1, -2)
    return scale**2 * (inner * np.swapaxes(outer, -1, -2)).sum((-2, -1))


def used(norms: np.ndarray) -> tuple[bool, ...]:
    """Which layers hold a share of the energy that counts.

    Args:
      norms: [L].

    >>> used(np.array([3.0, 0.1, 4.0]))
    (True, False, True)
    """
    energy = norms**2
    return tuple(bool(x) for x in energy > USED * energy.sum())


def spelled(layers: Sequence[bool]) -> str:
    """Layers as ranges.

    Args:
      layers: [L].

    >>> spelled([True, False, True, True]), spelled([False])
    ('0, 2-3', 'none')
    """
    ranges: list[list[int]] = []
    for i in np.flatnonzero(layers).tolist():
        if ranges and ranges[-1][1] == i - 1:
            ranges[-1][1] = i
        else:
            ranges.append([i, i])
    words = [str(x) if x == y else f"{x}-{y}" for x, y in ranges]
    return ", ".join(words) or "none"
