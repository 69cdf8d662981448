"""Asking a text model: the score of every candidate answer, and greedy text.

Letters: B prompts, T prompt tokens (padded on the left), C candidates, A answer tokens
(padded on the right). A prompt is read once, and what all prompts begin with once for
all of them; of the candidates only what differs is read, see :mod:`.paths`.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import models
from jaxlora.models import Decoder, cache
from jaxlora.models.cache import Cache
from jaxlora.reuse import Reuse
from jaxlora.studies.two_hop.text import paths
from jaxlora.studies.two_hop.text.paths import Paths


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
    mask = np.arange(length) < np.array([len(row) for row in ids])[:, None]
    return Candidates(np.array(rows, np.int32), mask)


def ranking(
    who: Reuse,
    prompts: Prompts,
    answers: Candidates,
    batch: int,
    concurrent: int,
    per_token: bool = False,
    shared: int = 0,
) -> np.ndarray:
    """Returns the log-probability of every answer after every prompt, [N, C] in nats.

    Args:
      who: base and adapters that answer.
      prompts: [N, T].
      answers: [C, A], the same for all prompts.
      batch: prompts at once; the last batch is filled up, so that one program serves.
      concurrent: paths of answers at once.
      per_token: divide by the number of an answer's tokens.
      shared: tokens that all prompts begin with, a chat's system turn say; they are
        read once, as far as they are the same.
    """
    rows = [row[kept] for row, kept in zip(answers.tokens, answers.mask, strict=True)]
    followed = paths.plan(rows, concurrent)
    first = jnp.asarray([row[0] for row in rows])
    opening, cut = _cut(prompts, shared)
    # As long as any answer of the study, so that groups share one program.
    longest = answers.tokens.shape[1] - 1
    read = functools.partial(_read, who.model, longest, who.base)
    begun = _begin(who.model, who.base, who.arguments(), jnp.asarray(opening))
    out = []
    for part, used in _batches(cut, batch):
        past, scores = read(who.arguments(), begun, *part, first)
        total = np.array(scores, np.float64)
        for some in followed.values():
            each = _follow_all(who, past, some, concurrent)
            # Several tokens of one candidate may lie on one path.
            np.add.at(total.T, some.candidate, each.T)
        out.append(total[:used])
    total = np.concatenate(out)
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


def _cut(prompts: Prompts, shared: int) -> tuple[np.ndarray, Prompts]:
    """What all prompts begin with, [P], and the rest of them, [N, T - P]."""
    tokens, mask = prompts
    length = tokens.shape[1]
    sizes = mask.sum(axis=1)
    most = max(0, min(shared, int(sizes.min()) - 1))  # one token at least must be left
    places = (length - sizes)[:, None] + np.arange(most)
    begin = np.take_along_axis(tokens, places, axis=1)
    alike = (begin == begin[:1]).all(axis=0)
    p = most if alike.all() else int(alike.argmin())
    kept = np.arange(p, length) >= (length - sizes)[:, None] + p
    return begin[0, :p], Prompts(tokens[:, p:], kept)


def _follow_all(who: Reuse, past: Cache, some: Paths, size: int) -> np.ndarray:
    """Log-probabilities [B, n] of the tokens that are scored along some paths."""
    parts = [
        np.asarray(
            _follow(
                who.model,
                who.base,
                who.arguments(),
                past,
                jnp.asarray(some.tokens[start : start + size]),
                jnp.asarray(some.targets[start : start + size]),
            ),
            np.float64,
        )
        for start in range(0, len(some.tokens), size)
    ]
    path, depth, choice = some.place
    return np.concatenate(parts, axis=1)[:, path, depth, choice]


@functools.partial(jax.jit, static_argnums=0)
def _begin(model: Decoder, base, arguments, opening: jax.Array) -> Cache:
    """The cache [1, P] after what all prompts begin with."""
    (p,) = opening.shape
    empty = cache.empty(model.config, 1, p)
    if p == 0:
        return empty
    return models.extend(model, base, opening[None], empty, **arguments)[1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _read(model: Decoder, longest: int, base, arguments, begun, tokens, mask, first):
    """The cache after prompts [B, T], and log-probabilities [B, C] of what follows."""
    (b, t), p = tokens.shape, begun.segments.shape[1]
    room = cache.empty(model.config, b, p + t + longest)
    started = dataclasses.replace(
        room,
        # One row serves all prompts.
        keys=room.keys.at[:, :, :, :p].set(begun.keys),
        values=room.values.at[:, :, :, :p].set(begun.values),
        segments=room.segments.at[:, :p].set(begun.segments),
        start=jnp.int32(p),
    )
    inputs = models.Inputs(tokens, mask)
    x, past = models.extend(model, base, inputs, started, **arguments)
    scores = jax.nn.log_softmax(models.unembed(model, base, x[:, -1]), axis=-1)
    return past, scores[:, first]


@functools.partial(jax.jit, static_argnums=0)
def _follow(model: Decoder, base, arguments, past: Cache, tokens, targets):
    """Log-probability of targets [N, K, M] along paths [N, K]: [B, N, K, M]."""
    b = past.segments.shape[0]

    def follow(path: jax.Array, wanted: jax.Array) -> jax.Array:
        rows = jnp.broadcast_to(path[None], (b, *path.shape))
        x, _ = models.extend(model, base, rows, past, **arguments)
        scores = models.unembed(model, base, x)
        wanted = jnp.broadcast_to(wanted[None], (b, *wanted.shape))
        chosen = jnp.take_along_axis(scores, wanted, axis=-1)
        return chosen - jax.nn.logsumexp(scores, axis=-1, keepdims=True)

    return jnp.moveaxis(jax.vmap(follow)(tokens, targets), 0, 1)
