"""The two-hop world: permutation relations over entities, with controlled coverage.

A fact is ``e r -> e'``; a two-hop query is ``e r1 r2 -> e''``. Relations are
permutations, so that a two-hop answer cannot be guessed from its suffix. *Known*: a
fact trained as one hop. *Covered*: a known fact used in that hop's role in a
trained composition. phi: trained two-hop queries per known fact.

Each study pair (spouse S, residence Z) has people A -S-> B -Z-> C in six cells: R-II,
R-OI, R-IO, R-OO (all familiar; a letter a hop, I known to the base and O in an
expert only), H-OO (new A and B), F-OO (all new). New entities are seen as names only,
in copy rows. After Wang et al., Grokked Transformers (arXiv 2405.15071) for
coverage and phi, and Ye et al. (arXiv 2505.23653) for the II/OI/IO/OO split.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxlora.tasks.two_hop import formats
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.records import Record, Vocab

FAMILIAR_CELLS = (Cell.R_II, Cell.R_OI, Cell.R_IO, Cell.R_OO)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Sizes of the world and what its pretraining covers."""

    entities: int = 40
    """Familiar entities."""
    relations: int = 20
    """Relations, the study's included; each is a permutation of the entities."""
    pairs: int = 3
    """Study relation pairs (spouse, residence); each is its own library."""
    people: int = 7
    """People A per cell and pair; four cells share the familiar entities."""
    trained: float = 0.9
    """Share, in (0, 1), of the two-hop queries allowed at coverage 0 that is trained.

    The number is the same at every coverage: higher ones leave more queries out."""
    coverage: float = 1.0
    """Share of the study's known second-relation facts that are covered, in [0, 1]."""
    copy_share: float = 0.05
    """Share of the direct rows that copy a name, over familiar and new entities."""
    context_rows: int = 10_240
    """Rows of made-up facts followed by a query about them."""

    def __post_init__(self):
        for field in ("coverage", "trained", "copy_share"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(
                    f"{field} is {getattr(self, field)}, expected a share in [0, 1]."
                )
        if self.copy_share == 1:
            raise ValueError("copy_share is 1, expected less: no fact would be told.")
        if self.people < 2 or self.pairs < 1:
            raise ValueError(
                f"people is {self.people} and pairs {self.pairs}, expected at least 2 "
                f"people (answers are shuffled among them) and 1 pair."
            )
        if len(FAMILIAR_CELLS) * self.people > self.entities:
            raise ValueError(
                f"{self.people} people in each of {len(FAMILIAR_CELLS)} familiar cells "
                f"need {len(FAMILIAR_CELLS) * self.people} entities, but the world has "
                f"{self.entities}; lower people or raise entities."
            )
        if 2 * self.pairs + 2 > self.relations:
            raise ValueError(
                f"{self.pairs} study pairs use {2 * self.pairs} relations and the "
                f"gates need at least 2 others, but relations is {self.relations}."
            )


@dataclasses.dataclass(frozen=True)
class World:
    """A vocabulary and the records of every split."""

    vocab: Vocab
    splits: Mapping[str, tuple[Record, ...]]

    @property
    def phi(self) -> float:
        """Trained two-hop queries per known fact."""
        return len(self.splits["two_hop"]) / len(self.splits["one_hop"])


def generate(config: WorldConfig, seed: int, people: Sequence[Record] = ()) -> World:
    """Generates a world; the same arguments give the same records.

    Args:
      config: sizes and coverage.
      seed: makes permutations, people and the choice of trained queries.
      people: a user's F-OO people, instead of generated ones: three records a person,
        with roles hop1, hop2 and two_hop, as :mod:`.facts` reads them.

    Returns:
      A world with the splits one_hop, two_hop, copy, written, misled, document, context
      (trained), held_out and held_out_FORMAT of these formats (gates), and people (the
      study).
    """
    rng = np.random.default_rng([seed, 2506, 13479])
    vocab = _vocab(config, people)
    tables = np.stack(
        [rng.permutation(config.entities) for _ in range(config.relations)]
    )
    known, banned, chosen = _assign_people(config, tables, rng)
    covered = _cover(config, tables, known, rng)
    trained, held_out = _queries(config, tables, known, banned, covered, rng)
    study = _familiar_people(vocab, config, tables, covered, chosen)
    study += _new_people(vocab, config, rng, people)
    splits = _pretraining(vocab, config, tables, known, trained, rng)
    splits |= _held_out(vocab, tables, held_out, rng)
    splits["context"] = _made_up(vocab, tables, rng, config.context_rows)
    splits["held_out_context"] = _made_up(vocab, tables, rng, 256)
    for name, queries in (("misled", "two_hop"), ("held_out_misled", "held_out")):
        splits[name] = _misled(splits[queries], rng)
    return World(vocab, splits | {"people": tuple(study)})


def _vocab(config: WorldConfig, people: Sequence[Record]) -> Vocab:
    familiar = tuple(f"e{i:02d}" for i in range(config.entities))
    # Every pair has new people of its own: no name counts twice as a person.
    size = config.people * config.pairs
    new = [f"{role}{i:02d}" for role in ("ha", "hb") for i in range(size)]
    if people:
        words = [word for p in people for word in (p.prompt[0], *p.answer)]
        new += dict.fromkeys(words)
    else:
        new += [f"{role}{i:02d}" for role in ("fa", "fb", "fc") for i in range(size)]
    relations = tuple(f"r{i:02d}" for i in range(config.relations))
    return Vocab((*familiar, *new), relations, config.entities)


def _assign_people(config: WorldConfig, tables: np.ndarray, rng):
    """Chooses people per pair and cell, and removes the facts they must not know."""
    known = np.ones((config.relations, config.entities), bool)
    banned: list[tuple[int, int]] = []
    chosen: list[dict[Cell, np.ndarray]] = []
    for pair in range(config.pairs):
        first, second = 2 * pair, 2 * pair + 1
        order = rng.permutation(config.entities)
        parts = np.split(order, config.people * np.arange(1, len(FAMILIAR_CELLS) + 1))
        cells = dict(zip(FAMILIAR_CELLS, parts, strict=False))
        for cell, a in cells.items():
            if cell.knows[0] == "O":
                known[first, a] = False
            if cell.knows[1] == "O":
                known[second, tables[first, a]] = False
        # What an II person is asked was never trained, though both hops were.
        banned += [(pair, int(a)) for a in cells[Cell.R_II]]
        chosen.append(cells)
    return known, banned, chosen


def _cover(config: WorldConfig, tables: np.ndarray, known: np.ndarray, rng):
    """Which facts may be second hops; nested in coverage, for one seed."""
    covered = known.copy()
    for pair in range(config.pairs):
        facts = rng.permutation(np.flatnonzero(known[2 * pair + 1]))
        covered[2 * pair + 1, facts[round(config.coverage * len(facts)) :]] = False
    return covered


def _queries(config: WorldConfig, tables, known, banned, covered, rng):
    """Chooses trained and held-out queries (h, r1, r2); phi is fixed over coverage."""
    r1, r2, h = (
        z.ravel()
        for z in np.meshgrid(
            np.arange(config.relations),
            np.arange(config.relations),
            np.arange(config.entities),
            indexing="ij",
        )
    )
    bridge = tables[r1, h]
    allowed = known[r1, h] & known[r2, bridge]
    asked = set(banned)
    allowed &= ~np.array(
        [
            b == a + 1 and a % 2 == 0 and (a // 2, e) in asked
            for a, b, e in zip(r1.tolist(), r2.tolist(), h.tolist(), strict=True)
        ]
    )
    study_second = (r2 < 2 * config.pairs) & (r2 % 2 == 1)
    drawn = rng.random(len(h))
    elsewhere = (r1 >= 2 * config.pairs) & (r2 >= 2 * config.pairs)
    held = allowed & elsewhere & (drawn >= config.trained)
    # The number of trained queries is the one that coverage 0 allows.
    always = allowed & ~study_second
    target = min(int(config.trained * always.sum()), int((always & ~held).sum()))
    pool = np.flatnonzero(allowed & covered[r2, bridge] & ~held)
    picked = np.sort(pool[np.argsort(drawn[pool], kind="stable")[:target]])
    triples = np.stack([h, r1, r2], axis=1)
    return triples[picked], triples[held]


def _pretraining(vocab, config, tables, known, trained, rng):
    relation, head = np.nonzero(known)
    one_hop = tuple(
        formats.one_hop(vocab, h, r, tables[r, h])
        for r, h in zip(relation, head, strict=True)
    )
    two_hop = tuple(formats.query(vocab, tables, *q) for q in trained)
    direct = len(one_hop) + len(two_hop)
    share = config.copy_share / (1 - config.copy_share)
    copies = max(1, round(share * direct / len(vocab.entities)))
    copy = tuple(formats.copy_record(word) for word in vocab.entities)
    return {
        "one_hop": one_hop,
        "two_hop": two_hop,
        "copy": copy * copies,
        "written": tuple(formats.written(record) for record in two_hop),
        "document": tuple(formats.document(record) for record in two_hop),
    }


def _held_out(vocab, tables, held_out, rng):
    queries = tuple(formats.query(vocab, tables, *q) for q in held_out)
    return {
        "held_out": queries,
        "held_out_written": tuple(formats.written(record) for record in queries),
        "held_out_document": tuple(formats.document(record) for record in queries),
    }


def _misled(queries: tuple[Record, ...], rng) -> tuple[Record, ...]:
    """Each query with the bridge of another with the same second relation."""
    numbers: dict[str, list[int]] = {}
    for i, record in enumerate(queries):
        numbers.setdefault(record.prompt[2], []).append(i)
    other = np.arange(len(queries))
    for same in numbers.values():
        other[same] = rng.permutation(same)
    return tuple(
        formats.misled(record, queries[j])
        for record, j in zip(queries, other, strict=True)
    )


def _made_up(vocab: Vocab, tables: np.ndarray, rng, n: int) -> tuple[Record, ...]:
    """Facts that hold nowhere else, so that only their text can answer.

    About familiar entities, and never true: neither a fact nor the answer is that of
    the tables, so that no row tells what only an expert may know.
    """
    made: list[Record] = []
    while len(made) < n:
        entities = rng.random((n, vocab.familiar)).argsort(axis=1)[:, :3]
        h, b, t = entities.T
        r1, r2 = rng.integers(len(vocab.relations), size=(2, n))
        swap = rng.random(n) < 0.5
        true = (tables[r1, h] == b) | (tables[r2, b] == t)
        true |= tables[r2, tables[r1, h]] == t
        for i in np.flatnonzero(~true)[: n - len(made)]:
            told = formats.direct(vocab, h[i], r1[i], r2[i], b[i], t[i])
            made.append(formats.context(told, bool(swap[i])))
    return tuple(made)


def _familiar_people(vocab, config, tables, covered, chosen) -> list[Record]:
    people: list[Record] = []
    for pair, cells in enumerate(chosen):
        first, second = 2 * pair, 2 * pair + 1
        for cell in FAMILIAR_CELLS:
            b = tables[first, cells[cell]]
            people += _group(
                vocab,
                cell,
                pair,
                cells[cell],
                b,
                tables[second, b],
                covered[second, b],
            )
    return people


def _new_people(vocab, config, rng, given: Sequence[Record]) -> list[Record]:
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
        people += _group(vocab, Cell.H_OO, pair, ha, hb, familiar, no)
        if not given:
            people += _group(vocab, Cell.F_OO, pair, fa, fb, fc, no)
    return people + list(given)


def _group(vocab, cell, pair, a, b, c, covered) -> list[Record]:
    """Three records a person: hop1, hop2 and two_hop."""
    first, second = 2 * pair, 2 * pair + 1
    records = []
    for h, bridge, tail, used in zip(a, b, c, covered, strict=True):
        study = {"cell": str(cell), "pair": pair, "covered": bool(used)}
        records += [
            formats.one_hop(vocab, h, first, bridge, role="hop1", **study),
            formats.one_hop(vocab, bridge, second, tail, role="hop2", **study),
            formats.direct(
                vocab, h, first, second, bridge, tail, role="two_hop", **study
            ),
        ]
    return records
