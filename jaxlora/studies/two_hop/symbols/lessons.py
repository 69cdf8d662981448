"""The two-hop questions that a method may learn from before a person is asked.

Nobody is asked by what learned on their question. Merges and gates are fitted crosswise
over libraries: what half of a group's people is asked under was learned on everybody
else of the cell. These are the people of the other relation pairs, each with the
library of their group, whose experts have the same roles, and the group's other half.
Where a cell has one pair, it is the other half alone.

The oracle, whose route is of a whole cell, is chosen on one half of all its people.

With a counterfactual expert the answers that are learned are those that the experts'
facts compose to, else the true ones.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.evaluate.schema import Arm, Split
from jaxlora.studies.two_hop.arms import COUNTERFACTUALS
from jaxlora.studies.two_hop.symbols.questions import Asked
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tree import Tree


class Examples(NamedTuple):
    """Two-hop questions of one group, or of one half of it for each group and half."""

    tokens: jax.Array
    """[..., N, 3]; of half h are the people whose number mod 2 is *not* h."""
    targets: jax.Array
    """[..., N]."""
    weights: jax.Array
    """[..., N], 0 where there is nobody, or no answer to give."""


class Lessons(NamedTuple):
    """Questions of all people by cell: C cells of at most K groups of N people."""

    tokens: jax.Array
    """[C, K, N, 3]."""
    targets: jax.Array
    """[C, K, N]."""
    weights: jax.Array
    """[C, K, 2, K, N], 1 for what is learned from before half h of group k is asked."""
    groups: jax.Array
    """[C, K], numbers below G; a cell with fewer groups repeats its first."""


def lessons(asked: Asked, arm: Arm) -> Lessons:
    """Who may be learned from before anybody is asked.

    Args:
      asked: the questions of all groups.
      arm: says which answers are right.
    """
    n, right = asked.people, _answers(asked, arm)
    cells = list(_cells(asked.groups).values())
    most = max(map(len, cells))
    groups = np.array([cell + cell[:1] * (most - len(cell)) for cell in cells])
    there = np.arange(most) < np.array([len(cell) for cell in cells])[:, None]
    used = (right[groups] >= 0) & there[..., None]  # [C, K, N]
    mine = np.eye(most, dtype=bool)[:, None, :, None]  # [K, 1, K, 1]
    half = np.arange(n) % 2 == np.arange(2)[:, None]  # [2, N]
    weights = used[:, None, None] & ~(mine & half[None, :, None])
    prompts = np.asarray(asked.questions.direct[:, 2 * n : 3 * n])[groups]
    return Lessons(
        jnp.asarray(prompts),
        jnp.asarray(np.maximum(right[groups], 0), jnp.int32),
        jnp.asarray(weights, jnp.float32),
        jnp.asarray(groups, jnp.int32),
    )


def by_half(given: Lessons, groups: tuple[Group, ...], learned: Tree) -> Tree:
    """Brings what was learned by cell, [C, K, 2, ...], into the order [2, G, ...].

    Args:
      given: the layout of the cells.
      groups: in the order of G.
      learned: arrays for every half of every group.
    """
    where = np.array(places(given, groups)).T  # [2, G]

    def ordered(x: Any) -> jax.Array:
        return jnp.moveaxis(jnp.asarray(x)[where[0], where[1]], 1, 0)

    return jax.tree.map(ordered, learned)


def places(given: Lessons, groups: tuple[Group, ...]) -> list[tuple[int, int]]:
    """Where each of G groups stands, as (cell, number in the cell).

    Args:
      given: the layout of the cells.
      groups: in the order of G.
    """
    every = np.asarray(given.groups)
    where = (np.argwhere(every == g)[0] for g in range(len(groups)))
    return [(int(c), int(k)) for c, k in where]


def counts(given: Lessons, groups: tuple[Group, ...]) -> dict[str, list[int]]:
    """The fewest and the most rows that anybody's model learned from, by cell.

    Args:
      given: who was learned from.
      groups: in the order of G.
    """
    rows = by_half(given, groups, jnp.sum(given.weights, axis=(-2, -1)))
    return spans(np.asarray(rows), groups)


def spans(rows: np.ndarray, groups: tuple[Group, ...]) -> dict[str, list[int]]:
    """The fewest and the most rows by cell, of numbers [2, G].

    >>> from types import SimpleNamespace
    >>> two = [SimpleNamespace(cell="R-OO")] * 2
    >>> spans(np.array([[3, 4], [4, 3]]), two)
    {'R-OO': [3, 4]}
    """
    cells = _cells(groups).items()
    return {c: [int(rows[:, g].min()), int(rows[:, g].max())] for c, g in cells}


def examples(asked: Asked, arm: Arm) -> Examples:
    """The questions that a route is chosen on for each half, [G, 2, N, ...].

    Args:
      asked: the questions of all groups.
      arm: says which answers are right.
    """
    groups, n, answers = asked.groups, asked.people, _answers(asked, arm)
    prompts = np.asarray(asked.questions.direct[:, 2 * n : 3 * n])
    size = -(-n // 2)
    tokens = np.zeros((len(groups), 2, size, 3), prompts.dtype)
    targets = np.zeros((len(groups), 2, size), np.int32)
    weights = np.zeros((len(groups), 2, size), np.float32)
    for g, group in enumerate(groups):
        for half in (0, 1):
            others = np.arange(1 - half, group.size, 2)
            rest = np.resize(others, size)  # repeats, of weight 0, up to the size
            tokens[g, half] = prompts[g, rest]
            targets[g, half] = np.maximum(answers[g, rest], 0)
            weights[g, half, : len(others)] = answers[g, others] >= 0
    return Examples(*map(jnp.asarray, (tokens, targets, weights)))


def _answers(asked: Asked, arm: Arm) -> np.ndarray:
    """The answer to everybody's two-hop question, [G, N]; -1 where there is none."""
    out = np.full((len(asked.groups), asked.people), -1)
    for g, group in enumerate(asked.groups):
        key = asked.keys[g][Split.TWO_HOP]
        answers = key.counterfactual if arm in COUNTERFACTUALS else key.answer
        out[g, : group.size] = answers[: group.size]
    return out


def _cells(groups: tuple[Group, ...]) -> dict[str, list[int]]:
    """The numbers of the groups of each cell, in the order of the cells."""
    out: dict[str, list[int]] = {}
    for g, group in enumerate(groups):
        out.setdefault(str(group.cell), []).append(g)
    return out
