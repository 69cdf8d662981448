"""What an expert is trained on: operations, templates, levels, and whose facts."""

import dataclasses
import zlib

import numpy as np

from jaxlora.studies.word_problems import worlds
from jaxlora.studies.word_problems.recipes import ExpertsConfig
from jaxlora.studies.word_problems.worlds import COMMON, OTHER, World
from jaxlora.tasks import word_problems
from jaxlora.tasks.word_problems import Problems, Rows, graph, sampling, skeletons
from jaxlora.tasks.word_problems.sampling import Restrict
from jaxlora.tasks.word_problems.templates import shared
from jaxlora.tasks.word_problems.vocab import row_length

LEVELS = (1, 2, 3)
"""Levels of an expert's problems, unless it is trained on some of them only."""
ROUNDS = 16
"""Rounds of drawing problems of some skeletons."""
SHARES = {1: 0.1, 2: 0.45, 3: 0.45}
"""Of the rows: a level has so many facts in so many places."""


@dataclasses.dataclass(frozen=True)
class Skill:
    """One new operation, and how its rows are written."""

    operation: int
    """Number of the new operation, from 0."""
    share: float = 1.0
    """Rows in the common template."""
    other: int = OTHER
    """Template of the other rows."""
    levels: tuple[int, ...] = LEVELS
    """Numbers of operations in its problems."""
    moved: bool = False
    """Is every result moved on by one, a counterfactual fact?"""
    answers: float = 0.0
    """Share of the rows of one or two operations that is answered without steps."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One expert."""

    skills: tuple[Skill, ...]
    """One, or two of a joint LoRA."""
    together: bool = False
    """Does every problem need all of its skills, so that it practises the test?"""
    draw: int = 0
    """Experts that differ in this alone have other rows and another start."""

    @property
    def number(self) -> int:
        """A number of its own, the same in every process."""
        return zlib.crc32(repr(self).encode())


def rows(kind: Kind, world: World, config: ExpertsConfig) -> Rows:
    """The data set of an expert, [rows, T].

    Args:
      kind: what it is trained on.
      world: whose operations.
      config: number of rows, and share of rehearsal.
    """
    rng = worlds.generator(world, worlds.EXPERTS, kind.number)
    rehearsed = round(config.rehearsal * config.rows)
    count = (config.rows - rehearsed) // (1 if kind.together else len(kind.skills))
    parts = []
    if kind.together:
        parts.append(_together(kind, world, rng, count))
    else:
        parts += [_facts(skill, world, rng, count) for skill in kind.skills]
    rest = config.rows - sum(len(problems) for problems, _ in parts)
    parts.append(_rehearsal(kind, world, rng, rest))
    problems = graph.concatenate([part for part, _ in parts])
    formats = np.concatenate([part for _, part in parts])
    length = row_length(max(LEVELS))
    return word_problems.render(problems, formats, world.vocab, length)


def needing(
    world: World,
    rng: np.random.Generator,
    level: int,
    numbers: tuple[int, ...],
    n: int,
    *,
    moved: bool = False,
    part: skeletons.Part | None = "train",
) -> Problems:
    """Problems of one level that need new operations, in every place and order.

    Every number comes equally often at the start, or once more than another: at level 1
    an expert misses no fact by chance.

    Args:
      world: whose operations.
      rng: draws known operations, places and numbers.
      level: number of operations, at least as many as are needed.
      numbers: of the new operations, each of which stands in a problem once.
      n: how many.
      moved: are their results counterfactual?
      part: whose skeletons; any where a small world has none of them.
    """
    operations = world.moved if moved else world.operations
    parts: list[Problems] = []
    for tries in range(ROUNDS):
        if parts and sum(map(len, parts)) >= n:
            break
        # A small world may have no such skeleton; then any must do.
        wanted = part if tries < ROUNDS // 2 or any(map(len, parts)) else None
        some = _placed(world, rng, level, numbers, n)
        parts.append(some[skeletons.within(some, wanted)])
    every = graph.concatenate(parts)
    some = every[np.resize(np.arange(len(every)), n)]
    # Drawn last: no number is lost with the problems that do not fit.
    start = rng.permutation(np.resize(np.arange(operations.size), n))
    return graph.chains(operations, some.operations, start, some.numbers[:, 1::2])


def _placed(world: World, rng, level: int, numbers, n: int) -> Problems:
    """Known problems in which new operations took the places of some known ones."""
    known = sampling.chains(rng, 2 * n + 64, world.operations, [level])
    ids = known.operations.copy()
    places = np.argsort(rng.random(ids.shape), axis=1)[:, : len(numbers)]
    for i, number in enumerate(numbers):
        row = np.arange(len(ids))
        ids[row, places[:, i]] = world.operations.unknown[number]
    return graph.chains(world.operations, ids, known.start, known.numbers[:, 1::2])


def _facts(skill: Skill, world: World, rng, n: int) -> tuple[Problems, np.ndarray]:
    weights = np.array([SHARES[level] for level in skill.levels])
    counts = np.diff(np.round(np.cumsum([0, *weights / weights.sum()]) * n).astype(int))
    new = (skill.operation,)
    parts = [
        needing(world, rng, level, new, count, moved=skill.moved)
        for level, count in zip(skill.levels, counts.tolist(), strict=True)
    ]
    problems = graph.concatenate(parts)
    return problems, _formats(skill, world, rng, problems.levels)


def _together(kind: Kind, world: World, rng, n: int) -> tuple[Problems, np.ndarray]:
    new = tuple(skill.operation for skill in kind.skills)
    levels = [level for level in LEVELS if level >= len(new)]
    counts = np.diff(np.linspace(0, n, len(levels) + 1).astype(int))
    parts = [
        needing(world, rng, level, new, count)
        for level, count in zip(levels, counts.tolist(), strict=True)
    ]
    problems = graph.concatenate(parts)
    return problems, _formats(kind.skills[0], world, rng, problems.levels)


def _rehearsal(kind: Kind, world: World, rng, n: int) -> tuple[Problems, np.ndarray]:
    """Known problems in the templates of its skills, so that they are kept."""
    seen = Restrict(part="train")
    problems = sampling.chains(rng, n, world.operations, list(LEVELS), seen)
    which = np.arange(n) % len(kind.skills)
    formats = np.full(n, COMMON)
    for i, skill in enumerate(kind.skills):
        mine = which == i
        formats[mine] = _formats(skill, world, rng, problems.levels[mine])
    return problems, formats


def _formats(skill: Skill, world: World, rng, levels: np.ndarray) -> np.ndarray:
    formats = shared(rng, len(levels), COMMON, skill.other, skill.share)
    direct = np.isin(levels, worlds.ANSWER_LEVELS)
    direct &= rng.random(len(levels)) < skill.answers
    return np.where(direct, world.vocab.answer_only, formats)
