"""The search for the oracle's route: one expert, or none, per layer and token position.

A hard route is L x T numbers: those below E are experts, E is none. All people of a
cell share one. It is chosen on one half of them, by right answers, then by the lowest
mean loss, and scored on the other half, so that "routing fails" means that no route of
this kind carries over. Either all routes are tried, or the best of many starts climb,
one layer and token after the other, until no single change helps.

What searches knows nothing of models: it is given a function that scores, from routes
[C, 2, P, L, T], P candidates for every cell C and half, to scores [C, 2, P].
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MOST = 2**20
"""Routes that an exhaustive search may have to try."""


class Score(NamedTuple):
    """How well routes do on the people they are chosen on."""

    right: jax.Array
    """[...], number of right answers."""
    loss: jax.Array
    """[...], mean loss of the right answer, in nats."""


class Best(NamedTuple):
    """The best route of every cell and half, of those tried."""

    routes: jax.Array
    """[C, 2, L, T]."""
    score: Score
    """[C, 2]."""
    tried: jax.Array
    """[], how many routes were scored for every cell and half."""


Scorer = Callable[[jax.Array], Score]


def best(score: Score) -> jax.Array:
    """Index, along the last axis, of most right answers, then lowest loss, then first.

    >>> best(Score(jnp.asarray([1, 2, 2, 2]), jnp.asarray([0.0, 3.0, 1.0, 1.0]))).item()
    2
    """
    most = score.right == jnp.max(score.right, axis=-1, keepdims=True)
    # An expert that diverged has no loss; that is still no worse than a wrong answer.
    high = jnp.finfo(score.loss.dtype).max
    loss = jnp.minimum(jnp.nan_to_num(score.loss, nan=high), high)
    return jnp.argmin(jnp.where(most, loss, jnp.inf), axis=-1)


def _of(score: Score, index: jax.Array) -> Score:
    """The scores at ``index`` of the last axis."""
    return Score(
        *(jnp.take_along_axis(x, index[..., None], axis=-1)[..., 0] for x in score)
    )


def climb(
    score: Scorer, starts: jax.Array, values: int, climbers: int, sweeps: jax.Array
) -> Best:
    """Lets the best starts climb, each layer and token in turn, to a local optimum.

    Args:
      score: of routes.
      starts: [C, 2, S, L, T].
      values: number of values V of a layer and token.
      climbers: how many of the starts go on, at most S.
      sweeps: [], over all layers and tokens, at most; ends when one changes nothing.
    """
    cells, halves, count, layers, tokens = starts.shape
    places = layers * tokens
    routes, now = _leaders(score, starts, climbers)

    def change_one(state: tuple[jax.Array, Score], place: jax.Array):
        routes, now = state  # [C, 2, S, L * T] and [C, 2, S]
        mine = jnp.take(routes, place, axis=-1)
        more = jnp.arange(1, values, dtype=mine.dtype).reshape(1, 1, 1, -1)
        other = (mine[..., None] + more) % values  # [C, 2, S, V - 1]
        here = (jnp.arange(places) == place).reshape(1, 1, 1, 1, -1)
        tried = jnp.where(here, other[..., None], routes[:, :, :, None])
        others = score(tried.reshape(cells, halves, -1, layers, tokens))
        scores = Score(
            *(
                jnp.concatenate([x[..., None], y.reshape(other.shape)], axis=-1)
                for x, y in zip(now, others, strict=True)
            )
        )
        index = best(scores)
        chosen = (mine + index.astype(mine.dtype)) % values
        routes = jnp.where(here[0], chosen[..., None], routes)
        return (routes, _of(scores, index)), None

    def sweep(state):
        routes, now, done, _ = state
        after, scores = jax.lax.scan(change_one, (routes, now), jnp.arange(places))[0]
        return after, scores, done + 1, jnp.any(after != routes)

    start = (routes, now, jnp.zeros((), jnp.int32), jnp.asarray(True))
    routes, now, done, _ = jax.lax.while_loop(
        lambda state: state[3] & (state[2] < sweeps), sweep, start
    )
    index = best(now)
    top = jnp.take_along_axis(routes, index[..., None, None], axis=2)
    tried = count + done * places * climbers * (values - 1)
    return Best(top.reshape(cells, halves, layers, tokens), _of(now, index), tried)


def _leaders(score: Scorer, starts: jax.Array, climbers: int):
    """The starts that score best, flat [C, 2, S, L * T], and their scores."""
    now = score(starts)
    flat = starts.reshape(*starts.shape[:3], -1)
    left, chosen = now, []
    for _ in range(climbers):
        index = best(left)
        chosen.append(index)
        gone = jnp.arange(flat.shape[2]).reshape(1, 1, -1) == index[..., None]
        left = Score(jnp.where(gone, -1, left.right), left.loss)
    order = jnp.stack(chosen, axis=-1)
    routes = jnp.take_along_axis(flat, order[..., None], axis=2)
    return routes, Score(*(jnp.take_along_axis(x, order, axis=-1) for x in now))


def nothing(cells: int, layers: int, tokens: int) -> Best:
    """What is known before any route was tried: worse than all of them."""
    lead = (cells, 2)
    return Best(
        jnp.zeros((*lead, layers, tokens), jnp.int32),
        Score(jnp.full(lead, -1, jnp.int32), jnp.zeros(lead, jnp.float32)),
        jnp.zeros((), jnp.int32),
    )


def look(score: Scorer, values: int, size: int, so_far: Best) -> Best:
    """Tries the next ``size`` routes, by number, and keeps the best.

    Args:
      score: of routes.
      values: number of values V of a layer and token.
      size: how many routes are tried in one call.
      so_far: the best; the next number is ``so_far.tried``.
    """
    cells, halves, layers, tokens = so_far.routes.shape
    numbers = so_far.tried + jnp.arange(size, dtype=jnp.int32)
    total = values ** (layers * tokens)
    routes = digits(numbers, values, layers * tokens).reshape(-1, layers, tokens)
    scores = score(jnp.broadcast_to(routes, (cells, halves, *routes.shape)))
    inside = (numbers < total).reshape(1, 1, -1)
    scores = Score(jnp.where(inside, scores.right, -1), scores.loss)
    index = best(scores)
    both = Score(
        *(
            jnp.stack([x, y], axis=-1)
            for x, y in zip(so_far.score, _of(scores, index), strict=True)
        )
    )
    better = best(both)
    new = jnp.take(routes, index, axis=0)
    kept = jnp.where(better[..., None, None] == 1, new, so_far.routes)
    return Best(kept, _of(both, better), jnp.minimum(so_far.tried + size, total))


def digits(numbers: jax.Array, values: int, places: int) -> jax.Array:
    """The digits of numbers [N] in base V, the first place first, [N, places].

    >>> digits(jnp.asarray([0, 5, 8]), 3, 2).tolist()
    [[0, 0], [1, 2], [2, 2]]
    """
    powers = values ** jnp.arange(places - 1, -1, -1, dtype=jnp.int32)
    return (numbers[:, None] // powers[None, :]) % values


def size(values: int, layers: int, tokens: int) -> int:
    """Number of all routes, V^(L T).

    Raises:
      ValueError: if they are too many to be tried one by one.
    """
    total = values ** (layers * tokens)
    if total > MOST:
        raise ValueError(
            f"An exhaustive search would try {values}^({layers} layers x {tokens} "
            f"tokens) = {total:,} routes, expected at most {MOST:,}; set "
            f"oracle_search to local, or lower model.num_layers."
        )
    return total


def random(seed: int, count: int, values: int, layers: int, tokens: int) -> np.ndarray:
    """Random routes [count, L, T]; the same for every library of a seed."""
    draw = np.random.default_rng(seed)
    return draw.integers(values, size=(count, layers, tokens), dtype=np.int32)
