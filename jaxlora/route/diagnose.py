"""What a route chose: entropy, load, switches, and agreement with an oracle.

Pure functions on gate weights, which ``models.routes`` gives for every site as
``[L, B, T, E]``; any leading axes do, and everything works under ``jit`` and ``vmap``.
A weight that is no number counts as zero, and so does a negative one, but for the mean
weight of :func:`load`. A token without a weight above zero has no expert: its entropy
is 0, and its top expert is ``NONE``.

>>> weights = jnp.array([[[[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]]]])  # [L, B, T, E]
>>> top(weights).tolist()
[[[0, 0, -1]]]
>>> entropy(weights, relative=True).tolist()
[[[0.0, 1.0, 0.0]]]
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

NONE = -1
"""In place of an expert's number, where there is no expert."""


class Load(NamedTuple):
    """How much each expert is used; sums over E are below 1 where tokens have none."""

    weight: jax.Array
    """[..., E], mean weight over the tokens, of either sign."""
    top: jax.Array
    """[..., E], the share of tokens whose largest weight it is."""


class Matches(NamedTuple):
    """Token by token: is the top expert the oracle's?"""

    hit: jax.Array
    """[..., B, T] bool; false where nothing is asked."""
    asked: jax.Array
    """[..., B, T] bool: the labels name an expert."""


def shares(weights: jax.Array) -> jax.Array:
    """Weights over their sum: ``p_e = w_e / sum_f w_f``, float32.

    What is negative or no number counts as zero, and so does all of a token without
    experts. An infinite weight counts as no number.

    Args:
      weights: [..., E].

    >>> shares(jnp.array([[2.0, 6.0], [0.0, jnp.nan]])).tolist()
    [[0.25, 0.75], [0.0, 0.0]]
    """
    positive = _positive(weights)
    total = jnp.sum(positive, axis=-1, keepdims=True)
    return positive / jnp.where(total > 0, total, 1.0)


def top(weights: jax.Array) -> jax.Array:
    """The expert of the largest weight, as integers [...].

    Of equal weights, the first; ``NONE`` where there is no weight above zero.

    Args:
      weights: [..., E].
    """
    positive = _positive(weights)
    best = jnp.argmax(positive, axis=-1)
    return jnp.where(jnp.max(positive, axis=-1) > 0, best, NONE)


def entropy(
    weights: jax.Array, *, live: jax.Array | None = None, relative: bool = False
) -> jax.Array:
    """Entropy in nats: ``H = -sum_e p_e ln p_e`` with p the shares of the weights.

    Args:
      weights: [..., E].
      live: [..., E] bool that broadcasts to the weights: experts that could be chosen;
        by default all E. Weights of others count as zero.
      relative: divide by ``ln`` of the number of live experts: 1 is no preference, 0 is
        certainty; 0 where fewer than two are live.

    Returns:
      [...], 0 for a token without an expert.

    >>> float(entropy(jnp.array([0.5, 0.5, 0.0])) / jnp.log(2.0))
    1.0
    """
    if live is None:
        live = jnp.ones(weights.shape[-1], bool)
    live = jnp.broadcast_to(_ranked(live, weights.ndim), weights.shape)
    p = shares(jnp.where(live, weights, jnp.zeros_like(weights)))
    nats = -jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1.0)), axis=-1)
    nats = jnp.maximum(nats, 0.0)  # and not -0
    if not relative:
        return nats
    # ln 1 = 0: a single live expert leaves no choice, and no entropy.
    most = jnp.log(jnp.maximum(jnp.sum(live, axis=-1), 1).astype(jnp.float32))
    return jnp.minimum(jnp.where(most > 0, nats / jnp.where(most > 0, most, 1.0), 0), 1)


def effective(weights: jax.Array) -> jax.Array:
    """How many experts as good as share the weight: ``exp(H)``, from 1 to E.

    Args:
      weights: of a token, [..., E]; or of a load: then, how many are used at all.

    Returns:
      [...], 0 where there is no expert.

    >>> effective(jnp.array([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])).tolist()
    [2.0, 0.0]
    """
    return jnp.where(top(weights) == NONE, 0.0, jnp.exp(entropy(weights)))


def load(weights: jax.Array, mask: jax.Array | None = None) -> Load:
    """How the tokens fall to the experts, for every layer.

    ``weight_e = mean over tokens of w_e``, ``top_e = mean of [top = e]``, over the
    tokens that count; 0 if none does.

    Args:
      weights: [..., B, T, E].
      mask: [B, T], true where a token counts; by default everywhere.

    Returns:
      Arrays [..., E].

    >>> used = load(jnp.array([[[0.9, 0.1], [0.2, 0.8]]]), jnp.array([[True, False]]))
    >>> used.top.tolist()
    [1.0, 0.0]
    """
    mask = _mask(weights, mask)
    counts = jnp.maximum(jnp.sum(mask), 1).astype(jnp.float32)
    chosen = jax.nn.one_hot(top(weights), weights.shape[-1], dtype=jnp.float32)

    def mean(values: jax.Array) -> jax.Array:
        kept = jnp.where(_ranked(mask[..., None], values.ndim), values, 0.0)
        return jnp.sum(kept, axis=(-3, -2)) / counts

    return Load(mean(_finite(weights)), mean(chosen))


def switches(weights: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Where the top expert is another than at the token before.

    Args:
      weights: [..., B, T, E].
      mask: [B, T], true where a token counts; padding does not.

    Returns:
      [..., B, T] bool; false at the first token, and where this token or the one before
      does not count or has no expert.

    >>> switches(jnp.eye(2)[jnp.array([[0, 0, 1]])]).tolist()
    [[False, False, True]]
    """
    best = top(weights)
    fine = (best != NONE) & _ranked(_mask(weights, mask), best.ndim)
    moved = (best[..., 1:] != best[..., :-1]) & fine[..., 1:] & fine[..., :-1]
    return jnp.concatenate([jnp.zeros_like(fine[..., :1]), moved], axis=-1)


def matches(weights: jax.Array, labels: jax.Array) -> Matches:
    """Is the top expert one that the oracle would take?

    A hit has the largest label of its token; labels may name several, as equals. A
    token without an expert is a miss.

    Args:
      weights: [..., B, T, E].
      labels: the oracle's weights, as in ``models.apply``: of the same shape, [B, T, E]
        for all layers, or [B, E] for all their tokens; ``route.one_hot`` makes them.

    Returns:
      Arrays [..., B, T].

    Raises:
      ValueError: if the labels do not fit the weights.

    >>> weights = jnp.array([[[0.9, 0.1], [0.9, 0.1]]])
    >>> both = matches(weights, jnp.array([[[0.0, 1.0], [0.0, 0.0]]]))
    >>> both.hit.tolist(), both.asked.tolist()
    ([[False, False]], [[True, False]])
    """
    best = top(weights)
    wanted = _positive(_labels(weights, labels))
    asked = jnp.max(wanted, axis=-1) > 0
    good = wanted == jnp.max(wanted, axis=-1, keepdims=True)
    at = jnp.maximum(best, 0)[..., None]
    hit = jnp.take_along_axis(good, at, axis=-1)[..., 0]
    return Matches(hit & asked & (best != NONE), asked)


def agreement(
    weights: jax.Array, labels: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """The share of tokens whose top expert is the oracle's, for every layer.

    Args:
      weights: [..., B, T, E].
      labels: the oracle's weights, of the same shape, [B, T, E] for all layers, or
        [B, E] for all their tokens; a row of zeros asks for nothing, and is left out.
      mask: [B, T], true where a token counts.

    Returns:
      [...]; NaN where no token is asked.

    >>> weights = jnp.array([[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]])
    >>> float(agreement(weights, jnp.array([[[1.0, 0], [1, 0], [0, 0]]])))
    0.5
    """
    both = matches(weights, labels)
    asked = both.asked & _ranked(_mask(weights, mask), both.asked.ndim)
    of = jnp.sum(asked, axis=(-2, -1)).astype(jnp.float32)
    hits = jnp.sum(both.hit & asked, axis=(-2, -1)).astype(jnp.float32)
    return jnp.where(of > 0, hits / jnp.where(of > 0, of, 1.0), jnp.nan)


def _positive(weights: jax.Array) -> jax.Array:
    return jnp.maximum(_finite(weights), 0.0)


def _finite(weights: jax.Array) -> jax.Array:
    weights = jnp.asarray(weights, jnp.float32)
    return jnp.where(jnp.isfinite(weights), weights, 0.0)


def _ranked(array: jax.Array, ndim: int) -> jax.Array:
    """With leading axes of length 1, so that ranks agree."""
    return array.reshape((1,) * (ndim - array.ndim) + array.shape)


def _mask(weights: jax.Array, mask: jax.Array | None) -> jax.Array:
    wanted = weights.shape[-3:-1]
    if weights.ndim < 3 or (mask is not None and mask.shape != wanted):
        got = "no mask" if mask is None else f"a mask {list(mask.shape)}"
        raise ValueError(
            f"Got weights of shape {list(weights.shape)} and {got}, expected weights "
            f"[..., B, T, E] and a mask [B, T]."
        )
    return jnp.ones(wanted, bool) if mask is None else mask


def _labels(weights: jax.Array, labels: jax.Array) -> jax.Array:
    shape, got = weights.shape, labels.shape
    tail = shape[-3:-2] + shape[-1:] if len(got) == 2 else shape[-len(got) :]
    if len(shape) < 3 or len(got) < 2 or got != tail:
        raise ValueError(
            f"Got oracle labels {list(got)} for weights {list(shape)}, expected "
            f"weights [..., B, T, E] and labels of that shape, [B, T, E] or [B, E]."
        )
    spread = labels[:, None] if len(got) == 2 else labels
    return jnp.broadcast_to(_ranked(spread, weights.ndim), shape)
