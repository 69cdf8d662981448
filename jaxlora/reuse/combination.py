"""How adapters are combined, and what is refused before anything is read."""

import dataclasses
from collections.abc import Sequence

from jax.sharding import Mesh

from jaxlora import merge as merges
from jaxlora import parallel
from jaxlora import route as routes
from jaxlora.names import unknown

COMMON = ("mean", "sum", "ties", "svd")
"""Merges that messages name; there are many more."""

MORE = " (`jaxlora merge --list --all` shows every merge)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combination:
    """How several adapters act as one: by a merge, or by a route; hashable.

    >>> Combination(route="arrow", top_k=1).merge is None
    True
    """

    merge: str | None = None
    """A name of ``jaxlora.merge.names()``, or ``module:attribute`` of your own; of
    those that see no data."""
    route: str | None = None
    """A name of ``jaxlora.route.names()``, or ``module:attribute`` of your own."""
    weights: tuple[float, ...] | None = None
    """One number for each adapter, of any sign; for a merge only."""
    top_k: int | None = None
    """Experts that a route keeps for each token and site; None is as the route says."""
    temperature: float | None = None
    """Divides a route's scores; None is as the route says."""

    def way(self) -> routes.Route:
        """The route of this name, with what was asked for in place of its defaults.

        Raises:
          ValueError: if there is no route of the name.
        """
        asked = {"top_k": self.top_k, "temperature": self.temperature}
        given = {name: value for name, value in asked.items() if value is not None}
        return routes.preset(self.route or "", **given)


def route_names() -> tuple[str, ...]:
    """Names of the routes that need no labels and no data.

    >>> "oracle" in route_names()
    False
    """
    return tuple(n for n in routes.names() if routes.describe(n).data == "free")


def gate_names() -> tuple[str, ...]:
    """Names of the routes whose gate is made from data.

    >>> "phatgoose" in gate_names(), "arrow" in gate_names()
    (True, False)
    """
    trained = ("own", "target")
    return tuple(n for n in routes.names() if routes.describe(n).data in trained)


def check(
    how: Combination, adapters: int, *, trained: bool = False, general: int = 0
) -> None:
    """Refuses what ``reuse.build`` cannot do, before anything is read.

    Args:
      how: the merge or the route.
      adapters: how many there are.
      trained: is there a gate state, for a route that needs data?
      general: how many general adapters there are.

    Raises:
      ValueError: naming what is wrong and what exists.
    """
    if how.merge is not None and how.route is not None:
        raise ValueError(
            f"Got the merge {how.merge!r} and the route {how.route!r}, expected one of "
            f"them: a merge leaves one adapter, and nothing to route."
        )
    if how.merge is not None:
        _check_merge(how.merge, adapters, how.weights)
    elif how.weights is not None:
        raise ValueError(
            f"Got {len(how.weights)} weights but no merge that uses them; the merge "
            f"'sum' scales each adapter by its weight{MORE}."
        )
    if how.route is not None:
        _check_route(how, how.route, adapters, trained)
        _check_general(how.route, general)
    elif how.top_k is not None or how.temperature is not None:
        raise ValueError(
            f"Got top_k {how.top_k} and temperature {how.temperature}, which say how a "
            f"route chooses, but no route; there are {', '.join(route_names())}."
        )
    elif general:
        raise ValueError(
            f"Got {general} general adapters, which a route such as genknowsub takes "
            f"out of the others, but no route."
        )
    if adapters > 1 and how.merge is None and how.route is None:
        raise ValueError(
            f"Got {adapters} adapters, but nothing that combines them; name a merge, "
            f"such as {', '.join(COMMON)}{MORE}, or a route "
            f"({', '.join(route_names())})."
        )


def _check_merge(merge: str, adapters: int, weights: Sequence[float] | None) -> None:
    if merge in routes.names():
        raise ValueError(_unknown("merge", merge, (), routes.names()))
    if merges.preset(merge).data != "free":
        raise ValueError(
            f"The merge {merge!r} needs data of its own, which there is no place for "
            f"here; `jaxlora merge --method {merge} --statistics FILE` writes an "
            f"adapter."
        )
    if not adapters:
        raise ValueError(f"Got the merge {merge!r} but no adapter to merge.")
    if weights is not None and len(weights) != adapters:
        raise ValueError(
            f"Got {len(weights)} weights for {adapters} adapters, expected one for "
            f"each, in the same order."
        )


def _check_route(how: Combination, route: str, adapters: int, trained: bool) -> None:
    known = (*routes.names(), *merges.names())
    if ":" not in route and route not in routes.names():
        raise ValueError(_unknown("route", route, routes.names(), known))
    _check_data(route, how.way().gate.data, trained)
    if not adapters:
        raise ValueError(f"Got the route {route!r} but no adapter to route to.")
    if how.top_k is not None and how.top_k > adapters:
        raise ValueError(
            f"Got top_k {how.top_k} for {adapters} adapters, expected 1 to {adapters}: "
            f"a route cannot keep more than there are; leave it out to keep all."
        )


def _check_data(route: str, data: str, trained: bool) -> None:
    if data == "labels":
        raise ValueError(
            f"The route {route!r} is told which expert each token needs, and nothing "
            f"tells it here; there are {', '.join(route_names())}."
        )
    if data != "free" and not trained:
        raise ValueError(
            f"The route {route!r} needs a gate made from data, and none was given; "
            f"`jaxlora gate MODEL --adapter DIR ... --route {route} --data FILE` makes "
            f"one. Without data there are {', '.join(route_names())}."
        )
    if data == "free" and trained:
        raise ValueError(
            f"The route {route!r} makes its gate from the adapters alone; leave the "
            f"gate out."
        )


def _check_general(route: str, general: int) -> None:
    if general and routes.preset(route).prepare is None:
        takes = [n for n in routes.names() if routes.describe(n).route.prepare]
        raise ValueError(
            f"Got {general} general adapters for the route {route!r}, which takes "
            f"nothing out of the others; those that do: {', '.join(takes)}."
        )


def _unknown(kind: str, name: str, known: Sequence[str], others: Sequence[str]) -> str:
    if name in others:
        other = "route" if kind == "merge" else "merge"
        return f"{name!r} is a {other}, not a {kind}; give it as the {other}."
    return unknown(kind, name, known)


def check_mesh(mesh: Mesh | None, how: Combination, adapters: int) -> None:
    """Refuses devices along ``expert`` that adapters cannot be shared out to.

    Args:
      mesh: or None.
      how: whether they are merged or routed.
      adapters: their number.

    Raises:
      ValueError: saying what would divide them.
    """
    if mesh is not None and (how.merge or how.route):
        parallel.check(mesh.shape, expert={"adapters": adapters})
