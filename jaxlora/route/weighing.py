"""From scores to weights: which experts stay, and how much each of them counts."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxlora.route.learned import standard

Normalize = Literal["none", "unit", "width", "layer"]
Weighting = Literal["softmax", "unit", "sigmoid"]


class Weighed(NamedTuple):
    """What a gate says of N inputs."""

    weights: jax.Array
    """[N, E] float32, finite; zero for experts that are not live or not kept."""
    nonfinite: jax.Array
    """[N], true where a live expert's score was no number: it was passed over."""


def normalized(x: jax.Array, how: Normalize) -> jax.Array:
    """An input as a gate sees it, [N, D] float32.

    Args:
      x: [N, D].
      how: ``unit`` divides by the norm, ``width`` by the root of D, ``layer`` is layer
        norm without weights over the root of D, ``none`` nothing.

    >>> normalized(jnp.array([[0.0, 4.0]]), "unit").tolist()
    [[0.0, 1.0]]
    """
    x = x.astype(jnp.float32)
    root = float(x.shape[-1]) ** -0.5
    if how == "width":
        return x * root
    if how == "layer":
        return standard(x) * root
    if how == "unit":
        square = jnp.sum(x * x, axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
    return x


def weigh(
    scores: jax.Array,
    live: jax.Array,
    top_k: int | None = None,
    temperature: float = 1.0,
    weighting: Weighting = "softmax",
) -> Weighed:
    """From scores to weights: the best ``top_k`` of the live experts.

    A score that is no number is passed over; where none is left, all live experts
    count as equal. Of equal scores, the first is kept.

    Args:
      scores: [N, E]; higher is better.
      live: [E] bool, experts that may be chosen.
      top_k: how many are kept, 1 to E; None keeps all.
      temperature: divides the scores; positive.
      weighting: softmax of the kept; ``unit``, each with weight 1; or ``sigmoid`` of
        each score by itself.

    >>> weigh(jnp.array([[0.0, 1.0, 1.0]]), jnp.ones(3, bool), 2).weights.tolist()
    [[0.0, 0.5, 0.5]]
    """
    live = jnp.broadcast_to(live[None], scores.shape)
    sound = live & jnp.isfinite(scores)
    lost = ~jnp.any(sound, axis=-1, keepdims=True)
    # Where no score is sound, all live experts count as equal: weights stay finite.
    able = jnp.where(lost, live, sound)
    scores = jnp.where(sound, scores.astype(jnp.float32), 0.0) / temperature
    kept = able & _best(jnp.where(able, scores, -jnp.inf), top_k)
    strayed = jnp.any(live & ~sound, axis=-1)
    if weighting == "unit":
        return Weighed(kept.astype(jnp.float32), strayed)
    if weighting == "sigmoid":
        return Weighed(jnp.where(kept, jax.nn.sigmoid(scores), 0.0), strayed)
    # The peak is taken off by hand: it must carry no gradient, and be finite.
    peak = jnp.max(jnp.where(kept, scores, -jnp.inf), axis=-1, keepdims=True)
    peak = jax.lax.stop_gradient(jnp.where(jnp.isfinite(peak), peak, 0.0))
    # Experts that are not kept stand at the peak: exp must not overflow behind a where.
    share = jnp.where(kept, jnp.exp(jnp.where(kept, scores, peak) - peak), 0.0)
    total = jnp.sum(share, axis=-1, keepdims=True)
    return Weighed(share / jnp.where(total > 0, total, 1.0), strayed)


def _best(scores: jax.Array, top_k: int | None) -> jax.Array:
    experts = scores.shape[-1]
    if top_k is None or top_k >= experts:
        return jnp.ones_like(scores, bool)
    if top_k == 1:
        # Much faster than top_k on XLA:CPU, and the same experts.
        best = jnp.argmax(scores, axis=-1)[:, None]
        return best == jnp.arange(experts)[None]
    _, best = jax.lax.top_k(scores, top_k)
    return jax.nn.one_hot(best, experts, dtype=bool).any(axis=-2)


def one_hot(chosen: Any, experts: int) -> jax.Array:
    """Labels for the oracle from expert numbers; -1 is no expert.

    Args:
      chosen: integers of any shape, -1 to E - 1.
      experts: E.

    Returns:
      [..., E] float32.

    Raises:
      ValueError: if a number names no expert.

    >>> one_hot([0, -1], 2).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    chosen = jnp.asarray(chosen)
    odd = chosen[(chosen < -1) | (chosen >= experts)]
    if odd.size:
        raise ValueError(
            f"An oracle label is {int(odd.ravel()[0])}, which names no expert; "
            f"expected -1 (none) or 0 to {experts - 1}."
        )
    return jax.nn.one_hot(chosen, experts)
