"""Skeletons: what a solution does, without its numbers, and which are for tests.

A skeleton is the sequence of operations with the sources of their operands. Its hash
decides between train and test, so that the parts are disjoint whatever is drawn, in
every program and on every platform. Each operation must be trained, so skeletons of
one step are in both parts; the split holds from level 2 on.
"""

from typing import Literal, TypeAlias

import numpy as np

from jaxlora.tasks.word_problems.graph import Problems

Part: TypeAlias = Literal["train", "test"]
TEST_SHARE = 0.2
"""Share of the skeletons that are for tests, unless another is asked for."""


def hashes(problems: Problems) -> np.ndarray:
    """Returns uint64 [N]: equal for equal skeletons, however they are padded.

    A clause that does not matter is no part of a skeleton.

    Args:
      problems: N of S steps.
    """
    state = _mix(problems.levels.astype(np.uint64))
    columns = (problems.operations, problems.left, problems.right)
    for step in range(problems.steps):
        mixed = state
        for column in columns:
            # Two's complement of negative sources: the same bits everywhere.
            mixed = _mix(mixed + column[:, step].astype(np.int64).view(np.uint64))
        state = np.where(step < problems.levels, mixed, state)
    return state


def is_test(problems: Problems, share: float = TEST_SHARE) -> np.ndarray:
    """Returns bool [N]: is the skeleton one for tests? Never at level 1.

    A skeleton that is for tests at a share is so at a higher one.

    Args:
      problems: N of S steps.
      share: of the skeletons, in [0, 1].

    Raises:
      ValueError: if the share is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"The share of tests is {share}, expected one in [0, 1].")
    # 53 bits are a float exactly.
    drawn = (hashes(problems) >> np.uint64(11)) / 2.0**53
    return (drawn < share) & (problems.levels > 1)


def within(
    problems: Problems, part: Part | None, share: float = TEST_SHARE
) -> np.ndarray:
    """Returns bool [N]: may a problem be drawn for a part? All may at level 1.

    Args:
      problems: N of S steps.
      part: ``train`` or ``test``; none for both.
      share: of the skeletons that are for tests.

    Raises:
      ValueError: if the part is unknown.
    """
    if part is None:
        return np.ones(len(problems), bool)
    if part not in ("train", "test"):
        raise ValueError(f"Unknown part {part!r}, expected train, test or none.")
    test = is_test(problems, share)
    return ~test if part == "train" else test | (problems.levels <= 1)


def _mix(x: np.ndarray) -> np.ndarray:
    """The step of SplitMix64 (Steele et al., OOPSLA 2014); overflow is meant."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
