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
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxlora.tasks.two_hop import formats, world_people
from jaxlora.tasks.two_hop.records import Record, Vocab
from jaxlora.tasks.two_hop.world_config import WorldConfig as WorldConfig


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
      (trained), held_out and held_out_FORMAT of these formats (for criteria of the
      base), and people (the study).
    """
    # The order of draws is part of a world: a new draw goes to the end.
    rng = np.random.default_rng([seed, 2506, 13479])
    vocab = _vocab(config, people)
    tables = _tables(config, rng)
    known, banned, chosen = world_people.assign(config, tables, rng)
    covered = _cover(config, tables, known, rng)
    trained, held_out = _queries(config, tables, known, banned, covered, rng)
    study = world_people.familiar(vocab, config, tables, covered, chosen)
    study += world_people.new(vocab, config, rng, people)
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
    return Vocab((*familiar, *new), relations, config.entities, config.form)


def _tables(config: WorldConfig, rng: np.random.Generator) -> np.ndarray:
    """The tail of each head, [relations, entities]; in study pairs A, B and C differ.

    A person whose bridge or answer is the person, or whose answer is the bridge, would
    count a repeated token as an answer.
    """
    draw = functools.partial(rng.permutation, config.entities)
    tables = [draw() for _ in range(config.relations)]
    heads = np.arange(config.entities)
    for pair in range(config.pairs):
        first = _until(draw, lambda b: bool((b != heads).all()))
        differ = lambda c, b=first: bool((c != heads).all() and (c[b] != heads).all())  # noqa: E731
        tables[2 * pair : 2 * pair + 2] = first, _until(draw, differ)
    return np.stack(tables)


def _until(draw: Callable[[], np.ndarray], holds: Callable[[np.ndarray], bool]):
    """The first draw that a condition holds of; about one in e^2 does here."""
    while not holds(drawn := draw()):
        pass
    return drawn


def _cover(config: WorldConfig, tables: np.ndarray, known: np.ndarray, rng):
    """Which facts may be second hops; nested in coverage, for one seed."""
    # Drawn in one order and cut at the share, so that a higher coverage adds facts.
    covered = known.copy()
    for pair in range(config.pairs):
        facts = rng.permutation(np.flatnonzero(known[2 * pair + 1]))
        covered[2 * pair + 1, facts[round(config.coverage * len(facts)) :]] = False
    return covered


def _queries(config: WorldConfig, tables, known, banned, covered, rng):
    """Chooses trained and held-out queries (h, r1, r2); phi is fixed over coverage."""
    axes = (config.relations, config.relations, config.entities)
    r1, r2, h = np.indices(axes).reshape(3, -1)
    bridge = tables[r1, h]
    allowed = known[r1, h] & known[r2, bridge] & ~_is_banned(r1, r2, h, banned)
    # Their number differs between coverages, so they do not set the target.
    study_second = (r2 < 2 * config.pairs) & (r2 % 2 == 1)
    drawn = rng.random(len(h))
    elsewhere = (r1 >= 2 * config.pairs) & (r2 >= 2 * config.pairs)
    held = allowed & elsewhere & (drawn >= config.trained)
    # The number of trained queries is the one that coverage 0 allows.
    always = allowed & ~study_second
    target = min(int(config.trained * always.sum()), int((always & ~held).sum()))
    pool = np.flatnonzero(allowed & covered[r2, bridge] & ~held)
    target = target if config.comparable else int(config.trained * len(pool))
    picked = np.sort(pool[np.argsort(drawn[pool], kind="stable")[:target]])
    triples = np.stack([h, r1, r2], axis=1)
    return triples[picked], triples[held]


def _is_banned(r1: np.ndarray, r2: np.ndarray, h: np.ndarray, banned) -> np.ndarray:
    """Is it the query of a pair's two relations about a banned person of it?"""
    asked = set(banned)
    of_pair = (r2 == r1 + 1) & (r1 % 2 == 0)
    people = zip((r1 // 2).tolist(), h.tolist(), strict=True)
    return of_pair & np.array([person in asked for person in people])


def _pretraining(vocab, config, tables, known, trained, rng):
    relation, head = np.nonzero(known)
    one_hop = tuple(
        formats.one_hop(vocab, h, r, tables[r, h])
        for r, h in zip(relation, head, strict=True)
    )
    two_hop = tuple(formats.query(vocab, tables, *q) for q in trained)
    direct = len(one_hop) + len(two_hop)
    share = config.copy_share / (1 - config.copy_share)
    # Each name as often as the share wants, but once at least.
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
    records: list[Record] = []
    while len(records) < n:
        entities = rng.random((n, vocab.familiar)).argsort(axis=1)[:, :3]
        h, b, t = entities.T
        r1, r2 = rng.integers(len(vocab.relations), size=(2, n))
        swap = rng.random(n) < 0.5
        # A made-up fact that is true by chance would tell what only an expert may know.
        true = (tables[r1, h] == b) | (tables[r2, b] == t)
        true |= tables[r2, tables[r1, h]] == t
        for i in np.flatnonzero(~true)[: n - len(records)]:
            question = formats.direct(vocab, h[i], r1[i], r2[i], b[i], t[i])
            records.append(formats.context(question, bool(swap[i])))
    return tuple(records)
