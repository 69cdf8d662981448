"""Routing the libraries of all groups by name, whatever a gate must see."""

import dataclasses
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxlora import lora, route
from jaxlora.evaluate import scoring
from jaxlora.evaluate.schema import Library, Method
from jaxlora.evaluate.scoring import Answers
from jaxlora.models import Decoder
from jaxlora.studies.two_hop import gates, learning, merging, routing
from jaxlora.studies.two_hop.libraries import MEMBERS, Experts, stacked
from jaxlora.studies.two_hop.questions import Asked
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tree import Tree


class ArrowOptions(Protocol):
    """What a configuration says of Arrow."""

    @property
    def arrow_top_k(self) -> int:
        """Experts kept per token and site; 0 for all."""
        ...

    @property
    def arrow_temperature(self) -> float:
        """Divides the scores."""
        ...


def routes(method: Method) -> bool:
    """Is the method a route, and not a merge or none?"""
    return str(method) in route.names()


def route_of(method: Method, config: ArrowOptions) -> route.Route:
    """Returns the route that a method names."""
    if method is not Method.ARROW:
        return route.preset(str(method))
    return route.preset(
        "arrow",
        top_k=config.arrow_top_k or None,
        temperature=config.arrow_temperature,
    )


class Routed(NamedTuple):
    """A library of every group under one route, with its gates."""

    experts: Experts
    asked: Asked
    model: Decoder
    libraries: lora.Library
    """[G, E, ...], as the route uses them."""
    halves: tuple[Tree, ...]
    """One gate state [G, ...] for everybody, or one for each half of the people."""


def make(
    experts: Experts,
    asked: Asked,
    library: Library,
    method: Method,
    how: route.Route,
    *,
    first_half: bool = False,
) -> Routed:
    """Routes the library of every group, and trains or measures its gate.

    Args:
      experts: all experts of a base.
      asked: questions about their people.
      library: a name with at least two members.
      method: a route, but not the oracle.
      how: the route that the method names.
      first_half: as in ``libraries.stacked``.
    """
    base = experts.base
    plain = gates.prepared(how, stacked(experts, library, first_half))
    key = merging.key(base.seed, library)
    # Every route is a program of its own: unrolled layers would take long to compile.
    config = dataclasses.replace(base.model.config, unroll=1)
    model = Decoder(config, how.fit(len(MEMBERS[library])))
    if how.gate.data == "own":
        halves = (gates.own(experts, library, method, plain),)
    elif how.gate.data == "target":
        given = learning.examples(asked, experts.groups, library)
        found = gates.target(base, method, plain, given, key)
        halves = (gates.half(found, 0), gates.half(found, 1))
    else:
        halves = (gates.fresh(model, plain, key),)
    return Routed(experts, asked, model, plain, halves)


def answers(routed: Routed) -> list[Answers]:
    """Answers to all questions, one for each of ``halves``."""
    base = routed.experts.base
    questions, libraries = routed.asked.questions, routed.libraries
    return [
        scoring.of_libraries(
            routed.model, base.pad, base.params, libraries, questions, gates=states
        )
        for states in routed.halves
    ]


def look(routed: Routed) -> list[dict[str, Any]]:
    """What the gates choose, see ``routing.look``; each person is of its own half."""
    base, groups = routed.experts.base, routed.experts.groups
    found = [
        routing.look(routed.model, base, routed.libraries, states, routed.asked, groups)
        for states in routed.halves
    ]
    if len(found) == 1:
        return found[0]
    return [_merged(a, b, groups) for a, b in zip(*found, strict=True)]


def _merged(
    a: dict[str, Any], b: dict[str, Any], groups: tuple[Group, ...]
) -> dict[str, Any]:
    mine = [group.size for group in groups if str(group.cell) == a["cell"]]
    even = np.concatenate([np.arange(size) % 2 == 0 for size in mine])
    return a | {"values": np.where(even, a["values"], b["values"]).tolist()}
