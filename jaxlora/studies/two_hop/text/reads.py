"""What is read to score candidate answers: prompts once, and what follows them.

Letters as in :mod:`.score`. Answers follow side by side as branches of a tree; where a
layer keeps a state of one text, each follows in a row of its own.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxlora import models
from jaxlora.models import Decoder, cache
from jaxlora.models.cache import Cache
from jaxlora.train.step import CHUNK_FLOATS


@functools.partial(jax.jit, static_argnums=0)
def begin(model: Decoder, base, arguments, opening: jax.Array) -> Cache:
    """The cache [1, P] after what all prompts begin with."""
    (p,) = opening.shape
    empty = cache.empty(model.config, 1, p)
    if p == 0:
        return empty
    return models.extend(model, base, opening[None], empty, **arguments)[1]


def _room(model: Decoder, begun: Cache, rows: int, more: int) -> Cache:
    """A cache for prompts [B, ...] and their answers, in which all are begun."""
    p = begun.segments.shape[1]
    room = cache.empty(model.config, rows, p + more)
    wide = jax.tree.map(
        lambda x, y: jnp.broadcast_to(x, y.shape), begun.state, room.state
    )
    return dataclasses.replace(
        room,
        # One row serves all prompts.
        keys=room.keys.at[:, :, :, :p].set(begun.keys),
        values=room.values.at[:, :, :, :p].set(begun.values),
        segments=room.segments.at[:, :p].set(begun.segments),
        start=jnp.int32(p),
        state=wide,
    )


@functools.partial(jax.jit, static_argnums=0)
def start(model: Decoder, base, arguments, begun, tokens, mask, first):
    """Log-probabilities [B, C] of the tokens that answers begin with."""
    started = _room(model, begun, *tokens.shape)
    inputs = models.Inputs(tokens, mask)
    x, _ = models.extend(model, base, inputs, started, **arguments)
    return _first(model, base, arguments, x[:, -1], first)


def _first(model: Decoder, base, arguments, x: jax.Array, first) -> jax.Array:
    scores = models.unembed(model, base, x, arguments.get("adapter"))
    return jax.nn.log_softmax(scores, axis=-1)[:, first]


@functools.partial(jax.jit, static_argnums=(0, 7))
def apart(
    model: Decoder, base, arguments, begun, prompts, first, answers, at_once: int
):
    """As :func:`read`, each answer in a row of its own.

    Returns:
      Log-probabilities of the first tokens [B, C], and of those that follow in answers
      [C, A], [B, C, A - 1].
    """
    (tokens, mask), length = prompts, answers.shape[1] - 1
    b = tokens.shape[0]
    room = _room(model, begun, b, tokens.shape[1] + length)
    inputs = models.Inputs(tokens, mask)
    x, left = models.extend(model, base, inputs, room, **arguments)
    start = _first(model, base, arguments, x[:, -1], first)

    def scored(answer: jax.Array) -> jax.Array:  # [A] after every prompt, [B, A - 1]
        row = jnp.broadcast_to(answer[None, :-1], (b, length))
        x, _ = models.extend(model, base, row, left, **arguments)
        scores = models.unembed(model, base, x, arguments.get("adapter"))
        chosen = jnp.take_along_axis(scores, answer[None, 1:, None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(scores, axis=-1)

    # A large vocabulary's scores of all answers at once would not fit.
    most = max(1, CHUNK_FLOATS // (b * length * model.config.vocab_size))
    each = jax.lax.map(scored, answers, batch_size=min(at_once, most, len(answers)))
    return start, jnp.swapaxes(each, 0, 1)


@functools.partial(jax.jit, static_argnums=0)
def read(
    model: Decoder, base, arguments, begun, tokens, mask, first, *nodes: jax.Array
):
    """Log-probabilities of the first tokens [B, C], and of targets [B, M, K]."""
    (b, t), (branch, depth, sees, targets) = tokens.shape, nodes
    m = branch.shape[0]
    started = _room(model, begun, b, t + m)
    inputs = models.Inputs(
        jnp.concatenate([tokens, jnp.broadcast_to(branch[None], (b, m))], axis=1),
        jnp.concatenate([mask, jnp.ones((b, m), bool)], axis=1),
        positions=started.start + _positions(mask, depth),
        tree=_after(t, sees),
    )
    x, _ = models.extend(model, base, inputs, started, **arguments)
    start = _first(model, base, arguments, x[:, t - 1], first)

    def scored(x: jax.Array) -> jax.Array:  # of one prompt [M, D]
        scores = models.unembed(model, base, x, arguments.get("adapter"))
        chosen = jnp.take_along_axis(scores, targets, axis=-1)
        return chosen - jax.nn.logsumexp(scores, axis=-1, keepdims=True)

    # A large vocabulary's scores of all prompts at once would not fit.
    size = max(1, CHUNK_FLOATS // (m * model.config.vocab_size))
    each = jax.lax.map(scored, x[:, t:], batch_size=min(size, b))
    return start, each


def _positions(mask: jax.Array, depth: jax.Array) -> jax.Array:
    """[B, T + M], counted from the first token of each prompt."""
    counted = jnp.cumsum(mask, axis=1, dtype=jnp.int32)
    after = counted[:, -1:] + depth[None]
    return jnp.concatenate([jnp.maximum(counted - 1, 0), after], axis=1)


def _after(t: int, sees: jax.Array) -> jax.Array:
    """[T + M, T + M]: a prompt as usual, and branches that see it and their own."""
    m = sees.shape[0]
    prompt = jnp.concatenate(
        [jnp.tril(jnp.ones((t, t), bool)), jnp.zeros((t, m), bool)], 1
    )
    return jnp.concatenate([prompt, jnp.concatenate([jnp.ones((m, t), bool), sees], 1)])
