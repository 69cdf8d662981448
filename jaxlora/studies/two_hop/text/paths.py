"""What must be read to score candidate answers, and nothing twice.

The log-probability of an answer t1 ... tk is that of t1 after the prompt, of t2 after
the prompt and t1, and so on: what is read are its proper prefixes. Many candidates
share them ("New York", "New Delhi"), the last token is never read, and an answer of
one token needs nothing beyond the prompt. Prefixes that no other continues are the
*paths*; those of one length are read by one program.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

Tokens: TypeAlias = tuple[int, ...]
LEAST = 32
"""M, unless more tokens follow one prefix: most groups share it."""


class Paths(NamedTuple):
    """Paths of one length K, and what is scored along them; host arrays."""

    tokens: np.ndarray
    """[P, K] token ids."""
    targets: np.ndarray
    """[P, K, M]: tokens that are scored after each token, padded with the first."""
    candidate: np.ndarray
    """[n]: the candidate that each of n scores counts for, ..."""
    place: tuple[np.ndarray, np.ndarray, np.ndarray]
    """... and where it is in [P, K, M]: three arrays [n]."""


def plan(answers: Sequence[Sequence[int]], multiple: int = 1) -> dict[int, Paths]:
    """Returns the paths of candidate answers, by their length.

    Args:
      answers: tokens of each candidate.
      multiple: P is rounded up to a multiple of it, by paths that nothing needs.

    >>> by_length = plan([[1], [2, 3, 4], [2, 3, 5], [2, 6]])
    >>> by_length[2].tokens.tolist(), by_length[2].targets[0, :, :2].tolist()
    ([[2, 3]], [[3, 6], [4, 5]])
    """
    rows = [tuple(map(int, answer)) for answer in answers]
    read = {row[:i] for row in rows for i in range(1, len(row))}
    inner = {prefix[:i] for prefix in read for i in range(1, len(prefix))}
    leaves = sorted(read - inner)
    nodes = _nodes(leaves)
    scored: dict[int, list[tuple[int, Tokens, int]]] = collections.defaultdict(list)
    for c, row in enumerate(rows):
        for i in range(1, len(row)):
            scored[len(nodes[row[:i]])].append((c, row[:i], row[i]))
    return {
        length: _paths(
            [leaf for leaf in leaves if len(leaf) == length], nodes, some, multiple
        )
        for length, some in sorted(scored.items())
    }


def _nodes(leaves: Sequence[Tokens]) -> dict[Tokens, Tokens]:
    """The path that reads each prefix: the first that begins with it."""
    out: dict[Tokens, Tokens] = {}
    for leaf in leaves:
        for i in range(1, len(leaf) + 1):
            out.setdefault(leaf[:i], leaf)
    return out


def _paths(
    leaves: Sequence[Tokens],
    nodes: Mapping[Tokens, Tokens],
    scored: Sequence[tuple[int, Tokens, int]],
    multiple: int,
) -> Paths:
    """Arrays of the paths of one length."""
    wanted: dict[Tokens, dict[int, None]] = collections.defaultdict(dict)
    for _, prefix, token in scored:
        wanted[prefix][token] = None
    number = {leaf: p for p, leaf in enumerate(leaves)}
    most = max(map(len, wanted.values()))
    # A power of two, so that groups of people share compiled programs.
    m = max(LEAST, 1 << (most - 1).bit_length())
    p = -(-len(leaves) // multiple) * multiple
    tokens = np.array([*leaves, *[leaves[-1]] * (p - len(leaves))], np.int32)
    targets = np.zeros((*tokens.shape, m), np.int32)
    for prefix, some in wanted.items():
        targets[number[nodes[prefix]], len(prefix) - 1, : len(some)] = list(some)
    places = [
        (number[nodes[prefix]], len(prefix) - 1, list(wanted[prefix]).index(token))
        for _, prefix, token in scored
    ]
    path, depth, choice = (np.array(column) for column in zip(*places, strict=True))
    return Paths(
        tokens, targets, np.array([x[0] for x in scored]), (path, depth, choice)
    )
