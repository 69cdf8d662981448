"""The study people of a two-hop world: who they are, and their three records.

In the four familiar cells a letter a hop says whether the base may know it (I) or only
an expert (O): facts that it must not know are taken out of its pretraining.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from jaxlora.tasks.two_hop import formats
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.records import Record, Vocab
from jaxlora.tasks.two_hop.world_config import FAMILIAR_CELLS, WorldConfig

Chosen: TypeAlias = list[dict[Cell, np.ndarray]]
"""For each pair of relations, the entities that are people A of each cell."""


class _Chain(NamedTuple):
    """A, B and C of n people, int [n], and whether B's fact is covered, bool [n]."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    covered: np.ndarray


class Assigned(NamedTuple):
    """Who the familiar people are, and what the base must not know of them."""

    known: np.ndarray
    """Bool [relations, entities]: is the fact trained as one hop?"""
    banned: list[tuple[int, int]]
    """(pair, person) whose two-hop query must not be trained."""
    chosen: Chosen
    """The people of each cell, pair by pair."""


def assign(
    config: WorldConfig, tables: np.ndarray, rng: np.random.Generator
) -> Assigned:
    """Chooses people per pair and cell, and removes the facts they must not know.

    Args:
      config: sizes.
      tables: int [relations, entities], the tail of each head.
      rng: the choice.
    """
    known = np.ones((config.relations, config.entities), bool)
    banned: list[tuple[int, int]] = []
    chosen: Chosen = []
    for pair in range(config.pairs):
        first, second = 2 * pair, 2 * pair + 1
        # One permutation cut into parts: nobody is in two cells of a pair.
        order = rng.permutation(config.entities)
        parts = np.split(order, config.people * np.arange(1, len(FAMILIAR_CELLS) + 1))
        cells = dict(zip(FAMILIAR_CELLS, parts, strict=False))
        for cell, a in cells.items():
            # What the base must not know is trained by an expert alone.
            if cell.knows[0] == "O":
                known[first, a] = False
            if cell.knows[1] == "O":
                known[second, tables[first, a]] = False
        # What an II person is asked was never trained, though both hops were.
        banned += [(pair, int(a)) for a in cells[Cell.R_II]]
        chosen.append(cells)
    return Assigned(known, banned, chosen)


def familiar(
    vocab: Vocab,
    config: WorldConfig,
    tables: np.ndarray,
    covered: np.ndarray,
    chosen: Chosen,
) -> list[Record]:
    """Returns the records of R-II, R-OI, R-IO and R-OO, pair by pair.

    Args:
      vocab: the words.
      config: sizes.
      tables: int [relations, entities], the tail of each head.
      covered: bool [relations, entities], as :func:`.world.generate` chooses it.
      chosen: as :func:`assign` returns it.
    """
    people: list[Record] = []
    for pair, cells in enumerate(chosen):
        first, second = 2 * pair, 2 * pair + 1
        for cell in FAMILIAR_CELLS:
            b = tables[first, cells[cell]]
            c, used = tables[second, b], covered[second, b]
            people += _records(vocab, cell, pair, _Chain(cells[cell], b, c, used))
    return people


def new(
    vocab: Vocab,
    config: WorldConfig,
    rng: np.random.Generator,
    given: Sequence[Record],
) -> list[Record]:
    """Returns the records of H-OO and F-OO.

    Args:
      vocab: the words.
      config: sizes.
      rng: who is whose bridge.
      given: a user's F-OO people, instead of generated ones; may be empty.
    """
    n, e = config.people, config.entities
    size, no = n * config.pairs, np.zeros(n, bool)
    people: list[Record] = []
    for pair in range(config.pairs):
        # Entities e + k * size on are those of the k-th role: ha, hb, fa, fb, fc.
        first = e + pair * n
        ha, hb, fa, fb, fc = (
            first + k * size + (np.arange(n) if k in (0, 2) else rng.permutation(n))
            for k in range(5)
        )
        familiar = rng.permutation(e)[:n]
        people += _records(vocab, Cell.H_OO, pair, _Chain(ha, hb, familiar, no))
        if not given:
            people += _records(vocab, Cell.F_OO, pair, _Chain(fa, fb, fc, no))
    return people + list(given)


def _records(vocab: Vocab, cell: Cell, pair: int, chains: _Chain) -> list[Record]:
    """Three records a person: hop1, hop2 and two_hop."""
    first, second = 2 * pair, 2 * pair + 1
    records = []
    for h, bridge, tail, used in zip(*chains, strict=True):
        study = {"cell": str(cell), "pair": pair, "covered": bool(used)}
        records += [
            formats.one_hop(vocab, h, first, bridge, role="hop1", **study),
            formats.one_hop(vocab, bridge, second, tail, role="hop2", **study),
            formats.direct(
                vocab, h, first, second, bridge, tail, role="two_hop", **study
            ),
        ]
    return records
