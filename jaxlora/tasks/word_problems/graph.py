"""Word problems as arrays: graphs of operations over given numbers.

Step s applies an operation to a left and a right operand. A *source* says where an
operand comes from: s >= 0 is the result of step s, and a negative source ``~k`` is the
given number k. Each step has two slots for numbers, 2 s for its left and 2 s + 1 for
its right operand, so that sources do not depend on how far arrays are padded. In a
chain every left operand is the preceding result; in a tree it is any earlier result,
or a number, and results may be shared.

The first ``levels`` steps are the solution, the last of them is the answer. A step
behind them is a clause that does not matter: the prompt says it, no solution uses it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxlora.tasks.word_problems import operations as ops
from jaxlora.tasks.word_problems.operations import UNDEFINED, Operations

NO_STEP = -1
"""The operation of a step that is padding."""


@dataclasses.dataclass(frozen=True, eq=False)
class Problems:
    """N problems of at most S steps each."""

    numbers: np.ndarray
    """int [N, 2 S]: the given numbers; 0 where no source is."""
    operations: np.ndarray
    """int [N, S]: ids; ``NO_STEP`` is padding."""
    left: np.ndarray
    """int [N, S]: sources of left operands."""
    right: np.ndarray
    """int [N, S]: sources of right operands; unary operations ignore them."""
    levels: np.ndarray
    """int [N]: steps of the solution; a step behind them does not matter."""
    results: np.ndarray
    """int [N, S]: results of the steps; ``UNDEFINED`` in padding."""

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, index) -> "Problems":
        """Returns some problems; ``index`` is a slice, a mask or an array of ints."""
        fields = (getattr(self, f.name)[index] for f in dataclasses.fields(self))
        return Problems(*fields)

    @property
    def start(self) -> np.ndarray:
        """The left number of each first step, int [N]."""
        return self.numbers[:, 0]

    @property
    def steps(self) -> int:
        """S, the width of the arrays."""
        return self.operations.shape[1]


def chains(
    operations: Operations, ids: np.ndarray, start: np.ndarray, numbers: np.ndarray
) -> Problems:
    """Returns chains ``start op number op number ...`` with their results.

    Args:
      operations: the set that the ids are of.
      ids: int [N, S], operations from left to right; behind a chain ``NO_STEP``.
      start: int [N].
      numbers: int [N, S], the right operands; those of unary operations are dropped.

    Raises:
      ValueError: if an operation is unknown, a number out of range, a chain empty or
        with a gap, or a result undefined.

    >>> add = chains(ops.modular(13), np.array([[0, 1]]), np.array([9]),
    ...              np.array([[6, 5]]))
    >>> add.results.tolist(), answers(add).tolist()
    ([[2, 10]], [10])
    """
    ids, start, numbers = map(np.asarray, (ids, start, numbers))
    _check_chains(operations, ids, start, numbers)
    used = ids != NO_STEP
    binary = used & ~operations.unary[np.where(used, ids, 0)]
    slots = np.zeros((len(ids), 2 * ids.shape[1]), np.int64)
    slots[:, 0] = start
    slots[:, 1::2] = np.where(binary, numbers, 0)
    step = np.arange(ids.shape[1])
    left, right = np.where(step == 0, ~step, step - 1), ~(2 * step + 1)
    shape = ids.shape
    sources = np.broadcast_to(left, shape), np.broadcast_to(right, shape)
    return solved(operations, slots, ids.astype(np.int64), *sources, used.sum(axis=1))


def solved(
    operations: Operations,
    numbers: np.ndarray,
    ids: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    levels: np.ndarray,
) -> Problems:
    """Returns problems with their results, which must all be defined.

    Args:
      operations: the set that the ids are of.
      numbers: int [N, 2 S], in slots as in :class:`Problems`.
      ids: int [N, S], ``NO_STEP`` in padding.
      left: int [N, S], sources.
      right: int [N, S], sources.
      levels: int [N].

    Raises:
      ValueError: if a result is undefined.
    """
    problems = Problems(numbers, ids, left, right, levels, np.empty_like(ids))
    results = evaluate(problems, operations)
    bad = (results == UNDEFINED) & (ids != NO_STEP)
    if bad.any():
        row, step = np.argwhere(bad)[0]
        raise ValueError(
            f"Step {step} of problem {row} ({operations.names[ids[row, step]]}) has no "
            f"result in 0 ... {operations.size - 1}; expected no division by 0, and "
            f"plain integers that stay in range."
        )
    return dataclasses.replace(problems, results=results)


def evaluate(problems: Problems, operations: Operations) -> np.ndarray:
    """Recomputes every result from the given numbers, whatever ``results`` holds.

    Args:
      problems: N of S steps.
      operations: the set that their ids are of.

    Returns:
      int [N, S], ``UNDEFINED`` in padding and where there is no result.
    """
    return _run(problems, operations, np.full(problems.operations.shape, UNDEFINED))


def blind(
    problems: Problems, operations: Operations, rng: np.random.Generator
) -> Problems:
    """Returns problems in which results of new operations are random.

    Later steps go on from them. Trained with no weight on those results, such rows
    teach the names of new operations and nothing of what they do.

    Args:
      problems: N of S steps.
      operations: says which are new.
      rng: draws the results.
    """
    drawn = rng.integers(operations.size, size=problems.operations.shape)
    new = np.isin(problems.operations, operations.unknown)
    results = _run(problems, operations, np.where(new, drawn, UNDEFINED))
    return dataclasses.replace(problems, results=results)


def answers(problems: Problems) -> np.ndarray:
    """Returns int [N], the result of each problem's last solution step.

    Args:
      problems: N of S steps.
    """
    return problems.results[np.arange(len(problems)), problems.levels - 1]


def operands(problems: Problems) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values of left and right operands, int [N, S] each.

    Args:
      problems: with results.
    """
    return values(problems, problems.left), values(problems, problems.right)


def values(problems: Problems, sources: np.ndarray) -> np.ndarray:
    """Returns the values at sources, ``UNDEFINED`` where a step has none.

    Args:
      problems: with numbers and the results that are asked for.
      sources: int [N, any], as in ``left`` and ``right``.
    """
    number = np.take_along_axis(problems.numbers, np.maximum(~sources, 0), axis=1)
    result = np.take_along_axis(problems.results, np.maximum(sources, 0), axis=1)
    return np.where(sources < 0, number, result)


def are_chains(problems: Problems) -> np.ndarray:
    """Returns bool [N]: a chain, without a clause that does not matter?

    Args:
      problems: N of S steps.
    """
    step = np.arange(problems.steps)
    used = problems.operations != NO_STEP
    follows = problems.left == np.where(step == 0, ~step, step - 1)
    given = problems.right == ~(2 * step + 1)
    return ((follows & given) | ~used).all(1) & (used.sum(1) == problems.levels)


def concatenate(parts: Sequence[Problems]) -> Problems:
    """Returns the problems of all parts, padded to the steps of the longest.

    Args:
      parts: at least one.
    """
    steps = max(part.steps for part in parts)
    padded = [pad(part, steps) for part in parts]
    fields = (f.name for f in dataclasses.fields(Problems))
    joined = (np.concatenate([getattr(x, name) for x in padded]) for name in fields)
    return Problems(*joined)


def pad(problems: Problems, steps: int) -> Problems:
    """Returns the same problems with room for more steps.

    Args:
      problems: N of S steps.
      steps: the new S, at least the old one.
    """
    more = steps - problems.steps
    widen = lambda x, by, fill: np.pad(x, ((0, 0), (0, by)), constant_values=fill)  # noqa: E731
    return Problems(
        numbers=widen(problems.numbers, 2 * more, 0),
        operations=widen(problems.operations, more, NO_STEP),
        left=widen(problems.left, more, ~0),
        right=widen(problems.right, more, ~0),
        levels=problems.levels,
        results=widen(problems.results, more, UNDEFINED),
    )


def _run(problems: Problems, operations: Operations, drawn: np.ndarray) -> np.ndarray:
    """Results step by step; where ``drawn`` is defined, it is the result."""
    results = np.full(problems.operations.shape, UNDEFINED, np.int64)
    state = dataclasses.replace(problems, results=results)
    for step in range(problems.steps):
        left = values(state, problems.left[:, step : step + 1])[:, 0]
        right = values(state, problems.right[:, step : step + 1])[:, 0]
        result = ops.apply(operations, problems.operations[:, step], left, right)
        given = drawn[:, step]
        results[:, step] = np.where(given == UNDEFINED, result, given)
    return results


def _check_chains(operations: Operations, ids, start, numbers) -> None:
    if ids.ndim != 2 or numbers.shape != ids.shape or start.shape != ids.shape[:1]:
        raise ValueError(
            f"Got operations {ids.shape}, start {start.shape} and numbers "
            f"{numbers.shape}, expected [N, S], [N] and [N, S]."
        )
    used = ids != NO_STEP
    if ids.size and (ids.min() < NO_STEP or ids.max() >= operations.count):
        raise ValueError(
            f"Got operations {ids.min()} to {ids.max()}, expected 0 to "
            f"{operations.count - 1} ({', '.join(operations.names)}), and {NO_STEP} "
            f"behind a chain."
        )
    if not used[:, :1].all() or (used[:, 1:] > used[:, :-1]).any():
        raise ValueError("A chain is empty or has a gap, expected padding behind it.")
    given = np.concatenate([start, np.where(used, numbers, 0).ravel()])
    if given.size and (given.min() < 0 or given.max() >= operations.size):
        raise ValueError(
            f"Got numbers {given.min()} to {given.max()}, expected 0 to "
            f"{operations.size - 1}."
        )
