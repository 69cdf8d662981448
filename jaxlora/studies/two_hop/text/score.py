"""Asking a text model: the score of every candidate answer, and greedy text.

Letters: B prompts, T prompt tokens (padded on the left), C candidates, A answer tokens
(padded on the right). A prompt is read once, and what all prompts begin with once for
all of them; of the candidates only what differs is read, see :mod:`.branches`.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlora import models
from jaxlora.models import DecoderConfig
from jaxlora.parallel import processes
from jaxlora.reuse import Reuse
from jaxlora.studies.two_hop.text import branches, reads

AT_ONCE = 8
"""Answers in rows of their own, each with a cache, where no number is asked for."""


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
    # A state of linear attention is of one text: no branches side by side.
    apart = who.model.config.delta is not None and answers.tokens.shape[1] > 1
    trees = [] if apart else branches.plan(rows, concurrent)
    first = jnp.asarray([row[0] for row in rows])
    opening, cut = _cut(prompts, shared)
    if trees:
        slots = prompts.tokens.shape[1] + len(trees[0].tokens)
        _check_window(who.model.config, slots)
    begun = reads.begin(who.model, who.base, who.arguments(), jnp.asarray(opening))
    given = (who.model, who.base, who.arguments(), begun)
    out = []
    for part, used in _batches(cut, batch):
        start, total = None, np.zeros((batch, len(rows)))
        for tree in trees:
            nodes = tree.tokens, tree.depth, tree.sees, tree.targets
            start, each = reads.read(*given, *part, first, *nodes)
            # Several tokens of one candidate may be on one branch.
            scores = processes.host(each).astype(np.float64)[:, *tree.place]
            np.add.at(total.T, tree.candidate, scores.T)
        if apart:
            read = *given, part, first, answers.tokens, concurrent or AT_ONCE
            start, each = reads.apart(*read)
            scores = processes.host(each).astype(np.float64)
            total += np.where(answers.mask[:, 1:], scores, 0.0).sum(axis=-1)
        if start is None:
            start = reads.start(*given, *part, first)
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
