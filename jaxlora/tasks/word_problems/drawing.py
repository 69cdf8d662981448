"""One round of drawing: sources of operands, and numbers that give a result if any do.

Whoever calls keeps what fits; see :mod:`.sampling`.
"""

import dataclasses

import numpy as np

from jaxlora.tasks.word_problems import graph
from jaxlora.tasks.word_problems import operations as ops
from jaxlora.tasks.word_problems.graph import Problems
from jaxlora.tasks.word_problems.operations import UNDEFINED, Operations

LARGEST_TERM = 99
"""The largest plain number that starts a problem, is added or subtracted."""
FACTORS = np.arange(2, 10)
"""Plain numbers that are multiplied or divided by."""
RESULT_SHARE = 0.75, 0.5
"""How often a tree's left and right operands are results rather than numbers."""
REUSE_SHARE = 0.2
"""How often such a result is any, rather than one that no step uses yet."""


def chain(rng: np.random.Generator, binary: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns left and right sources of n chains, int [n, S] each.

    Args:
      rng: not used; a chain has one shape.
      binary: bool [n, S], which steps have a right operand.
    """
    del rng
    step = np.arange(binary.shape[1])
    left, right = np.where(step == 0, ~step, step - 1), ~(2 * step + 1)
    return np.broadcast_to(left, binary.shape), np.broadcast_to(right, binary.shape)


def tree(rng: np.random.Generator, binary: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns left and right sources of n random graphs, int [n, S] each.

    Args:
      rng: draws each source: a number, a result that no step uses yet, or any result.
      binary: bool [n, S], which steps have a right operand.
    """
    n, steps = binary.shape
    left, right = (np.zeros((n, steps), np.int64) for _ in range(2))
    idle = np.zeros((n, steps + 1), bool)  # the last column is for numbers
    row = np.arange(n)
    for s in range(steps):
        for side, sources in enumerate((left, right)):
            drawn = _source(rng, idle, s, RESULT_SHARE[side])
            sources[:, s] = np.where(drawn < 0, ~(2 * s + side), drawn)
            used = (drawn >= 0) & (binary[:, s] | (side == 0))
            idle[row, np.where(used, drawn, steps)] = False
        idle[:, s] = True
    return left, right


def _source(rng, idle: np.ndarray, step: int, share: float) -> np.ndarray:
    """For each row an earlier step, an idle one most often, or -1 for a number."""
    n = len(idle)
    if not step:
        return np.full(n, -1)
    waiting = np.argmax(idle * rng.random(idle.shape), axis=1)
    reuse = ~idle.any(axis=1) | (rng.random(n) < REUSE_SHARE)
    earlier = np.where(reuse, rng.integers(step, size=n), waiting)
    return np.where(rng.random(n) < share, earlier, -1)


def is_tree(left: np.ndarray, right: np.ndarray, binary: np.ndarray) -> np.ndarray:
    """Returns bool [n]: no step idle, no operand twice in a step, and no chain.

    A problem of one step counts, though it is a chain.

    Args:
      left: int [n, S], sources.
      right: int [n, S], sources.
      binary: bool [n, S], which steps have a right operand.
    """
    right, steps = np.where(binary, right, ~0), left.shape[1]
    used = [((left == s) | (right == s)).any(axis=1) for s in range(steps - 1)]
    twice = ((left == right) & (right >= 0)).any(axis=1)
    chain = ((left[:, 1:] == np.arange(steps - 1)) & (right[:, 1:] < 0)).all(axis=1)
    idle = ~np.logical_and.reduce([~twice, *used])
    return ~idle & (~chain | (steps == 1))


def fill(
    rng: np.random.Generator,
    operations: Operations,
    ids: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
) -> Problems:
    """Draws the numbers of graphs, each with a view to the result of its step.

    Args:
      rng: draws the numbers.
      operations: the set.
      ids: int [n, S], operations.
      left: int [n, S], sources.
      right: int [n, S], sources.

    Returns:
      n problems of level S; results may be undefined.
    """
    n, steps = ids.shape
    given = np.zeros((n, 2 * steps), np.int64)
    results = np.full((n, steps), UNDEFINED, np.int64)
    problems = Problems(given, ids, left, right, np.full(n, steps), results)
    for s in range(steps):
        column = slice(s, s + 1)
        given[:, 2 * s] = np.where(left[:, s] < 0, first(rng, operations, n), 0)
        x = graph.values(problems, left[:, column])[:, 0]
        drawn = operand(rng, operations, ids[:, s], x)
        needed = (right[:, s] < 0) & ~operations.unary[ids[:, s]]
        given[:, 2 * s + 1] = np.where(needed, drawn, 0)
        y = graph.values(problems, right[:, column])[:, 0]
        results[:, s] = ops.apply(operations, ids[:, s], x, y)
    return dataclasses.replace(problems, results=results)


def first(rng: np.random.Generator, operations: Operations, n: int) -> np.ndarray:
    """Draws n numbers to begin with: any modulo p, 2 to 99 of plain ones.

    Args:
      rng: draws them.
      operations: the set.
      n: how many.
    """
    if operations.table is not None:
        return rng.integers(operations.size, size=n)
    return rng.integers(2, min(LARGEST_TERM + 1, operations.size), size=n)


def operand(
    rng: np.random.Generator, operations: Operations, ids: np.ndarray, left: np.ndarray
) -> np.ndarray:
    """Draws right operands with which the operations have results, if any have.

    Args:
      rng: draws them.
      operations: the set.
      ids: int [n].
      left: int [n], left operands.
    """
    if operations.table is not None:
        divides = (ids == ops.DIVIDE) & ~operations.unary[ids]
        return rng.integers(divides.astype(int), operations.size)
    # A number where none fits gives no result, and the problem is drawn again.
    room = np.minimum(operations.size - 1 - left, LARGEST_TERM)
    term = rng.integers(1, np.maximum(room, 1) + 1)
    less = rng.integers(1, np.clip(left, 1, LARGEST_TERM) + 1)
    most = np.minimum((operations.size - 1) // np.maximum(left, 1), FACTORS[-1])
    factor = rng.integers(FACTORS[0], np.maximum(most, FACTORS[0]) + 1)
    exact = left[:, None] % FACTORS == 0
    divisor = FACTORS[np.argmax(exact * rng.random(exact.shape), axis=1)]
    return np.choose(ids, (term, less, factor, divisor))
