"""The questions that are put to every model of a seed, and their right answers."""

import dataclasses
import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlora.evaluate.schema import Split
from jaxlora.evaluate.scoring import Questions
from jaxlora.studies.two_hop.bases import Base
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tasks.two_hop.formats import context, written
from jaxlora.tasks.two_hop.records import Record, Vocab, prompts

PEOPLE_SPLITS = (
    Split.HOP1,
    Split.HOP2,
    Split.TWO_HOP,
    Split.WRITTEN,
    Split.CONTEXT,
)


class Key(NamedTuple):
    """Right and telling answers to one kind of question about one group, [N] each.

    -1 stands for "there is none".
    """

    answer: np.ndarray
    bridge: np.ndarray
    relation2_of_a: np.ndarray
    counterfactual: np.ndarray


@dataclasses.dataclass(frozen=True)
class Asked:
    """Everything asked about every group: prompts [G, ...], and keys by group."""

    questions: Questions
    people: int
    """Largest number of people in a group; smaller groups are padded."""
    familiar: int
    keys: tuple[dict[Split, Key], ...]
    familiar_answers: np.ndarray
    """Answers to the familiar queries of each group, [G, Q]."""


def ask(base: Base, groups: tuple[Group, ...], familiar: int) -> Asked:
    """Makes the questions about all groups of a base.

    Args:
      base: a trained base.
      groups: its study people.
      familiar: number of held-out familiar queries that every model of a group is
        asked, to see what it kept; fewer if there are not as many for every pair.
    """
    vocab = base.world.vocab
    kept = _retention(base, groups, familiar)
    people = max(group.size for group in groups)
    put = functools.partial(_put, vocab=vocab, people=people)
    direct = [
        np.concatenate(
            [put(g.hop1, 3), put(g.hop2, 3), put(g.two_hop, 3), prompts(some, vocab, 3)]
        )
        for g, some in zip(groups, kept, strict=True)
    ]
    bridged = [put(tuple(written(r) for r in g.two_hop), 5) for g in groups]
    told = [
        put(tuple(context(r, i % 2 == 1) for i, r in enumerate(g.two_hop)), 9)
        for g in groups
    ]
    known = {record.prompt: record.answer[0] for record in base.world.splits["one_hop"]}
    return Asked(
        Questions(*(jnp.asarray(np.stack(x)) for x in (direct, bridged, told))),
        people,
        len(kept[0]),
        tuple(keys(group, vocab, known) for group in groups),
        np.array([[vocab.ids[r.answer[0]] for r in some] for some in kept]),
    )


def _retention(base: Base, groups: tuple[Group, ...], n: int):
    """Held-out familiar queries of each group; no query twice in one cell."""
    held_out = base.world.splits["held_out"]
    order = np.random.default_rng(base.seed).permutation(len(held_out))
    n = min(n, len(held_out) // (1 + max(group.pair for group in groups)))
    return [
        tuple(held_out[i] for i in order[group.pair * n : (group.pair + 1) * n])
        for group in groups
    ]


def _put(records: tuple[Record, ...], length: int, *, vocab: Vocab, people: int):
    rows = prompts(records, vocab, length)
    return np.pad(rows, [(0, people - len(rows)), (0, 0)], mode="edge")


def keys(
    group: Group, vocab: Vocab, known: dict[tuple[str, ...], str]
) -> dict[Split, Key]:
    """Right and telling answers to every kind of question about a group.

    Args:
      group: study people.
      vocab: whose ids stand for names.
      known: facts that the base knows, ``{(head, relation): tail}``.
    """
    ids = vocab.ids

    def tokens(words) -> np.ndarray:
        return np.array([ids[word] if word else -1 for word in words])

    def answers(records: tuple[Record, ...]) -> np.ndarray:
        return tokens([record.answer[0] for record in records])

    nobody = np.full(group.size, -1)
    bridge = tokens([record.bridge for record in group.two_hop])
    # A may itself be somebody's bridge, of whom an expert knows the second hop.
    known = known | {record.prompt: record.answer[0] for record in group.hop2}
    second = [
        known.get((record.prompt[0], record.prompt[2]), "") for record in group.two_hop
    ]
    tail = answers(group.two_hop)
    # With ties there is no telling whose answer the deranged one is.
    tied = len(set(tail.tolist())) < group.size or len(set(bridge)) < group.size
    moved = nobody if tied else np.roll(tail, -1)
    two_hop = Key(tail, bridge, tokens(second), moved)
    return {
        Split.HOP1: Key(answers(group.hop1), nobody, nobody, nobody),
        Split.HOP2: Key(answers(group.hop2), nobody, nobody, nobody),
        Split.TWO_HOP: two_hop,
        Split.WRITTEN: two_hop,
        Split.CONTEXT: two_hop,
    }
