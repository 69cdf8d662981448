"""The problems of one base: operations, templates, and what it is trained on."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlora.studies.word_problems.recipes import PretrainConfig, WorldConfig
from jaxlora.tasks import word_problems
from jaxlora.tasks.word_problems import Operations, Problems, Rows, Vocab, sampling
from jaxlora.tasks.word_problems.sampling import Restrict
from jaxlora.tasks.word_problems.templates import R, S, Template, apart
from jaxlora.tasks.word_problems.vocab import prompt_length, row_length
from jaxlora.train.step import Batch

COMMON, OTHER, SAME_ORDER, SAME_WORDS, SAME_NUMBERS = range(5)
"""Numbers of the templates: the one in which problems are asked, and those apart."""
TEMPLATES = (
    S,
    R,
    apart(S, False, True),
    apart(S, True, False),
    Template(1, "operand-first"),
)
NAMES = ("common", "other", "same order", "same words", "same numbers")
BINARY_WEIGHT = 3
"""How often a binary operation is drawn in pretraining, for one of a unary one:
arithmetic modulo p is what a base learns last."""
ANSWER_LEVELS = (1, 2)
"""Levels of problems that a base is taught to answer without steps."""
PRETRAIN, HELD_OUT, EXPERTS, QUESTIONS = range(4)
"""Folded into a seed, so that what is drawn for one purpose is drawn apart."""


class World(NamedTuple):
    """What a seed decides before anything is trained."""

    seed: int
    operations: Operations
    moved: Operations
    """The same, but new operations have every result moved on by one: a
    counterfactual answer for every problem that needs one of them."""
    vocab: Vocab
    levels: int

    @property
    def length(self) -> int:
        """Inputs in the longest row."""
        return row_length(self.levels)


def generate(config: WorldConfig, seed: int) -> World:
    """Draws the operations of a base.

    Args:
      config: sizes.
      seed: of the base.
    """
    operations = word_problems.modular(
        config.modulus, config.known_binary, config.known_unary, config.new, seed
    )
    table = operations.table
    assert table is not None
    table, new = table.copy(), operations.unknown
    table[new] = (table[new] + 1) % config.modulus
    moved = dataclasses.replace(operations, table=table)
    vocab = Vocab(operations, TEMPLATES[: config.templates])
    return World(seed, operations, moved, vocab, config.levels)


def generator(world: World, *purpose: int) -> np.random.Generator:
    """A generator for one purpose.

    Args:
      world: of a seed.
      purpose: numbers that tell purposes apart.
    """
    return np.random.default_rng([world.seed, *purpose])


def pretraining(world: World, config: PretrainConfig) -> tuple[Batch, Batch]:
    """Rows with steps, and rows of answers alone.

    Args:
      world: of a seed.
      config: how many, and which share holds the names of new operations.
    """
    rng = generator(world, PRETRAIN)
    named = round(config.names * config.rows)
    levels = range(1, world.levels + 1)
    parts = (
        _rows(world, rng, config.rows - named, levels),
        _named(world, rng, named, levels),
    )
    direct = round(config.names * config.answer_rows)
    answers = (
        _rows(world, rng, config.answer_rows - direct, ANSWER_LEVELS, direct=True),
        _named(world, rng, direct, ANSWER_LEVELS, direct=True),
    )
    short = answer_length(max(ANSWER_LEVELS))
    written, direct_rows = _joined(parts), _joined(answers)
    return written, Batch(*(x[:, :short] for x in direct_rows))


def answer_length(level: int) -> int:
    """Inputs in the row of a problem that is answered without steps.

    Args:
      level: its number of operations.
    """
    return prompt_length(level) + 1


def held_out(world: World, level: int, n: int) -> Problems:
    """Known problems of skeletons that nothing is trained on.

    Args:
      world: of a seed.
      level: their number of operations; single ones have no unseen skeleton.
      n: how many.
    """
    rng = generator(world, HELD_OUT, level)
    unseen = Restrict(part="test")
    return sampling.chains(rng, n, world.operations, [level], unseen)


def _rows(world: World, rng, n: int, levels, *, direct: bool = False) -> Rows:
    pool = _weighted(world, world.operations.known)
    seen = Restrict(pool=pool, part="train")
    problems = sampling.chains(rng, n, world.operations, list(levels), seen)
    return _rendered(world, rng, problems, direct)


def _named(world: World, rng, n: int, levels, *, direct: bool = False) -> Rows:
    """Rows in which any operation may stand, new ones with results of no weight."""
    every = _weighted(world, np.arange(world.operations.count))
    pool = Restrict(pool=every, part="train")
    problems = sampling.chains(rng, n, world.operations, list(levels), pool)
    problems = word_problems.blind(problems, world.operations, rng)
    return _rendered(world, rng, problems, direct, world.operations.unknown)


def _weighted(world: World, ids: np.ndarray) -> list[int]:
    """Operations to draw from, binary ones several times."""
    binary = ~world.operations.unary[ids]
    return np.repeat(ids, np.where(binary, BINARY_WEIGHT, 1)).tolist()


def _rendered(world: World, rng, problems: Problems, direct: bool, untrained=()):
    formats = rng.integers(len(world.vocab.templates), size=len(problems))
    if direct:
        formats = np.full(len(problems), world.vocab.answer_only)
    return word_problems.render(problems, formats, world.vocab, world.length, untrained)


def _joined(parts: Sequence[Rows]) -> Batch:
    fields = (part[:3] for part in parts)
    joined = (np.concatenate(x) for x in zip(*fields, strict=True))
    return Batch(*map(jnp.asarray, joined))
