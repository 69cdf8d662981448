"""Routing the libraries of all groups by name, whatever a gate must see."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxlora import lora, route
from jaxlora.evaluate import scoring
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.evaluate.scoring import Answers
from jaxlora.models import Decoder
from jaxlora.studies.two_hop import arms
from jaxlora.studies.two_hop.symbols import choices, gates, lessons
from jaxlora.studies.two_hop.symbols.experts import Experts
from jaxlora.studies.two_hop.symbols.libraries import stacked
from jaxlora.studies.two_hop.symbols.questions import Asked
from jaxlora.train import library_gates
from jaxlora.tree import Tree


class Routed(NamedTuple):
    """A library of every group under one route, with its gates."""

    model: Decoder
    libraries: lora.Library
    """[G, E, ...], as the route uses them."""
    halves: tuple[Tree, ...]
    """One gate state [G, ...] for everybody, or one for each half of the people."""
    rows: Mapping[str, list[int]] | None = None
    """Fewest and most target rows that a gate learned from, by cell."""


def routed(
    experts: Experts,
    asked: Asked,
    arm: Arm,
    method: Method,
    how: route.Route,
    *,
    first_half: bool = False,
) -> Routed:
    """Routes the library of every group, and trains or measures its gate.

    Args:
      experts: all experts of a base.
      asked: questions about their people.
      arm: with at least two experts.
      method: a route, but not the oracle.
      how: the route that the method names.
      first_half: as in ``libraries.stacked``.
    """
    base = experts.base
    libraries = library_gates.prepared(how, stacked(experts, arm, first_half))
    key = arms.key(base.seed, arm)
    # Every route is a program of its own: unrolled layers would take long to compile.
    config = dataclasses.replace(base.model.config, unroll=1)
    model = Decoder(config, how.fit(len(arms.MEMBERS[arm])))
    halves: tuple[Tree, ...]
    rows = None
    if how.gate.data == "own":
        halves = (gates.on_own_data(experts, arm, method, libraries),)
    elif how.gate.data == "target":
        given = lessons.lessons(asked, arm)
        halves = gates.on_target(base, method, libraries, asked.groups, given, key)
        rows = lessons.counts(given, asked.groups)
    else:
        halves = (library_gates.fresh(model, libraries, key),)
    return Routed(model, libraries, halves, rows)


def answers(experts: Experts, asked: Asked, by: Routed) -> list[Answers]:
    """Answers to all questions, one for each of ``by.halves``.

    Args:
      experts: all experts of a base.
      asked: questions about their people.
      by: the route with its gates.
    """
    base = experts.base
    given = (by.model, base.pad, base.params, by.libraries, asked.questions)
    return [scoring.of_libraries(*given, gates=states) for states in by.halves]


def chosen(experts: Experts, asked: Asked, by: Routed) -> list[dict[str, Any]]:
    """What the gates choose, as ``choices.records``; each person of its own half.

    Args:
      experts: all experts of a base.
      asked: questions about their people.
      by: the route with its gates.
    """
    records = [
        choices.records(by.model, experts.base, by.libraries, states, asked)
        for states in by.halves
    ]
    if len(records) == 1:
        return records[0]
    out = []
    for a, b in zip(*records, strict=True):
        sizes = [group.size for group in asked.groups if str(group.cell) == a["cell"]]
        even = np.concatenate([np.arange(size) % 2 == 0 for size in sizes])
        out.append(a | {"values": np.where(even, a["values"], b["values"]).tolist()})
    return out
