"""Asking a text model: the score of every candidate answer, and greedy text.

Letters: B prompts, T prompt tokens (padded on the left), C candidates, A answer tokens
(padded on the right). A prompt is read once, and what all prompts begin with once for
all of them; of the candidates only what differs is read, see :mod:`.branches`.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import models
from jaxlora.models import Decoder, DecoderConfig, cache
from jaxlora.models.cache import Cache
from jaxlora.parallel import processes
from jaxlora.reuse import Reuse
from jaxlora.studies.two_hop.text import branches
from jaxlora.train.step import CHUNK_FLOATS


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
      concurrent: answers at once, 0 for all.
      per_token: divide by the number of an answer's tokens.
      shared: tokens that all prompts begin with, a chat's system turn say; they are
        read once, as far as they are the same.
    """
    rows = [row[kept] for row, kept in zip(answers.tokens, answers.mask, strict=True)]
    trees = branches.plan(rows, concurrent)
    first = jnp.asarray([row[0] for row in rows])
    opening, cut = _cut(prompts, shared)
    if trees:
        slots = prompts.tokens.shape[1] + len(trees[0].tokens)
        _check_window(who.model.config, slots)
    begun = _begin(who.model, who.base, who.arguments(), jnp.asarray(opening))
    given = (who.model, who.base, who.arguments(), begun)
    out = []
    for part, used in _batches(cut, batch):
        start, total = None, np.zeros((batch, len(rows)))
        for tree in trees:
            nodes = tree.tokens, tree.depth, tree.sees, tree.targets
            start, each = _read(*given, *part, first, *nodes)
            # Several tokens of one candidate may be on one branch.
            scores = processes.host(each).astype(np.float64)[:, *tree.place]
            np.add.at(total.T, tree.candidate, scores.T)
        if start is None:
            start = _start(*given, *part, first)
        out.append((total + processes.host(start).astype(np.float64))[:used])
    total = np.concatenate(out)
    return total / answers.mask.sum(axis=-1)[None] if per_token else total


def _check_window(config: DecoderConfig, slots: int) -> None:
    """Refuses a tree in which a token is further from the prompt than it would be."""
    if any(config.local_layers) and slots > config.window:
        raise ValueError(
            f"Prompt and candidates are {slots} tokens side by side, expected no more "
            f"than the window of the model's local layers, {config.window}; lower "
            f"--ask.candidates-at-once."
        )


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
        written = processes.host((generated.tokens, generated.lengths))
        rows = zip(*written, strict=True)
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


@functools.partial(jax.jit, static_argnums=0)
def _begin(model: Decoder, base, arguments, opening: jax.Array) -> Cache:
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
    return dataclasses.replace(
        room,
        # One row serves all prompts.
        keys=room.keys.at[:, :, :, :p].set(begun.keys),
        values=room.values.at[:, :, :, :p].set(begun.values),
        segments=room.segments.at[:, :p].set(begun.segments),
        start=jnp.int32(p),
    )


@functools.partial(jax.jit, static_argnums=0)
def _start(model: Decoder, base, arguments, begun, tokens, mask, first):
    """Log-probabilities [B, C] of the tokens that answers begin with."""
    started = _room(model, begun, *tokens.shape)
    inputs = models.Inputs(tokens, mask)
    x, _ = models.extend(model, base, inputs, started, **arguments)
    return _first(model, base, arguments, x[:, -1], first)


def _first(model: Decoder, base, arguments, x: jax.Array, first) -> jax.Array:
    scores = models.unembed(model, base, x, arguments.get("adapter"))
    return jax.nn.log_softmax(scores, axis=-1)[:, first]


@functools.partial(jax.jit, static_argnums=0)
def _read(
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
