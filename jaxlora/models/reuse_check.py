"""What can be combined how: refusals that come before anything is read from disk."""

from collections.abc import Sequence

from jaxlora import merge as merges
from jaxlora import route as routes
from jaxlora.names import unknown

COMMON = ("mean", "sum", "ties", "svd")
"""Merges that messages name; there are many more."""

MORE = " (`jaxlora merge --list` shows every merge)"


def route_names() -> tuple[str, ...]:
    """Names of the routes that need no labels and no data.

    >>> "oracle" in route_names()
    False
    """
    return tuple(n for n in routes.names() if routes.describe(n).data == "free")


def check(
    adapters: int,
    *,
    merge: str | None = None,
    route: str | None = None,
    weights: Sequence[float] | None = None,
    top_k: int | None = None,
    temperature: float | None = None,
    trained: bool = False,
    general: int = 0,
) -> None:
    """Refuses what ``reuse.build`` cannot do, before anything is read.

    Args:
      adapters: how many there are.
      merge: these are arguments of ``reuse.build``.
      route: see there.
      weights: see there.
      top_k: see there.
      temperature: see there.
      trained: is there a gate state, for a route that needs data?
      general: how many general adapters there are.

    Raises:
      ValueError: naming what is wrong and what exists.
    """
    if merge is not None and route is not None:
        raise ValueError(
            f"Got the merge {merge!r} and the route {route!r}, expected one of them: a "
            f"merge leaves one adapter, and nothing to route."
        )
    if merge is not None:
        _check_merge(merge, adapters, weights)
    elif weights is not None:
        raise ValueError(
            f"Got {len(weights)} weights but no merge that uses them; the merge 'sum' "
            f"scales each adapter by its weight{MORE}."
        )
    if route is not None:
        _check_route(route, adapters, top_k, temperature, trained)
        _check_general(route, general)
    elif top_k is not None or temperature is not None:
        raise ValueError(
            f"Got top_k {top_k} and temperature {temperature}, which say how a "
            f"route chooses, but no route; there are {', '.join(route_names())}."
        )
    elif general:
        raise ValueError(
            f"Got {general} general adapters, which a route such as genknowsub takes "
            f"out of the others, but no route."
        )
    if adapters > 1 and merge is None and route is None:
        raise ValueError(
            f"Got {adapters} adapters, but nothing that combines them; name a merge, "
            f"such as {', '.join(COMMON)}{MORE}, or a route "
            f"({', '.join(route_names())})."
        )


def _check_merge(merge: str, adapters: int, weights: Sequence[float] | None) -> None:
    if merge in routes.names():
        raise ValueError(_unknown("merge", merge, (), routes.names()))
    found = merges.preset(merge)
    if found.data != "free":
        raise ValueError(
            f"The merge {merge!r} needs data of its own, which there is no place for "
            f"here; `jaxlora merge --method {merge} --data FILE` writes an adapter."
        )
    if not adapters:
        raise ValueError(f"Got the merge {merge!r} but no adapter to merge.")
    if weights is not None and len(weights) != adapters:
        raise ValueError(
            f"Got {len(weights)} weights for {adapters} adapters, expected one for "
            f"each, in the same order."
        )


def _check_route(
    route: str,
    adapters: int,
    top_k: int | None,
    temperature: float | None,
    trained: bool,
) -> None:
    known = (*routes.names(), *merges.names())
    if ":" not in route and route not in routes.names():
        raise ValueError(_unknown("route", route, routes.names(), known))
    found = chosen(route, top_k, temperature)
    _check_data(route, found.gate.data, trained)
    if not adapters:
        raise ValueError(f"Got the route {route!r} but no adapter to route to.")
    if top_k is not None and top_k > adapters:
        raise ValueError(
            f"Got top_k {top_k} for {adapters} adapters, expected 1 to {adapters}: a "
            f"route cannot keep more than there are; leave it out to keep all."
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


def chosen(
    route: str, top_k: int | None = None, temperature: float | None = None
) -> routes.Route:
    """A route by name, with what was asked for in place of its own defaults."""
    asked = {"top_k": top_k, "temperature": temperature}
    given = {name: value for name, value in asked.items() if value is not None}
    return routes.preset(route, **given)


def _unknown(kind: str, name: str, known: Sequence[str], others: Sequence[str]) -> str:
    if name in others:
        other = "route" if kind == "merge" else "merge"
        return f"{name!r} is a {other}, not a {kind}; give it as the {other}."
    return unknown(kind, name, known)
