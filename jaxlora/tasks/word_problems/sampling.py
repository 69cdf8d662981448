"""Random word problems: chains, trees with shared parts, and clauses of no matter.

Problems are drawn many at once and those that do not fit are drawn again: results
must be defined, and the skeleton must be of the part that is asked for.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from jaxlora.tasks.word_problems import drawing, graph, skeletons
from jaxlora.tasks.word_problems import operations as ops
from jaxlora.tasks.word_problems.graph import Problems
from jaxlora.tasks.word_problems.operations import UNDEFINED, Operations
from jaxlora.tasks.word_problems.skeletons import TEST_SHARE, Part

MOST = 8
"""The highest level."""
TRIES = 50
"""Rounds of drawing after which a request counts as impossible."""


@dataclasses.dataclass(frozen=True)
class Restrict:
    """What problems may be drawn."""

    pool: Sequence[int] | None = None
    """Ids of operations; none for all that are known."""
    part: Part | None = None
    """Whose skeletons; none for those of train and test."""
    test_share: float = TEST_SHARE
    """Share of the skeletons that are for tests."""


ANY = Restrict()
BATCH = 100_000
"""The most that are drawn in a round, for memory."""
Draw: TypeAlias = Callable[..., Problems]
"""Draws problems of a level from a pool; those that do not fit may be among them."""


def chains(
    rng: np.random.Generator,
    n: int,
    operations: Operations,
    levels: Sequence[int],
    restrict: Restrict = ANY,
) -> Problems:
    """Draws chains; the same generator state gives the same problems.

    Args:
      rng: draws levels, operations and numbers.
      n: how many.
      operations: the set.
      levels: drawn from evenly.
      restrict: to operations, and to skeletons for training or tests.

    Returns:
      n problems of max(levels) steps.

    Raises:
      ValueError: if a level or an operation is unknown, or no such problem exists.

    >>> from jaxlora.tasks.word_problems import operations
    >>> rng = np.random.default_rng(0)
    >>> two = chains(rng, 5, operations.modular(13), [2])
    >>> two.levels.tolist(), graph.are_chains(two).all()
    ([2, 2, 2, 2, 2], np.True_)
    """
    return _sample(rng, n, operations, levels, restrict, _chain)


def trees(
    rng: np.random.Generator,
    n: int,
    operations: Operations,
    levels: Sequence[int],
    restrict: Restrict = ANY,
) -> Problems:
    """Draws problems whose steps take any earlier results, some of them shared.

    No step is idle and, from level 2 on, none of them is a chain.

    Args:
      rng: draws levels, graphs, operations and numbers.
      n: how many.
      operations: the set.
      levels: drawn from evenly.
      restrict: to operations, and to skeletons for training or tests.

    Returns:
      n problems of max(levels) steps.

    Raises:
      ValueError: if a level or an operation is unknown, or no such problem exists.
    """
    return _sample(rng, n, operations, levels, restrict, _tree)


def distract(
    rng: np.random.Generator, problems: Problems, operations: Operations
) -> Problems:
    """Adds to each problem a step on one of its results that the answer does not use.

    Args:
      rng: draws the step.
      problems: N of S steps, without such a step.
      operations: the set; the step is a binary operation that is known.

    Returns:
      N problems of S + 1 steps, with the same answers.

    Raises:
      ValueError: if no binary operation is known, or none of them has a result.
    """
    if not operations.known_binary:
        raise ValueError("A clause that does not matter needs a binary operation.")
    n, steps = len(problems), problems.steps + 1
    column = np.arange(steps) == problems.levels[:, None]
    ids, source, number = (np.zeros(n, np.int64) for _ in range(3))
    left = np.arange(n)  # rows still to be drawn
    for _ in range(TRIES):
        ids[left] = rng.integers(operations.known_binary, size=len(left))
        source[left] = rng.integers(problems.levels[left])
        value = problems.results[np.arange(n), source]
        number[left] = drawing.operand(rng, operations, ids[left], value[left])
        result = ops.apply(operations, ids, value, number)
        left = np.flatnonzero(result == UNDEFINED)
        if not len(left):
            return _with_step(problems, column, ids, source, number, result)
    raise ValueError(f"Problem {left[0]} has no result that a step may go on from.")


def _with_step(problems: Problems, column, ids, source, number, result) -> Problems:
    """Each problem with one more step, in the column of its row that is marked."""
    wide = graph.pad(problems, problems.steps + 1)
    at = lambda value, array: np.where(column, value, array)  # noqa: E731
    slots = wide.numbers.copy()
    slots[:, 1::2] = at(number[:, None], slots[:, 1::2])
    return dataclasses.replace(
        wide,
        numbers=slots,
        operations=at(ids[:, None], wide.operations),
        left=at(source[:, None], wide.left),
        right=at(~(2 * np.arange(wide.steps) + 1), wide.right),
        results=at(result[:, None], wide.results),
    )


def _sample(rng, n, operations, levels, restrict, draw: Draw) -> Problems:
    pool, levels = _pool(operations, restrict.pool), _levels(levels)
    drawn = rng.choice(levels, n)
    # Level by level, so that what is drawn again does not change their shares.
    where = [np.flatnonzero(drawn == level) for level in levels]
    parts = [
        _collect(
            functools.partial(draw, rng, operations, pool, level), restrict, len(at)
        )
        for level, at in zip(levels, where, strict=True)
    ]
    order = np.argsort(np.concatenate(where))
    return graph.concatenate([graph.pad(x, max(levels)) for x in parts])[order]


def _collect(draw: Callable[[int], Problems], restrict: Restrict, n: int) -> Problems:
    """Draws until n problems are defined and of the part that is asked for."""
    parts, missing, count = [draw(0)], n, n
    for _ in range(TRIES):
        if missing <= 0:
            return graph.concatenate(parts)[:n]
        some = draw(count)
        keep = (some.results != UNDEFINED).all(axis=1)
        keep &= skeletons.within(some, restrict.part, restrict.test_share)
        parts.append(some[keep])
        missing -= len(parts[-1])
        # As many as give the rest at this rate, and some more.
        rate = (len(parts[-1]) + 1) / count
        count = min(int(1.2 * missing / rate) + 16, BATCH)
    raise ValueError(
        f"Drew {n - missing} of {n} problems of level {parts[0].steps} in {TRIES} "
        f"rounds; likely the operations have no skeleton in part "
        f"{restrict.part!r}, or few results in range; expected more operations, "
        f"another level or a larger limit."
    )


def _chain(rng, operations, pool, level, n) -> Problems:
    ids = rng.choice(pool, (n, level))
    sources = drawing.chain(rng, ~operations.unary[ids])
    return drawing.fill(rng, operations, ids, *sources)


def _tree(rng, operations, pool, level, n) -> Problems:
    ids = rng.choice(pool, (n, level))
    binary = ~operations.unary[ids]
    left, right = drawing.tree(rng, binary)
    # Before numbers are drawn, which takes longer.
    fits = drawing.is_tree(left, right, binary)
    return drawing.fill(rng, operations, ids[fits], left[fits], right[fits])


def _pool(operations: Operations, pool: Sequence[int] | None) -> np.ndarray:
    ids = operations.known if pool is None else np.asarray(pool, int)
    if not len(ids) or ids.min() < 0 or ids.max() >= operations.count:
        raise ValueError(
            f"Got the operations {ids.tolist()} to draw from, expected at least one of "
            f"0 to {operations.count - 1} ({', '.join(operations.names)})."
        )
    return ids


def _levels(levels: Sequence[int]) -> list[int]:
    wrong = [level for level in levels if not 1 <= level <= MOST]
    if wrong or not len(levels):
        raise ValueError(
            f"Unknown level {wrong[0] if wrong else 'none'}, expected 1 to {MOST} "
            f"operations."
        )
    return sorted(set(levels))
