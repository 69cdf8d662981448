"""The oracle route: given labels, and a layer split that is searched, not assumed.

A relation token goes to its expert: S to A->B, Z to B->C. On the two-hop prompt that
alone cannot be right for all layers, so the split of the last token is searched: layers
below it use the A->B expert, the others B->C; the tokens before it use A->B throughout,
or the same split. The split is chosen on one half of a cell's people and scored on the
other half, then the other way round.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlora.evaluate.scoring import Labels


class Choice(NamedTuple):
    """A candidate route for the two-hop prompt."""

    split: int
    """Layers below it use the A->B expert at the last token."""
    early: bool
    """Whether the tokens before the last follow the same split."""


def candidates(layers: int) -> tuple[Choice, ...]:
    """All candidate routes of a model with this many layers.

    >>> len(candidates(4))
    10
    """
    return tuple(Choice(s, early) for s in range(layers + 1) for early in (False, True))


def labels(choice: Choice, layers: int, people: int, familiar: int) -> Labels:
    """Returns the labels of all questions about a group.

    The direct questions are hop 1, hop 2 and two-hop of every person, then familiar
    ones, for which the oracle uses no expert. A written bridge is asked of A->B and
    read by B->C; for facts in context no expert is needed.
    """
    first, second = np.eye(2, dtype=np.float32)
    below = (np.arange(layers) < choice.split)[:, None]
    split = np.where(below, first, second)  # [L, E]
    two_hop = np.stack([np.tile(first, (layers, 1))] * 2 + [split], axis=1)
    if choice.early:
        two_hop = np.stack([split] * 3, axis=1)
    parts = [
        _spread(np.tile(first, (layers, 3, 1)), people),
        _spread(np.tile(second, (layers, 3, 1)), people),
        _spread(two_hop, people),
        np.zeros((layers, familiar, 3, 2), np.float32),
    ]
    written = np.tile(first, (layers, 5, 1))
    written[:, [2, 4]] = second
    return Labels(
        direct=jnp.asarray(np.concatenate(parts, axis=1)),
        written=jnp.asarray(_spread(written, people)),
        context=jnp.zeros((layers, people, 9, 2), jnp.float32),
    )


def _spread(route: np.ndarray, people: int) -> np.ndarray:
    """[L, T, E] to [L, people, T, E]."""
    layers, tokens, experts = route.shape
    return np.broadcast_to(route[:, None], (layers, people, tokens, experts)).copy()


def choose(correct: Sequence[np.ndarray], loss: Sequence[np.ndarray]) -> int:
    """Returns the best candidate: most right answers, then the lowest mean loss.

    Args:
      correct: for each candidate, right or wrong for the people it is chosen on.
      loss: for each candidate, their losses in nats.
    """
    scores = [
        (float(np.mean(right)), -float(np.mean(nats)))
        for right, nats in zip(correct, loss, strict=True)
    ]
    return max(range(len(scores)), key=scores.__getitem__)
