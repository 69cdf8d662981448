"""Which layers of a model the sites of a library are of.

In most models each site is of all layers, and the axis L of a library counts them.
Where layers are of several kinds a site is of some of them only: ``layers/3/...`` of
each fourth, say. A merge that tells layers apart must then be given their numbers.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from jaxlora import lora, periods
from jaxlora.lora import Library, LoraWeight

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Places:
    """The layers of sites; hashable."""

    layers: int
    """L of the model."""
    sites: tuple[tuple[str, tuple[int, ...]], ...]
    """By site, the layer of each entry of its axis of layers, 0 to L - 1; several
    entries may be of one layer."""

    def __post_init__(self):
        for name, some in self.sites:
            if not all(0 <= n < self.layers for n in some):
                raise ValueError(
                    f"Site {name!r} is of the layers {list(some)}, expected numbers "
                    f"from 0 to {self.layers - 1}."
                )

    def of(self, site: str, weight: LoraWeight) -> np.ndarray:
        """Returns the layers of a site, [l].

        Args:
          site: its name.
          weight: the library there, a [E, l, ..., D, R].

        Raises:
          ValueError: if the site is not known, or is of as many layers not.
        """
        some, axes = dict(self.sites).get(site), weight.scale.shape[1:]
        if some is None:
            raise ValueError(
                f"Site {site!r} lies in no layer that is known by number, and the "
                f"merge tells layers apart; leave that site out, or take a merge that "
                f"treats layers alike."
            )
        if not axes or len(some) != axes[0]:
            raise ValueError(
                f"Site {site!r} has a of shape {weight.a.shape}, expected [E, L, D, R] "
                f"with L = {len(some)}, as its places say: layers are told apart by "
                f"number."
            )
        return np.asarray(some)

    def only(self, site: str, name: str | None = None) -> "Places":
        """Returns those of one site.

        Args:
          site: its name.
          name: what it is called then; by default as before.
        """
        some = dict(self.sites)[site]
        return Places(self.layers, ((site if name is None else name, some),))


def in_periods(names: Iterable[str], period: int, layers: int) -> Places:
    """Returns the places of sites whose names are numbered by periods.

    Args:
      names: of the sites.
      period: P, kinds of layers in a row.
      layers: L of the model.

    >>> in_periods(["layers/1/attn/q_proj/kernel"], 2, 6).sites[0][1]
    (1, 3, 5)
    """
    every = {name: periods.split(name)[1] for name in names}
    return Places(
        layers,
        tuple(
            (name, tuple(periods.layers_of(number, period, layers)))
            for name, number in sorted(every.items())
        ),
    )


def placed(part: T, places: Places | None) -> T:
    """Returns a part of a merge that knows places, if it tells layers apart.

    Args:
      part: a transform, a step or a reduction.
      places: or None.

    Raises:
      ValueError: if the part has no field for them.
    """
    if places is None or not getattr(part, "by_layer", False):
        return part
    known: Any = part
    if not hasattr(part, "places"):
        raise ValueError(
            f"{part!r} tells layers apart, but has no field `places`, in which it "
            f"would be told of which layers a site is."
        )
    return dataclasses.replace(known, places=places)


def alike(library: Library) -> None:
    """Refuses sites that are of some layers only, such as ``layers/3/...``.

    Args:
      library: [E, L, ...], for a merge that tells layers apart and has no places.

    Raises:
      ValueError: naming the site.
    """
    for name in lora.sites(library):
        if periods.split(name)[1] is not None:
            raise ValueError(
                f"Site {name!r} is of each layer of its kind, in a model whose layers "
                f"are of several kinds, and the merge tells layers apart; expected "
                f"their numbers, as in merge.at(models.layer_places(config, library))."
            )


def count(sites: Mapping[str, LoraWeight]) -> int:
    """Returns L, the same at every site.

    Args:
      sites: a library by site name, each of all layers.

    Raises:
      ValueError: if a site has no axis of layers, or another L.
    """
    known: dict[int, str] = {}
    for name, weight in sites.items():
        if weight.a.ndim < 4:
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
