"""Two-hop questions of a combined model, and the runs whose states are patched in.

A donor is a run in which what the question may lack is present: the right bridge as a
subject, as a written word, as the A->B expert alone has it, or as the base has it after
a familiar first fact. The run of another person lacks nothing: what follows it shows
where a model that does compose holds the bridge.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora.lora import Adapter, Library
from jaxlora.tasks.two_hop.formats import written
from jaxlora.tasks.two_hop.records import PAD, Record, Vocab, prompts

POSITIONS = ("A", "r1", "r2", "<think>", "B")
"""Tokens of a question; a direct one has the first three."""


class Query(NamedTuple):
    """Two-hop questions about the N people of G groups, answered at the last token."""

    tokens: jax.Array
    """[G, N, T]; the fifth token, if there is one, is the bridge."""
    bridge: jax.Array
    """Right bridges [G, N]."""
    answer: jax.Array
    """Right answers [G, N]."""

    @property
    def written(self) -> bool:
        """Is the bridge written before the answer?"""
        return self.tokens.shape[-1] == len(POSITIONS)


class Donor(NamedTuple):
    """Another run, whose residual stream is patched in."""

    adapters: Adapter
    """Of the run, [G, ...]."""
    tokens: jax.Array
    """[G, N, T'], answered at the last place that is used."""
    places: jax.Array
    """Which of its positions goes to each of the question's [T]; -1 for none."""
    answer: jax.Array
    """What the patched run answers if it follows the donor, [G, N]."""


def ask(queries: Sequence[Sequence[Record]], vocab: Vocab, write: bool) -> Query:
    """Makes the questions of groups of equal size, with the right bridge if written.

    Args:
      queries: two-hop records of every group.
      vocab: gives the ids.
      write: write the bridge before the answer?
    """
    ids = vocab.ids
    form, length = (written, len(POSITIONS)) if write else (lambda x: x, 3)
    tokens = [prompts(map(form, some), vocab, length) for some in queries]
    bridge = [[ids[x.bridge] for x in some] for some in queries]
    answer = [[ids[x.answer[-1]] for x in some] for some in queries]
    query = Query(*(jnp.asarray(np.asarray(x)) for x in (tokens, bridge, answer)))
    return right_bridge(query)


def right_bridge(query: Query) -> Query:
    """The query with the right bridge written; a direct one stays.

    Args:
      query: [G, N, T].
    """
    if not query.written:
        return query
    bridge = query.bridge.astype(query.tokens.dtype)
    return query._replace(tokens=query.tokens.at[..., -1].set(bridge))


def others(query: Query, adapters: Adapter) -> Donor:
    """The same model's run on the next person's question, whose answer is wanted.

    Args:
      query: [G, N, T], of at least two people, as the model wrote them.
      adapters: [G, ...].
    """
    tokens, answer = (jnp.roll(x, -1, axis=1) for x in (query.tokens, query.answer))
    return Donor(adapters, tokens, jnp.arange(tokens.shape[-1]), answer)


def same(query: Query, adapters: Adapter) -> Donor:
    """The run of another model, such as one expert alone, on the same question.

    Args:
      query: [G, N, T], perhaps with the right bridge written.
      adapters: of the other model, [G, ...].
    """
    places = jnp.arange(query.tokens.shape[-1])
    return Donor(adapters, query.tokens, places, query.answer)


def subjects(query: Query, adapters: Adapter) -> Donor:
    """The same model's run on "B r2": the right bridge, as a subject.

    Its "B" goes where the first fact's answer is read, to r1, or to the written bridge;
    its "r2" goes to r2. What follows in its row is causal padding: nobody reads it.

    Args:
      query: [G, N, T].
      adapters: [G, ...].
    """
    bridge = query.bridge.astype(query.tokens.dtype)
    tokens = query.tokens.at[..., 0].set(bridge).at[..., 1].set(query.tokens[..., 2])
    places = jnp.array([-1, -1, 1, -1, 0] if query.written else [-1, 0, 1])
    return Donor(adapters, tokens, places, query.answer)


def familiar_first(
    query: Query,
    adapters: Adapter,
    vocab: Vocab,
    facts: Sequence[Record],
    seed: int,
) -> Donor:
    """The same model's run on "x r1' r2", where the base knows that x r1' is B.

    Args:
      query: [G, N, 3].
      adapters: [G, ...].
      vocab: gives the ids.
      facts: one-hop facts that the base knows.
      seed: draws the fact.

    Returns:
      A donor whose tokens are padding where the base knows no fact that ends in B.
    """
    rng = np.random.default_rng(seed)
    ends = _by_tail(facts, vocab)
    tokens = np.asarray(query.tokens).copy()
    for place in np.ndindex(*query.bridge.shape):
        _, first, second = tokens[place]
        heads = [
            x
            for x in ends.get(int(query.bridge[place]), ())
            if x[1] not in (first, second)
        ]
        tokens[place][:2] = (
            heads[rng.integers(len(heads))] if heads else [vocab.ids[PAD]] * 2
        )
    return Donor(adapters, jnp.asarray(tokens), jnp.arange(3), query.answer)


def _by_tail(
    facts: Sequence[Record], vocab: Vocab
) -> Mapping[int, Sequence[tuple[int, int]]]:
    """Heads and relations, as ids, of the facts that end in each entity."""
    ids, out = vocab.ids, {}
    for x in facts:
        head, relation = x.prompt
        out.setdefault(ids[x.answer[0]], []).append((ids[head], ids[relation]))
    return out


def familiar(
    records: Sequence[Record], groups: int, people: int
) -> tuple[tuple[Record, ...], ...]:
    """Groups of queries that share both relations, those with most queries first.

    Args:
      records: two-hop queries.
      groups: G.
      people: N queries of each.

    Raises:
      ValueError: if fewer pairs of relations have as many queries.
    """
    by_pair: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        by_pair.setdefault(record.prompt[1:], []).append(record)
    ready = sorted(by_pair.values(), key=len, reverse=True)[:groups]
    if len(ready) < groups or len(ready[-1]) < people:
        raise ValueError(
            f"Got {len(records)} queries, expected {groups} pairs of relations with "
            f"{people} queries each; ask for fewer groups or people."
        )
    return tuple(tuple(some[:people]) for some in ready)


def joined(parts: Sequence[Adapter]) -> Library:
    """Libraries [G, E, ...] of E experts' adapters [G, ...].

    Args:
      parts: of each expert.
    """
    return jax.tree.map(lambda *x: jnp.stack(x, axis=1), *parts)


def off(adapters: Adapter) -> Adapter:
    """Adapters that change nothing: the base alone.

    Args:
      adapters: [G, ...].
    """
    return lora.lora_map(lambda w: w.replace(scale=0 * w.scale), adapters)
