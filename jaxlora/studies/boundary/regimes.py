"""Regimes: what two experts are trained on, and in which layers.

Every regime is asked directly and with the bridge written, so the format in which it is
asked is no part of it. Which regimes a study has: :mod:`.design`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxlora.studies.two_hop import ExpertsConfig
from jaxlora.tasks.two_hop.practice import Practice

RHO = 0.5
"""Share of practising rows in regimes that do not vary it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regime:
    """What two experts are trained on, and where."""

    name: str
    first: Practice = Practice()  # noqa: RUF009 (frozen)
    second: Practice = Practice()  # noqa: RUF009 (frozen)
    first_layers: tuple[int, ...] = ()
    second_layers: tuple[int, ...] = ()
    identity: bool = False
    """Is the second expert trained on identity rows ``B -> B`` too?"""
    glance: bool = False
    """Is the combination asked beside random experts alone, without a verdict?"""

    def recipe(self, experts: ExpertsConfig) -> ExpertsConfig:
        """The training of its experts.

        Args:
          experts: steps and rate.
        """
        names = ("first", "second", "first_layers", "second_layers")
        fields: dict[str, Any] = {name: getattr(self, name) for name in names}
        return dataclasses.replace(experts, **fields)

    @property
    def placed(self) -> bool:
        """Are the experts confined to layers?"""
        return bool(self.first_layers or self.second_layers)

    @property
    def placement(self) -> str:
        """The layers of both experts, such as ``0 + 2-3``."""
        return f"{layers(self.first_layers)} + {layers(self.second_layers)}"

    @property
    def condition(self) -> tuple[tuple[str, Any], ...]:
        """What every row of it names."""
        practice = self.second if self.second.rho else self.first
        form = practice.form if practice.rho else "direct"
        return (
            ("regime", self.name),
            ("rows", form),
            ("rho", self.second.rho),
            ("rho of A->B", self.first.rho),
            ("placement", self.placement),
        )


def layers(some: Sequence[int]) -> str:
    """Names a range of layers.

    Args:
      some: numbers of layers, in order; empty for all.

    >>> layers((2, 3)), layers((0,)), layers(())
    ('2-3', '0', 'all')
    """
    if not some:
        return "all"
    ends = f"{some[0]}-{some[-1]}" if len(some) > 1 else f"{some[0]}"
    gapless = tuple(some) == tuple(range(some[0], some[-1] + 1))
    return ends if gapless else ",".join(map(str, some))


def halves(count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Low layers for the first expert and high ones for the second.

    Of four layers 0, and 2 and 3: the lowest quarter and the upper half.

    Args:
      count: L, at least 2.

    >>> halves(4)
    ((0,), (2, 3))
    """
    low = tuple(range(max(1, count // 4)))
    return low, tuple(range(count - max(1, count // 2), count))


def practising(rho: float, **more: Any) -> Regime:
    """The second expert practises its role in a share of its rows.

    Args:
      rho: the share.
      more: other fields of the regime.
    """
    name = f"bridge rows {rho:g}" if rho else "direct"
    return Regime(name=name, second=Practice(rho=rho), **more)


def both() -> Regime:
    """Both experts practise their roles."""
    half = Practice(rho=RHO)
    return Regime(name="both practise", first=half, second=half)


def placed(count: int) -> Regime:
    """The first expert low, the second high.

    Args:
      count: layers of the base.
    """
    low, high = halves(count)
    return Regime(name="placed", first_layers=low, second_layers=high)


def variants() -> tuple[Regime, ...]:
    """Who practises, and in which form: single steps from bridge rows at one half."""
    half = Practice(rho=RHO)
    return (
        Regime(name="A->B practises", first=half),
        both(),
        Regime(name="documents", second=Practice(rho=RHO, form="document")),
        Regime(name="mixture", second=Practice(rho=RHO, form="mixture")),
        Regime(name="identity rows", identity=True),
    )


def grid(count: int) -> tuple[Regime, ...]:
    """All pairs of layer ranges.

    Args:
      count: layers of the base.
    """
    low, high = halves(count)
    ranges = ((), low, tuple(range(count // 2)), high, (count - 1,))
    return tuple(
        Regime(name="layers", first_layers=a, second_layers=b, glance=True)
        for a in ranges
        for b in ranges
        if a or b
    )
