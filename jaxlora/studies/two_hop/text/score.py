"""Asking a text model: the score of every candidate answer, and greedy text.

Letters: B prompts, T prompt tokens (padded on the left), C candidates, A answer tokens
(padded on the right). A prompt is read once; its keys and values serve all candidates,
so that C candidates cost C times their own few tokens and not C whole sequences, as
they would by :mod:`jaxlora.evaluate.likelihood`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import models
from jaxlora.models import Decoder, cache
from jaxlora.reuse import Reuse


class Prompts(NamedTuple):
    """Prompts as token ids; host arrays."""

    tokens: np.ndarray
    """[B, T], padded on the left."""
    mask: np.ndarray
    """[B, T], false at padding."""


class Candidates(NamedTuple):
    """Answers as token ids; host arrays."""

    tokens: np.ndarray
    """[C, A], padded on the right."""
    mask: np.ndarray
    """[C, A], false at padding."""


def right(ids: list[list[int]], length: int, pad: int) -> Candidates:
    """Pads answers on the right.

    Args:
      ids: tokens of each answer.
      length: of a row.
      pad: token that fills rows.

    >>> right([[5], [6, 7]], 2, 0).mask.tolist()
    [[True, False], [True, True]]
    """
    rows = [list(row) + [pad] * (length - len(row)) for row in ids]
    mask = [[True] * len(row) + [False] * (length - len(row)) for row in ids]
    return Candidates(np.array(rows, np.int32), np.array(mask, bool))


def ranking(
    who: Reuse,
    prompts: Prompts,
    answers: Candidates,
    batch: int,
    concurrent: int,
    per_token: bool = False,
) -> np.ndarray:
    """Returns the log-probability of every answer after every prompt, [N, C] in nats.

    Args:
      who: base and adapters that answer.
      prompts: [N, T].
      answers: [C, A], the same for all prompts.
      batch: prompts at once; the last batch is filled up, so that one program serves.
      concurrent: answers at once.
      per_token: divide by the number of an answer's tokens.
    """
    size, tokens = min(concurrent, len(answers.tokens)), jnp.asarray(answers.tokens)
    out = []
    for part, used in _batches(prompts, batch):
        scores = _scores(who.model, size, who.base, who.arguments(), *part, tokens)
        out.append(np.asarray(scores, np.float64)[:used])
    each = np.concatenate(out)
    total = np.where(answers.mask[None], each, 0.0).sum(axis=-1)
    return total / answers.mask.sum(axis=-1)[None] if per_token else total


def text(
    who: Reuse,
    prompts: Prompts,
    batch: int,
    new_tokens: int,
    stop: tuple[int, ...],
    pad: int,
) -> list[list[int]]:
    """Returns the greedily chosen tokens after each prompt, without the stop token.

    Args:
      who: base and adapters that answer.
      prompts: [N, T].
      batch: prompts at once.
      new_tokens: at most.
      stop: tokens that end an answer.
      pad: token that fills rows.
    """
    out: list[list[int]] = []
    for (tokens, mask), used in _batches(prompts, batch):
        generated = models.generate(
            who.model,
            who.base,
            models.Inputs(jnp.asarray(tokens), jnp.asarray(mask)),
            models.Decoding(new_tokens, stop=stop, pad=pad),
            **who.arguments(),
        )
        rows = zip(
            np.asarray(generated.tokens), np.asarray(generated.lengths), strict=True
        )
        texts = [row[:n].tolist() for row, n in rows]
        out += [[i for i in text if i not in stop] for text in texts[:used]]
    return out


def _batches(prompts: Prompts, batch: int):
    """Yields prompts of B rows, the last filled up with its last row."""
    n = len(prompts.tokens)
    for start in range(0, n, batch):
        used = min(batch, n - start)
        rows = np.minimum(np.arange(start, start + batch), n - 1)
        yield Prompts(prompts.tokens[rows], prompts.mask[rows]), used


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scores(model: Decoder, size: int, base, arguments, tokens, mask, answers):
    """Log-probability of every token of every answer, [B, C, A]."""
    (b, t), (_, a) = tokens.shape, answers.shape
    empty = cache.empty(model.config, b, t + a)
    extend = functools.partial(models.extend, model, base, **arguments)
    read, past = extend(models.Inputs(tokens, mask), empty)

    def candidate(answer: jax.Array) -> jax.Array:
        rows = jnp.broadcast_to(answer[None], (b, a))
        x, _ = extend(rows, past)
        # A token is predicted where the one before it was read.
        before = jnp.concatenate([read[:, -1:], x[:, :-1]], axis=1)
        scores = models.unembed(model, base, before)
        chosen = jnp.take_along_axis(scores, rows[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(scores, axis=-1)

    return jnp.moveaxis(jax.lax.map(candidate, answers, batch_size=size), 0, 1)
