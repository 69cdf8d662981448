"""What every arm is asked about every pair of new operations."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxlora.evaluate.schema import Split
from jaxlora.studies.word_problems import kinds, solving, worlds
from jaxlora.studies.word_problems.worlds import World
from jaxlora.tasks import word_problems
from jaxlora.tasks.word_problems import Problems, graph, symbols
from jaxlora.tasks.word_problems.skeletons import Part
from jaxlora.tasks.word_problems.vocab import row_length
from jaxlora.train.step import Batch

ANSWER_ONLY = (
    Split.ANSWER_A,
    Split.ANSWER_B,
    Split.ANSWER_BOTH,
    Split.ANSWER_KNOWN,
)
"""Asked without steps."""
NEEDED = {
    Split.SKILL_A: (0,),
    Split.SKILL_B: (1,),
    Split.CHAIN_A: (0,),
    Split.CHAIN_B: (1,),
    Split.BOTH: (0, 1),
    Split.THREE_SKILLS: (0, 1, 2),
    Split.FOUR_SKILLS: (0, 1, 2, 3),
    Split.ANSWER_A: (0,),
    Split.ANSWER_B: (1,),
    Split.ANSWER_BOTH: (0, 1),
}
"""Which of the operations that follow each other in the ring a problem needs."""
MIXED = 52
"""Problems of every kind that holds known operations as well."""


class Asked(NamedTuple):
    """The questions about M pairs, Q each."""

    pairs: tuple[tuple[int, int], ...]
    problems: tuple[Problems, ...]
    """Q chains of each pair."""
    frame: pd.DataFrame
    """Columns pair, item, split, level: M Q rows, pair after pair."""
    answers: np.ndarray
    """int [M, Q]."""
    steps: np.ndarray
    """int [M, Q, S, 3], right solutions."""
    moved: np.ndarray
    """int [2, M, Q], answers if the results of operation A, or of B, were moved."""

    @property
    def direct(self) -> np.ndarray:
        """Which questions are answered without steps, bool [Q]."""
        some = self.frame["split"].to_numpy()[: self.answers.shape[1]]
        return np.isin(some, [str(x) for x in ANSWER_ONLY])


def ask(world: World, pairs: Sequence[tuple[int, int]]) -> Asked:
    """Draws the questions about every pair.

    Args:
      world: whose operations.
      pairs: numbers of new operations.
    """
    sets = [list(_sets(world, pair)) for pair in pairs]
    problems = [graph.concatenate([p for _, _, p in some]) for some in sets]
    problems = [graph.pad(p, world.levels) for p in problems]
    answers = [word_problems.answers(p) for p in problems]
    steps = [symbols.steps(p, world.vocab) for p in problems]
    moved = [
        [_moved(world, p, number) for number in pair]
        for p, pair in zip(problems, pairs, strict=True)
    ]
    frames = [
        pd.DataFrame(
            {
                "pair": m,
                "item": np.arange(sum(len(p) for _, _, p in some)),
                "split": [str(split) for split, _, p in some for _ in range(len(p))],
                "level": [level for _, level, p in some for _ in range(len(p))],
            }
        )
        for m, some in enumerate(sets)
    ]
    return Asked(
        tuple(pairs),
        tuple(problems),
        pd.concat(frames, ignore_index=True),
        np.stack(answers),
        np.stack(steps),
        np.stack(moved, axis=1),
    )


def prompts(asked: Asked, world: World, template: int) -> solving.Prompts:
    """The questions as prompts [M, Q, T].

    Args:
      asked: the questions.
      world: whose vocabulary.
      template: in which steps are to be written.
    """
    formats = formats_of(asked, world, template)
    some = [
        solving.prompts(problems, formats, world.vocab, world.levels)
        for problems in asked.problems
    ]
    return solving.Prompts(*map(np.stack, zip(*some, strict=True)))


def formats_of(asked: Asked, world: World, template: int) -> np.ndarray:
    """Numbers of the formats of all questions, int [Q].

    Args:
      asked: the questions.
      world: whose vocabulary.
      template: in which steps are to be written.
    """
    return np.where(asked.direct, world.vocab.answer_only, template)


def lessons(asked: Asked, world: World, template: int) -> Batch:
    """Problems that need both skills with their solutions, [M, Q', T].

    Args:
      asked: the questions.
      world: whose vocabulary.
      template: in which steps are written.
    """
    some = asked.frame.iloc[: asked.answers.shape[1]]
    both = ((some["split"] == str(Split.BOTH)) & (some["level"] == 2)).to_numpy()
    length = row_length(2)
    rows = [
        word_problems.render(problems[both], template, world.vocab, length)[:3]
        for problems in asked.problems
    ]
    return Batch(*(jnp.asarray(np.stack(x)) for x in zip(*rows, strict=True)))


def _sets(world: World, pair: tuple[int, int]) -> Iterator[tuple[Split, int, Problems]]:
    """Yields (split, level, problems) of one pair."""
    ring = tuple((pair[0] + i) % len(world.operations.unknown) for i in range(4))
    rng = worlds.generator(world, worlds.QUESTIONS, pair[0])

    def mixed(split: Split, level: int, n: int = MIXED, part: Part | None = "test"):
        needed = tuple(ring[i] for i in NEEDED[split])
        return split, level, kinds.needing(world, rng, level, needed, n, part=part)

    for split in (Split.SKILL_A, Split.SKILL_B, Split.BOTH):
        needed = tuple(ring[i] for i in NEEDED[split])
        yield split, len(needed), _every(world, needed)
    for level in range(2, world.levels + 1):
        for split in (Split.CHAIN_A, Split.CHAIN_B):
            yield mixed(split, level, MIXED // 2)
    for level in range(3, world.levels + 1):
        # No expert but one that practises them sees two new operations in a problem.
        yield mixed(Split.BOTH, level, part=None)
    for level in range(2, world.levels + 1):
        yield Split.KNOWN, level, worlds.held_out(world, level, MIXED // 2)
    for split in (Split.THREE_SKILLS, Split.FOUR_SKILLS):
        level = len(NEEDED[split])
        if level <= min(world.levels, len(world.operations.unknown)):
            yield mixed(split, level, part=None)
    for split in (Split.ANSWER_A, Split.ANSWER_B, Split.ANSWER_BOTH):
        needed = tuple(ring[i] for i in NEEDED[split])
        yield split, len(needed), _every(world, needed)
    yield Split.ANSWER_KNOWN, 2, worlds.held_out(world, 2, MIXED // 2)


def _every(world: World, needed: tuple[int, ...]) -> Problems:
    """Every number under the operations, in every order in which they may stand."""
    ids = world.operations.unknown[list(needed)]
    orders = np.array([ids, ids[::-1]] if len(ids) > 1 else [ids])
    numbers = np.arange(world.operations.size)
    start = np.tile(numbers, len(orders))
    chains = np.repeat(orders, len(numbers), axis=0)
    return graph.chains(world.operations, chains, start, np.zeros_like(chains))


def _moved(world: World, problems: Problems, number: int) -> np.ndarray:
    """The answers if one operation had the results of its counterfactual expert."""
    table, moved = world.operations.table, world.moved.table
    assert table is not None
    assert moved is not None
    which = world.operations.unknown[number]
    mixed = np.where(np.arange(len(table))[:, None, None] == which, moved, table)
    operations = dataclasses.replace(world.operations, table=mixed)
    results = word_problems.evaluate(problems, operations)
    return word_problems.answers(dataclasses.replace(problems, results=results))
