"""The questions that every model of a seed is asked, and their right answers."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from jaxlora.evaluate.schema import Split
from jaxlora.evaluate.scoring import Questions
from jaxlora.studies.two_hop.items import Key, keys
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tasks.two_hop.formats import context, written
from jaxlora.tasks.two_hop.records import Record, Vocab, answer_position, prompts

PEOPLE_SPLITS = (Split.HOP1, Split.HOP2, Split.TWO_HOP, Split.WRITTEN, Split.CONTEXT)


@dataclasses.dataclass(frozen=True)
class Asked:
    """Everything asked about every group: prompts [G, ...], and keys by group."""

    groups: tuple[Group, ...]
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
    prompt = functools.partial(_prompts, vocab=vocab, people=people)
    direct, bridged, read, at = [], [], [], []
    for g, some in zip(groups, kept, strict=True):
        parts = [prompt(x, 3) for x in (g.hop1, g.hop2, g.two_hop)]
        direct.append(np.concatenate([*parts, prompts(some, vocab, 3)]))
        one_hop = answer_position(g.hop1[0], vocab.form)
        at.append(np.where(np.arange(len(direct[-1])) < 2 * people, one_hop, 2))
        bridged.append(prompt(tuple(written(r) for r in g.two_hop), 5))
        facts = tuple(context(r, i % 2 == 1) for i, r in enumerate(g.two_hop))
        read.append(prompt(facts, 9))
    known = {record.prompt: record.answer[0] for record in base.world.splits["one_hop"]}
    return Asked(
        groups,
        Questions(*(jnp.asarray(np.stack(x)) for x in (direct, bridged, read, at))),
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


def _prompts(records: tuple[Record, ...], length: int, *, vocab: Vocab, people: int):
    rows = prompts(records, vocab, length)
    return np.pad(rows, [(0, people - len(rows)), (0, 0)], mode="edge")
