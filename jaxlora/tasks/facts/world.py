"""Countries, cities, authors and books: facts with a single, well-known answer.

The lists are ours, written down from general knowledge and kept as tables beside this
module, so that each line can be checked. What has no single answer is left empty (two
official languages, two continents, a currency that has just changed).
"""

import functools
import json
from collections.abc import Iterable
from importlib import resources

from jaxlora.tasks.two_hop.facts import Fact

TABLES = ("countries", "cities", "authors", "books")
RELATIONS = (
    "capital",
    "language",
    "currency",
    "continent",
    "located in",
    "country of origin",
    "author",
)


@functools.cache
def facts(*relations: str) -> tuple[Fact, ...]:
    """Returns the facts of some relations, table by table.

    Args:
      *relations: of :data:`RELATIONS`; none for all.

    Raises:
      ValueError: if a relation does not exist.

    >>> facts("capital")[0]
    Fact(head='France', relation='capital', tail='Paris')
    """
    odd = [name for name in relations if name not in RELATIONS]
    if odd:
        raise ValueError(
            f"There are no facts of the relation {odd[0]!r}; there are "
            f"{', '.join(RELATIONS)}."
        )
    every = (fact for table in TABLES for fact in _table(table))
    return tuple(x for x in every if not relations or x.relation in relations)


def lines(some: Iterable[Fact]) -> str:
    """Returns facts as JSON lines, as ``--facts`` reads them.

    Args:
      some: facts.

    >>> print(lines(facts("capital")[:1]), end="")
    {"head": "France", "relation": "capital", "tail": "Paris"}
    """
    return "".join(
        json.dumps(fact._asdict(), ensure_ascii=False) + "\n" for fact in some
    )


def _table(name: str) -> list[Fact]:
    """Every cell of a table but the first of each row, which is the head."""
    path = resources.files("jaxlora.tasks.facts") / f"{name}.tsv"
    (_, *relations), *rows = (
        line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()
    )
    return [
        Fact(head, relation, tail)
        for head, *tails in rows
        for relation, tail in zip(relations, tails, strict=True)
        if tail
    ]
