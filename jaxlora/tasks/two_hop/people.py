"""Study people for text models: chains A -spouse-> B -residence-> C in names.

F: people and places are invented, so that a pretrained model knows neither hop. H:
people are invented, places are real. R: facts that a user gives; what the base knows
of them is measured, never assumed, and decides who is II, OI, IO or OO.

A person is held as the records of :mod:`.records`: prompts are names and relations,
and :mod:`.phrases` says them in words.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from jaxlora.tasks import jsonl
from jaxlora.tasks.facts import world
from jaxlora.tasks.two_hop import facts, names, questions
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tasks.two_hop.facts import Chain
from jaxlora.tasks.two_hop.questions import Question
from jaxlora.tasks.two_hop.records import Record

PAIRS = (("spouse", "residence"), ("mentor", "birthplace"))
"""Relation pairs of generated people; each is a library of its own."""
GENERATED = (Cell.F_OO, Cell.H_OO)
"""Cells that need no file."""
REAL = {
    f"{first}/{second}": (first, second)
    for first, second in facts.chains(facts.Facts(world.facts()))
}
"""Pairs of relations of the real facts that come along."""
LEAST = 3
"""People in a group: answers are deranged one hop at a time and both at once."""
QUESTION = ""
"""The relation of a user's question: its head is the whole question."""
Person: TypeAlias = tuple[Record, Record, Record]
"""First hop, second hop and two-hop question of one chain."""


class Given(NamedTuple):
    """What a user's file holds."""

    people: tuple[tuple[Person, ...], ...]
    """Of each pair of relations that has enough of them."""
    known: Mapping[tuple[str, str], str]
    """Every fact, ``{(head, relation): tail}``; empty for a file of questions."""
    left_out: int
    """Chains of pairs that have too few, or questions without their one-hop ones."""


def generate(
    cells: Sequence[Cell], people: int, pairs: int, seed: int
) -> tuple[Group, ...]:
    """Returns one group for each cell and pair; the same arguments, the same people.

    Args:
      cells: F-OO and H-OO, each at most once.
      people: of a group; every hop is a bijection within it.
      pairs: relation pairs, 1 or 2.
      seed: of names and places.

    Raises:
      ValueError: if a cell cannot be generated, or there are too few people or names.
    """
    wrong = [cell for cell in cells if cell not in GENERATED]
    if wrong:
        raise ValueError(
            f"Cell {wrong[0]} cannot be generated, there are {', '.join(GENERATED)}; "
            f"real facts come from a file."
        )
    if people < LEAST or not 1 <= pairs <= len(PAIRS):
        raise ValueError(
            f"Got {people} people and {pairs} pairs, expected at least {LEAST} people "
            f"and 1 to {len(PAIRS)} pairs."
        )
    # Numbers of the paper, so that a seed gives other draws here than elsewhere.
    rng = np.random.default_rng([seed, 2506, 13479])
    # Nobody has two roles, in any cell: a name stands for one person.
    drawn = iter(names.people(rng, 2 * people * pairs * len(cells)))
    groups = []
    for cell in cells:
        for pair in range(pairs):
            a, b = ([next(drawn) for _ in range(people)] for _ in range(2))
            # In H the base has read about the place, but not about who lives there.
            c = names.places(rng, people, real=cell is Cell.H_OO)
            chain = [
                Chain(x, PAIRS[pair][0], y, PAIRS[pair][1], z)
                for x, y, z in zip(a, b, c, strict=True)
            ]
            groups.append(group(map(of_chain, chain), cell, pair))
    return tuple(groups)


def group(people: Iterable[Person], cell: Cell, pair: int) -> Group:
    """Returns people as a group, their records marked with its cell and pair.

    Args:
      people: at least one.
      cell: what the base knows of them.
      pair: number of their pair of relations.
    """
    study = {"cell": str(cell), "pair": pair, "covered": False}
    marked = [[dataclasses.replace(r, **study) for r in person] for person in people]
    hop1, hop2, two_hop = zip(*marked, strict=True)
    return Group(cell, pair, hop1, hop2, two_hop)


def read(path: str | os.PathLike[str], allow_ties: bool = False) -> Given:
    """Reads a user's facts, as triples or as questions with their bridges.

    The first line says which: ``{"head", "relation", "tail"}`` or ``{"question",
    "answer", "bridge"}``.

    Args:
      path: a JSON-lines file.
      allow_ties: accept relations in which heads share a tail.

    Raises:
      ValueError: with file and line, if the file is neither, has too few chains, or
        ties two heads of a relation though ``allow_ties`` is false.
    """
    _, first = next(jsonl.read(path))
    if "question" in first:
        asked = questions.read(path)
        people, known = [_of_questions(asked)], {}
    else:
        given = facts.read(path, allow_ties)
        people = [tuple(map(of_chain, x)) for x in facts.chains(given).values()]
        known = {(f.head, f.relation): f.tail for f in given.facts}
    usable = tuple(some for some in people if len(some) >= LEAST)
    if not usable:
        raise ValueError(
            f"{os.fspath(path)} has {max(map(len, people), default=0)} chains of two "
            f"facts for its commonest pair of relations, expected at least {LEAST}: "
            f"facts whose tail is the head of another, or two-hop questions with the "
            f"one-hop questions for bridge and answer."
        )
    dropped = sum(len(some) for some in people if len(some) < LEAST)
    return Given(usable, known, dropped)


def real(pairs: Sequence[str]) -> Given:
    """Returns the people of the real facts that come along.

    Args:
      pairs: of relations, of :data:`REAL`.

    >>> real(["located in/capital"]).people[0][0][2].prompt
    ('Munich', 'located in', 'capital')
    """
    chains = facts.chains(facts.Facts(world.facts()))
    people = tuple(tuple(map(of_chain, chains[REAL[pair]])) for pair in pairs)
    return Given(people, {(f.head, f.relation): f.tail for f in world.facts()}, 0)


def sample(groups: Sequence[Group], most: int, seed: int) -> tuple[Group, ...]:
    """Draws people of each pair of relations, no two of them with the same bridge.

    Bridges that several people share would tie the answers of the second hop.

    Args:
      groups: of real people, by what the base knows; of one pair or several.
      most: people of a pair.
      seed: of the draw.

    Returns:
      The groups, those of fewer than ``LEAST`` people left out.
    """
    chosen: dict[int, list[Person]] = {}
    for pair in dict.fromkeys(some.pair for some in groups):
        every = [
            (g, (some.hop1[i], some.hop2[i], some.two_hop[i]))
            for g, some in enumerate(groups)
            for i in range(some.size)
            if some.pair == pair
        ]
        bridges: set[str] = set()
        for at in np.random.default_rng([seed, pair]).permutation(len(every)).tolist():
            g, person = every[at]
            if person[2].bridge not in bridges and len(bridges) < most:
                bridges.add(person[2].bridge)
                chosen.setdefault(g, []).append(person)
    return tuple(
        group(chosen[g], some.cell, some.pair)
        for g, some in enumerate(groups)
        if len(chosen.get(g, ())) >= LEAST
    )


def by_knowledge(
    people: Group, knows1: Sequence[bool], knows2: Sequence[bool]
) -> tuple[Group, ...]:
    """Splits real people by what the base knows of their two hops.

    Args:
      people: a group of any R cell.
      knows1: for each person, did the base answer the first hop?
      knows2: the same for the second.

    Returns:
      One group for each of II, OI, IO and OO that has at least ``LEAST`` people.
    """
    persons = list(zip(people.hop1, people.hop2, people.two_hop, strict=True))
    knows = [
        # Read as a cell: O or I for the first hop, then for the second.
        "".join("OI"[bool(x)] for x in k)
        for k in zip(knows1, knows2, strict=True)
    ]
    out = []
    for cell in (Cell.R_II, Cell.R_OI, Cell.R_IO, Cell.R_OO):
        mine = [p for p, k in zip(persons, knows, strict=True) if k == cell.knows]
        if len(mine) >= LEAST:
            out.append(group(mine, cell, people.pair))
    return tuple(out)


def of_chain(chain: Chain) -> Person:
    """Returns the three records of one chain.

    Args:
      chain: of names and relations.
    """
    a, r1, b, r2, c = chain
    return _person((a, r1), (b, r2), (a, r1, r2), b, c)


def _person(first, second, both, b: str, c: str) -> Person:
    return (
        Record(kind="one_hop", prompt=first, answer=(b,), role="hop1"),
        Record(kind="one_hop", prompt=second, answer=(c,), role="hop2"),
        Record(kind="two_hop", prompt=both, answer=(c,), bridge=b, role="two_hop"),
    )


def _of_questions(asked: Sequence[Question]) -> tuple[Person, ...]:
    """Two-hop questions with the one-hop questions for their bridge and answer.

    A bridge or an answer counts once: further questions about it are passed over.
    """
    singles = [q for q in asked if q.hops == 1]
    people: dict[tuple[str, str], Person] = {}
    for q in asked:
        # A question counts for a hop if its answer is the entity that the hop leads to.
        first = [p for p in singles if p.answer == q.bridge]
        second = [p for p in singles if p.answer == q.answer and q.bridge in p.question]
        if q.hops == 2 and first and second and (q.bridge, q.answer) not in people:
            people[q.bridge, q.answer] = _person(
                (first[0].question, QUESTION),
                (second[0].question, QUESTION),
                (q.question, QUESTION, QUESTION),
                q.bridge,
                q.answer,
            )
    return tuple(people.values())
