"""What must be read to score candidate answers, and nothing twice.

The log-probability of an answer t1 ... tk is that of t1 after the prompt, of t2 after
the prompt and t1, and so on: what is read are its proper prefixes. Many candidates
share them ("New York", "New Delhi"), the last token is never read, and an answer of
one token needs nothing beyond the prompt. The prefixes make a tree, which is read side
by side after the prompt, in one call: a token sees the prompt and its own ancestors.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

Tokens: TypeAlias = tuple[int, ...]
MULTIPLE = 16
"""Of M and K, so that groups of people share compiled programs."""


class Branches(NamedTuple):
    """M nodes of the tree, and what is scored after each; host arrays."""

    tokens: np.ndarray
    """[M] token ids; nodes that nothing needs fill the array."""
    depth: np.ndarray
    """[M]: number of ancestors."""
    sees: np.ndarray
    """[M, M]: row m has its ancestors and itself."""
    targets: np.ndarray
    """[M, K]: tokens that are scored after each node, filled with 0."""
    candidate: np.ndarray
    """[n]: the candidate that each of n scores counts for, ..."""
    place: tuple[np.ndarray, np.ndarray]
    """... and where it is in [M, K]: two arrays [n]."""


def plan(answers: Sequence[Sequence[int]], most: int = 0) -> list[Branches]:
    """Returns the trees that score candidate answers.

    Args:
      answers: tokens of each candidate, one at least.
      most: candidates of a tree, 0 for all; a tree of fewer takes less memory.

    >>> (tree,) = plan([[1], [2, 3, 4], [2, 3, 5], [2, 6]])
    >>> tree.tokens[:2].tolist(), tree.targets[:2, :2].tolist()
    ([2, 3], [[3, 6], [4, 5]])
    """
    rows = [tuple(map(int, answer)) for answer in answers]
    # In the order of their tokens, so that what a tree has in common is much.
    order = sorted(
        (c for c in range(len(rows)) if len(rows[c]) > 1), key=rows.__getitem__
    )
    size = most or max(1, len(order))
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return _alike([_tree(rows, part) for part in parts])


class _Scored(NamedTuple):
    """A tree before it is padded."""

    nodes: list[Tokens]
    wanted: list[list[int]]
    """Tokens that are scored after each node."""
    scores: list[tuple[int, int, int]]
    """Candidate, node, and place among what is wanted there."""


def _tree(rows: Sequence[Tokens], part: Sequence[int]) -> _Scored:
    nodes = sorted({rows[c][:i] for c in part for i in range(1, len(rows[c]))})
    number = {node: m for m, node in enumerate(nodes)}
    wanted: list[list[int]] = [[] for _ in nodes]
    scores = []
    for c in part:
        for i in range(1, len(rows[c])):
            m, token = number[rows[c][:i]], rows[c][i]
            if token not in wanted[m]:
                wanted[m].append(token)
            scores.append((c, m, wanted[m].index(token)))
    return _Scored(nodes, wanted, scores)


def _alike(trees: Sequence[_Scored]) -> list[Branches]:
    """Pads all trees to one shape."""

    def rounded(n: int) -> int:
        return -(-n // MULTIPLE) * MULTIPLE

    m = rounded(max((len(tree.nodes) for tree in trees), default=0))
    k = rounded(max((len(some) for tree in trees for some in tree.wanted), default=0))
    return [_padded(tree, m, k) for tree in trees]


def _padded(tree: _Scored, m: int, k: int) -> Branches:
    number = {node: i for i, node in enumerate(tree.nodes)}
    tokens, depth = np.zeros(m, np.int32), np.zeros(m, np.int32)
    sees, targets = np.eye(m, dtype=bool), np.zeros((m, k), np.int32)
    for node, i in number.items():
        tokens[i], depth[i] = node[-1], len(node) - 1
        sees[i, [number[node[:j]] for j in range(1, len(node))]] = True
        targets[i, : len(tree.wanted[i])] = tree.wanted[i]
    candidate, *place = (np.array(x) for x in zip(*tree.scores, strict=True))
    return Branches(tokens, depth, sees, targets, candidate, (place[0], place[1]))
