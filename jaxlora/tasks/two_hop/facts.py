"""A user's facts: JSON lines of head, relation, tail, made into study people.

A relation ``r1`` whose tails are heads of ``r2`` gives chains A -r1-> B -r2-> C. The
people of each such pair of relations take the place of the generated F-OO people:
entities that the base never saw, so that it knows neither hop.
"""

import collections
import dataclasses
import os
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from jaxlora.tasks import jsonl
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.records import SPECIAL, Record
from jaxlora.tasks.two_hop.world import WorldConfig

EXAMPLE = '{"head": "ann", "relation": "spouse", "tail": "bob"}'
RESERVED = re.compile(r"(e|r|ha|hb)\d{2,}")
"""The words that the world makes up beside a user's people."""


class Fact(NamedTuple):
    """``head -relation-> tail``."""

    head: str
    relation: str
    tail: str


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts of one file, in its order."""

    facts: tuple[Fact, ...]
    source: str = "facts"
    """Where they are from, for messages."""

    @property
    def relations(self) -> tuple[str, ...]:
        """Each relation once, in order of appearance."""
        return tuple(dict.fromkeys(fact.relation for fact in self.facts))

    @property
    def tied(self) -> tuple[str, ...]:
        """Relations that are not bijective: two heads share a tail."""
        counts = collections.Counter((f.relation, f.tail) for f in self.facts)
        shared = {relation for (relation, _), n in counts.items() if n > 1}
        return tuple(r for r in self.relations if r in shared)


class Chain(NamedTuple):
    """``a -r1-> b -r2-> c``."""

    a: str
    r1: str
    b: str
    r2: str
    c: str


Pairs: TypeAlias = dict[tuple[str, str], tuple[Chain, ...]]
"""Chains by their two relations."""


class Majority(NamedTuple):
    """What answering always the same would score."""

    share: float
    """Share of the commonest answer, in [0, 1]."""
    answers: tuple[str, ...]
    """Every answer that is as common as that."""


def read(path: str | os.PathLike[str], allow_ties: bool = False) -> Facts:
    """Reads facts, one ``{"head": ..., "relation": ..., "tail": ...}`` a line.

    Other fields are ignored.

    Args:
      path: a JSON-lines file.
      allow_ties: accept relations in which heads share a tail. The answer is then
        easier to guess; report :func:`majority` beside the accuracy.

    Raises:
      ValueError: with file and line, if a line is no fact, asks twice for the same
        head and relation, or ties two heads of a relation.
    """
    name = os.fspath(path)
    facts: list[Fact] = []
    lines: dict[tuple[str, str], int] = {}
    heads: dict[tuple[str, str], tuple[int, str]] = {}
    for number, record in jsonl.read(path):
        where = f"{name}:{number}"
        fact = Fact(*(jsonl.text(record, key, where, EXAMPLE) for key in Fact._fields))
        # Two tails of one head would make the question ambiguous.
        before = lines.setdefault((fact.head, fact.relation), number)
        if before != number:
            raise ValueError(
                f"{where}: duplicate head {fact.head!r} of relation "
                f"{fact.relation!r}, first on line {before}; expected one tail for "
                f"each head."
            )
        line, head = heads.setdefault((fact.relation, fact.tail), (number, fact.head))
        if line != number and not allow_ties:
            raise ValueError(
                f"{where}: relation {fact.relation!r} gives {fact.head!r} the tail "
                f"{fact.tail!r}, which {head!r} has on line {line}; expected a "
                f"bijection, where no two heads share a tail (--allow-ties accepts "
                f"it and reports the majority baseline)."
            )
        facts.append(fact)
    return Facts(tuple(facts), name)


def chains(facts: Facts) -> Pairs:
    """Returns ``{(r1, r2): its chains}`` for relations r1 != r2, in file order.

    Args:
      facts: of one file.

    >>> file = Facts((Fact("ann", "spouse", "bob"), Fact("bob", "city", "Rome")))
    >>> chains(file)[("spouse", "city")][0].c
    'Rome'
    """
    # By head, so that a file of N facts takes N steps and not N squared.
    starts: dict[str, list[Fact]] = collections.defaultdict(list)
    for fact in facts.facts:
        starts[fact.head].append(fact)
    by_pair: dict[tuple[str, str], list[Chain]] = collections.defaultdict(list)
    for first in facts.facts:
        for second in starts[first.tail]:
            # The same relation twice would need one expert to be both.
            if first.relation != second.relation:
                pair = (first.relation, second.relation)
                by_pair[pair].append(Chain(*first, *second[1:]))
    return {pair: tuple(some) for pair, some in by_pair.items()}


def people(facts: Facts, config: WorldConfig) -> tuple[Record, ...]:
    """Returns the people of a file for the F-OO cell of :func:`.world.generate`.

    Pair p of the file takes the world's relation words r{2p} and r{2p+1}; entities
    keep their names. A pair has as many people as the file has chains for it.

    Args:
      facts: a user's facts.
      config: the world that the people join.

    Raises:
      ValueError: if there is no chain, a pair has fewer than two people, there are
        more pairs than ``config.pairs``, or a name is a word of the world.
    """
    by_pair = chains(facts)
    _check_pairs(facts, by_pair, config)
    _check_names(facts, by_pair)
    records: list[Record] = []
    for pair, some in enumerate(by_pair.values()):
        for chain in some:
            records += _person(chain, pair)
    return tuple(records)


def majority(answers: Sequence[str]) -> Majority:
    """Returns the baseline that always gives the commonest answer.

    Args:
      answers: one for each question.

    Raises:
      ValueError: if there is no answer.

    >>> majority(["Rome", "Oslo", "Rome", "Bern"])
    Majority(share=0.5, answers=('Rome',))
    """
    if not answers:
        raise ValueError("No answers, expected at least one for a majority baseline.")
    counts = collections.Counter(answers)
    # All of them: which one is guessed makes no difference to the score.
    top = max(counts.values())
    return Majority(
        top / len(answers), tuple(answer for answer, n in counts.items() if n == top)
    )


def _person(chain: Chain, pair: int) -> list[Record]:
    """The three records of one person, as the world makes them."""
    first, second = f"r{2 * pair:02d}", f"r{2 * pair + 1:02d}"
    study = {"cell": str(Cell.F_OO), "pair": pair, "covered": False}
    a, b, c = chain.a, chain.b, chain.c
    hop1 = Record(kind="one_hop", prompt=(a, first), answer=(b,), role="hop1", **study)
    hop2 = Record(kind="one_hop", prompt=(b, second), answer=(c,), role="hop2", **study)
    two_hop = Record(
        kind="two_hop",
        prompt=(a, first, second),
        answer=(c,),
        bridge=b,
        role="two_hop",
        **study,
    )
    return [hop1, hop2, two_hop]


def _check_pairs(facts: Facts, by_pair: Pairs, config: WorldConfig) -> None:
    if not by_pair:
        raise ValueError(
            f"{facts.source} has no chain of two relations, expected facts whose tail "
            f"is the head of a fact of another relation (ann spouse bob, bob city "
            f"Rome); its relations are {_some(facts.relations)}, and names must match "
            f"exactly."
        )
    if len(by_pair) > config.pairs:
        raise ValueError(
            f"{facts.source} has chains for {len(by_pair)} pairs of relations "
            f"({_some([' then '.join(pair) for pair in by_pair])}), but the world has "
            f"room for {config.pairs}; raise pairs (and relations), or leave some out."
        )
    for (r1, r2), group in by_pair.items():
        if len(group) < 2:
            raise ValueError(
                f"{facts.source} has {len(group)} chain of {r1} then {r2}, expected "
                f"at least 2 people (answers are shuffled among them for chance)."
            )


def _check_names(facts: Facts, by_pair: Pairs) -> None:
    names = {n for group in by_pair.values() for c in group for n in (c.a, c.b, c.c)}
    taken = sorted(n for n in names if n in SPECIAL or RESERVED.fullmatch(n))
    if taken:
        raise ValueError(
            f"{facts.source} has entities named like the world's own words: "
            f"{_some(taken)}; rename them (taken are e, r, ha and hb before two "
            f"digits or more, and {', '.join(SPECIAL)})."
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more
