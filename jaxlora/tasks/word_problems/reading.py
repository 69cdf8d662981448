"""Solutions in symbols, read back from tokens step by step."""

import numpy as np

from jaxlora.tasks.word_problems import graph
from jaxlora.tasks.word_problems.graph import NO_STEP, Problems
from jaxlora.tasks.word_problems.symbols import UNREAD, Rows
from jaxlora.tasks.word_problems.vocab import Vocab, prompt_length


def steps(tokens: np.ndarray, formats: np.ndarray | int, vocab: Vocab) -> np.ndarray:
    """Reads the steps of written solutions, each in its template.

    Args:
      tokens: int [N, T], what follows EQ; what follows END is not read.
      formats: int [N], or one for all, as in :func:`.symbols.render`.
      vocab: gives the ids.

    Returns:
      int [N, S, 3] for S = T // 3: operation, operand and result, as
      :func:`.symbols.steps` gives them; -1 where the token is none of these, or stands
      in another place than the template's.
    """
    formats = np.broadcast_to(formats, (len(tokens),))
    n = tokens.shape[1] // 3
    written = np.where(_before_end(tokens, vocab), tokens, vocab.pad)[:, : 3 * n]
    places, first_word = vocab.layout(formats)
    triples = np.take_along_axis(written.reshape(-1, n, 3), places[:, None], axis=2)
    operation = triples[..., 0] - first_word[:, None]
    is_word = (operation >= 0) & (operation < vocab.operations.count)
    operand, result = np.moveaxis(
        triples[..., 1:] - vocab.first_number(formats)[:, None, None], 2, 0
    )
    parsed = np.stack([operation, operand, result], axis=2)
    numbers = (operand >= 0) & (operand <= vocab.blank)
    results = (result >= 0) & (result < vocab.blank)
    fits = (
        np.stack([is_word, numbers, results], axis=2)
        & (formats != vocab.answer_only)[:, None, None]
    )
    return np.where(fits, parsed, UNREAD)


def answers(tokens: np.ndarray, formats: np.ndarray | int, vocab: Vocab) -> np.ndarray:
    """Returns int [N], the answers of written solutions; -1 where there is none.

    It is the result in the last step before END, and nothing if there is no END.

    Args:
      tokens: int [N, T], what follows EQ.
      formats: int [N], or one for all, as in :func:`.symbols.render`.
      vocab: gives the ids.
    """
    formats = np.broadcast_to(formats, (len(tokens),))
    before = _before_end(tokens, vocab).sum(axis=1)
    result = vocab.layout(formats)[0][:, 2]
    where = np.where(formats == vocab.answer_only, 0, before - 3 + result)
    answer = np.take_along_axis(tokens, np.maximum(where, 0)[:, None], axis=1)[:, 0]
    answer = answer - vocab.first_number(formats)
    size = np.where(formats == vocab.answer_only, before == 1, before % 3 == 0)
    ended = size & (before < tokens.shape[1])
    is_number = (answer >= 0) & (answer < vocab.blank)
    return np.where(ended & is_number, answer, UNREAD)


def _before_end(tokens: np.ndarray, vocab: Vocab) -> np.ndarray:
    return np.cumsum(tokens == vocab.end, axis=1) == 0


def prompts(tokens: np.ndarray, lengths: np.ndarray, vocab: Vocab) -> Problems:
    """Reads the prompts of rows and solves them again.

    Args:
      tokens: int [N, T], rows or prompts.
      lengths: int [N], tokens up to EQ.
      vocab: gives the ids.

    Returns:
      N chains with the steps of the longest, as :func:`.graph.chains` makes them.

    Raises:
      ValueError: if a prompt is none.
    """
    levels = (lengths - prompt_length(0)) // 2
    steps = int(levels.max()) if len(levels) else 0
    pairs = tokens[:, 2 : 2 + 2 * steps].reshape(len(tokens), steps, 2)
    used = np.arange(steps) < levels[:, None]
    ids = np.where(used, pairs[..., 0] - vocab.prompt_words, NO_STEP)
    numbers = np.where(used & (pairs[..., 1] != vocab.blank), pairs[..., 1], 0)
    return graph.chains(vocab.operations, ids, tokens[:, 1], numbers)


def solutions(rows: Rows, width: int, vocab: Vocab) -> np.ndarray:
    """Returns int [N, width], what follows EQ in rows, padded.

    Args:
      rows: as :func:`.symbols.render` makes them.
      width: tokens of the longest solution, END included; 3 a step and 1.
      vocab: gives the padding.
    """
    where = rows.prompt_lengths[:, None] - 1 + np.arange(width)
    padded = np.pad(rows.targets, ((0, 0), (0, width)), constant_values=vocab.pad)
    return np.take_along_axis(padded, where, axis=1)
