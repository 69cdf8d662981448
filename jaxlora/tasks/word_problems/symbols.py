"""Chains as tokens, one an idea.

A row is ``format x op n op n ... EQ``, then its solution: three tokens a step in the
order of a template, or the answer alone, and END. Prompts are the same in every
template but for the first token, which names it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlora.tasks.word_problems import graph
from jaxlora.tasks.word_problems.graph import NO_STEP, Problems
from jaxlora.tasks.word_problems.vocab import Vocab, prompt_length, row_length

UNREAD = -1
"""What stands for a token that a template does not expect where it is."""


class Rows(NamedTuple):
    """N rows of T tokens; targets are the next tokens, padding outside solutions."""

    tokens: np.ndarray
    """int32 [N, T]."""
    targets: np.ndarray
    """int32 [N, T]."""
    weights: np.ndarray
    """float32 [N, T]: 1 on solutions, END included."""
    prompt_lengths: np.ndarray
    """int [N]: tokens up to EQ; the first target of weight 1 is at this less 1."""


def render(
    problems: Problems,
    formats: np.ndarray | int,
    vocab: Vocab,
    length: int,
    untrained: Sequence[int] | np.ndarray = (),
) -> Rows:
    """Renders chains as rows of a language model.

    Args:
      problems: N chains.
      formats: int [N], or one for all: the number of a template of the vocabulary, or
        ``vocab.answer_only``.
      vocab: gives the ids.
      length: T, at least ``row_length`` of the highest level.
      untrained: ids of operations whose results get weight 0, and answers that depend
        on them; for problems from :func:`.graph.blind`.

    Raises:
      ValueError: if a problem is no chain, a format unknown or a row too long.

    >>> from jaxlora.tasks.word_problems import operations
    >>> from jaxlora.tasks.word_problems.templates import S
    >>> vocab = Vocab(operations.modular(13))
    >>> add = graph.chains(vocab.operations, np.array([[0]]), [9], np.array([[6]]))
    >>> rows = render(add, vocab.number(S), vocab, row_length(1))
    >>> " ".join(vocab.words[i] for i in rows.tokens[0])
    '<words0/operator-first/after> 9 add 6 = add/0 6 2'
    """
    formats = np.broadcast_to(formats, (len(problems),))
    _check(problems, formats, vocab, length)
    lengths = prompt_length(problems.levels)
    # The last column takes what a row does not have; it is cut off.
    text = np.full((len(problems), length + 2), vocab.pad, np.int32)
    weights = np.zeros(text.shape, np.float32)
    _write_prompts(text, problems, formats, vocab)
    hidden = np.isin(problems.operations, untrained)
    _write_steps(text, weights, problems, formats, vocab, hidden)
    _write_ends(text, weights, problems, formats, vocab, hidden)
    tokens = text[:, :length].copy()
    tokens[tokens == vocab.end] = vocab.pad  # nothing follows an end
    trained = np.arange(1, length + 1) >= lengths[:, None]
    targets = np.where(trained, text[:, 1 : length + 1], vocab.pad).astype(np.int32)
    return Rows(tokens, targets, weights[:, 1 : length + 1], lengths)


def steps(problems: Problems, vocab: Vocab) -> np.ndarray:
    """Returns int [N, S, 3]: operation, operand and result of each solution step.

    What :func:`.reading.steps` gives for a right solution: the operand of a unary
    operation is ``vocab.blank``, and padding is -1.

    Args:
      problems: N chains of at most S steps.
      vocab: gives the blank.
    """
    used = np.arange(problems.steps) < problems.levels[:, None]
    table = np.stack([problems.operations, _given(problems, vocab), problems.results])
    return np.where(used, table, UNREAD).transpose(1, 2, 0)


def _write_prompts(text, problems: Problems, formats, vocab: Vocab) -> None:
    text[:, 0], text[:, 1] = vocab.formats + formats, problems.start
    step = np.arange(problems.steps)
    waste = text.shape[1] - 1
    where = np.where(step < problems.levels[:, None], 2 + 2 * step, waste)
    words = vocab.prompt_words + problems.operations
    np.put_along_axis(text, where, words.astype(np.int32), axis=1)
    where = np.minimum(where + 1, waste)
    np.put_along_axis(text, where, _given(problems, vocab).astype(np.int32), axis=1)
    text[np.arange(len(text)), 2 + 2 * problems.levels] = vocab.eq


def _write_steps(text, weights, problems: Problems, formats, vocab, hidden) -> None:
    places, first_word = vocab.layout(formats)
    step = np.arange(problems.steps)
    start = prompt_length(problems.levels)[:, None] + 3 * step
    used = (step < problems.levels[:, None]) & (formats != vocab.answer_only)[:, None]
    words = first_word[:, None] + problems.operations
    numbers = vocab.first_number(formats)[:, None]
    given = numbers + _given(problems, vocab)
    values = (words, given, numbers + problems.results)
    for i, value in enumerate(values):
        where = np.where(used, start + places[:, i, None], text.shape[1] - 1)
        np.put_along_axis(text, where, value.astype(np.int32), axis=1)
        weight = 1 - hidden if i == 2 else np.ones(hidden.shape)
        np.put_along_axis(weights, where, weight.astype(np.float32), axis=1)


def _write_ends(text, weights, problems: Problems, formats, vocab, hidden) -> None:
    row, start = np.arange(len(text)), prompt_length(problems.levels)
    direct = formats == vocab.answer_only
    text[row[direct], start[direct]] = graph.answers(problems)[direct]
    weights[row[direct], start[direct]] = ~hidden[direct].any(axis=1)
    end = start + np.where(direct, 1, 3 * problems.levels)
    text[row, end], weights[row, end] = vocab.end, 1.0


def _given(problems: Problems, vocab: Vocab) -> np.ndarray:
    """The right operand of each step as a token."""
    unary = vocab.operations.unary[np.maximum(problems.operations, 0)]
    return np.where(unary, vocab.blank, problems.numbers[:, 1::2])


def _check(problems: Problems, formats, vocab: Vocab, length: int) -> None:
    if not graph.are_chains(problems).all():
        row = int(np.argmin(graph.are_chains(problems)))
        raise ValueError(
            f"Problem {row} is no chain, or has a clause that does not matter; symbols "
            f"say chains only, English says every graph."
        )
    if not np.isin(formats, np.arange(vocab.answer_only + 1)).all():
        have = ", ".join(f"{i} {t.name}" for i, t in enumerate(vocab.templates))
        raise ValueError(
            f"Got formats {np.unique(formats).tolist()}, expected {have} or "
            f"{vocab.answer_only} answer only."
        )
    most = max((int(problems.levels.max()) if len(problems) else 0), 0)
    needed = row_length(most)
    if len(problems) and needed > length:
        raise ValueError(
            f"A chain of {most} operations has rows of {needed} tokens, expected at "
            f"most length, {length}."
        )
    if (problems.operations[:, :1] == NO_STEP).any():
        raise ValueError("A problem has no operation, expected at least one.")
