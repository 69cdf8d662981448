"""Prompts continued as text, in batches of similar length.

A decoder stops at token ids, a task often at strings, which may start anywhere in a
token. A row therefore ends at every token whose text holds one of the strings, and the
text is cut at the first of them afterwards: that saves steps, and never changes a text.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxlora import models, parallel
from jaxlora.models import padding
from jaxlora.models import tokenizer as tokenizers
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.names import check_several
from jaxlora.parallel import processes
from jaxlora.reuse.calls import check_finite
from jaxlora.reuse.reuse import Reuse
from jaxlora.tasks import text
from jaxlora.tasks.text import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDecoding:
    """How texts are continued."""

    max_new_tokens: int
    """At most; fewer where the model's context ends before."""
    temperature: float = 0.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int = 0
    """Sample among the most likely tokens only; 0 keeps all."""
    top_p: float = 1.0
    """Sample among the most likely tokens that together reach this probability."""
    until: tuple[str, ...] = ()
    """The text ends before the first of these."""
    thought: str | None = None
    """What ends the thoughts of a reasoning model; text up to the last is dropped."""

    def __post_init__(self):
        check_several("until", self.until)


class Continuation(NamedTuple):
    """What a model wrote after one prompt."""

    text: str
    """Without special tokens."""
    tokens: int
    """How many, the end token included."""
    ended: bool
    """Did it write an end token or mark? If not, a string or the limit ended it."""


class Batching(NamedTuple):
    """Which prompts are continued at once."""

    size: int = 16
    """Rows of a batch at most."""
    fixed: bool = False
    """Should every batch have ``size`` rows of one padded length, the longest first?
    Then memory runs out at the start or never, and other prompts of these lengths
    compile nothing. By default there are as few batches as can be."""


def continuations(
    reuse: Reuse,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    how: TextDecoding,
    *,
    batch: int,
    key: jax.Array | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Continuation]:
    """Continues every prompt until an end token, a string, or the limit.

    Args:
      reuse: the model and what it runs with.
      tokenizer: of the model.
      prompts: token ids, one list a prompt; none empty, or as long as the context.
      how: where texts end, and how tokens are chosen.
      batch: prompts at once; a last, smaller batch is filled up.
      key: PRNG key, if the temperature is not 0.
      progress: called with the number of prompts that are done.

    Returns:
      One continuation a prompt, in their order.

    Raises:
      ValueError: if a prompt is empty, or fills the model's context.
    """
    done: dict[int, Continuation] = {}
    for part in in_batches(reuse, tokenizer, prompts, how, Batching(batch), key=key):
        done |= part
        progress(len(done))
    return [done[row] for row in range(len(prompts))]


def in_batches(
    reuse: Reuse,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    how: TextDecoding,
    batching: Batching,
    *,
    key: jax.Array | None = None,
) -> Iterator[dict[int, Continuation]]:
    """Yields the continuations of one batch after another, by the prompts' indices.

    Args:
      reuse: the model and what it runs with.
      tokenizer: of the model.
      prompts: token ids, one list a prompt; none empty, or as long as the context.
      how: where texts end, and how tokens are chosen.
      batching: which prompts are continued at once.
      key: PRNG key, if the temperature is not 0; folded with the number of the batch.

    Raises:
      ValueError: if a prompt is empty, or fills the model's context.
    """
    limits = [min(how.max_new_tokens, _room(reuse, prompt)) for prompt in prompts]
    lengths = [len(prompt) for prompt in prompts]
    size = batching.size
    if not batching.fixed:  # few prompts need no more rows than the next power of two
        size = min(size, 1 << max(0, len(prompts) - 1).bit_length())
    size = parallel.filled(size, reuse.mesh)
    stop = (*tokenizer.end_ids, *stops(tokenizer, how))
    for i, (rows, length) in enumerate(batches(lengths, batching)):
        new = max(limits[row] for row in rows)
        if batching.fixed:  # padding and new tokens within the context, too
            most = reuse.model.config.max_length - new
            length = max(lengths[rows[0]], min(length, most))
        # Filled up with copies of its last row, which end when that does.
        filled = [prompts[row] for row in rows + rows[-1:] * (size - len(rows))]
        pad = tokenizer.pad_id
        decoding = models.Decoding(
            new, how.temperature, how.top_k, how.top_p, stop, pad
        )
        drawn = None if key is None else jax.random.fold_in(key, i)
        padded = padding.pad_left(filled, pad, length)
        ids, sizes = _generate(reuse, padded, decoding, drawn)
        yield {
            row: _continuation(tokenizer, ids[b, : min(sizes[b], limits[row])], how)
            for b, row in enumerate(rows)
        }


def _generate(
    reuse: Reuse,
    padded: tuple[np.ndarray, np.ndarray],
    decoding: models.Decoding,
    key: jax.Array | None,
) -> tuple[np.ndarray, np.ndarray]:
    """New tokens [B, N] of prompts and their mask [B, T], and how many, [B].

    Refuses tokens that were chosen by scores that are no numbers.
    """
    inputs = models.Inputs(*map(reuse.rows, padded))
    extras = reuse.arguments()
    with parallel.using(reuse.mesh):
        generated = models.generate(
            reuse.model, reuse.base, inputs, decoding, key=key, **extras
        )
    tokens, lengths, finite = processes.host(tuple(generated))
    check_finite(finite)
    return tokens, lengths


def batches(
    lengths: Sequence[int], batching: Batching
) -> Iterator[tuple[list[int], int]]:
    """Yields (rows, length): prompts of similar length, and what they are padded to.

    Lengths are powers of two, so that there are few to compile for.

    Args:
      lengths: tokens of each prompt.
      batching: which prompts are continued at once.

    >>> list(batches([40, 3, 17], Batching(2)))
    [([1, 2], 32), ([0], 64)]
    >>> list(batches([40, 3, 17], Batching(2, fixed=True)))
    [([0], 64), ([2], 32), ([1], 16)]
    """
    bucket, sign = padding.bucket, -1 if batching.fixed else 1
    order = sorted(range(len(lengths)), key=lambda i: sign * lengths[i])
    groups = [order]
    if batching.fixed:
        alike = itertools.groupby(order, key=lambda i: bucket(lengths[i]))
        groups = [list(group) for _, group in alike]
    for group in groups:
        for start in range(0, len(group), batching.size):
            rows = group[start : start + batching.size]
            yield rows, bucket(max(lengths[rows[0]], lengths[rows[-1]]))


def stops(tokenizer: Tokenizer, how: TextDecoding) -> tuple[int, ...]:
    """Returns the tokens whose own text holds a string that ends the text.

    None while a model may still be thinking: the string counts after that only.

    Args:
      tokenizer: of the model.
      how: where texts end.
    """
    if not how.until or how.thought is not None:
        return ()
    ids = sorted(set(tokenizer.backend.get_vocab().values()))
    texts = tokenizer.backend.decode_batch(
        [[i] for i in ids], skip_special_tokens=False
    )
    pairs = zip(ids, texts, strict=True)
    return tuple(i for i, text in pairs if any(s in text for s in how.until))


def cut(text: str, until: Sequence[str]) -> str:
    """Returns what comes before the first of some strings.

    Args:
      text: any text.
      until: the strings.

    >>> cut("7. Q: 8", ["Q:", "."])
    '7'
    """
    starts = [i for i in (text.find(s) for s in until) if i >= 0]
    return text[: min(starts, default=len(text))]


def _continuation(
    tokenizer: Tokenizer, new: np.ndarray, how: TextDecoding
) -> Continuation:
    ids = new.tolist()
    ended = bool(ids) and ids[-1] in tokenizer.end_ids
    words = tokenizer.decode(ids[:-1] if ended else ids)
    # A mark of several tokens is learnt, too, and is no part of an answer.
    if tokenizer.turn_end and tokenizer.turn_end in words:
        words, ended = words.partition(tokenizer.turn_end)[0].rstrip(), True
    if how.thought is not None:
        words = words.rpartition(how.thought)[2].lstrip()
    return Continuation(cut(words, how.until), len(ids), ended)


def load_tokenizer(
    folder: Path, reuse: Reuse, *, chat: bool = True, rest: Path | None = None
) -> Tokenizer:
    """Reads the tokenizer of a checkpoint.

    Args:
      folder: holds tokenizer.json, or what an adapter brings of it.
      reuse: the model that it is for.
      chat: keep its chat template, if it has one.
      rest: the checkpoint, whose files are read where the folder has none.

    Raises:
      ValueError: if there is none, or it is of another vocabulary than the model.
    """
    tokenizer = tokenizers.load(folder, rest)
    tokenizer = tokenizers.fitted(tokenizer, reuse.model.config.vocab_size)
    return tokenizer if chat else dataclasses.replace(tokenizer, chat_template=None)


def encode(item: Record, tokenizer: Tokenizer) -> list[int]:
    """Returns the token ids of a record's prompt, as they were in training.

    Args:
      item: turns of a conversation, the last of them to be answered.
      tokenizer: of the model.

    Raises:
      ValueError: with file and line, if the chat template refuses the conversation.
    """
    ids = text.prompt(item, tokenizer)
    if not ids:
        raise ValueError(f"{item.where or 'The prompt'} has no token, expected some.")
    return ids


def room(reuse: Reuse, prompt: Sequence[int]) -> int:
    """Tokens that the model's context leaves after a prompt; 0 if it is too long.

    Args:
      reuse: the model.
      prompt: token ids.
    """
    return max(0, reuse.model.config.max_length - len(prompt))


def _room(reuse: Reuse, prompt: Sequence[int]) -> int:
    left = room(reuse, prompt)
    if not prompt or not left:
        raise ValueError(
            f"A prompt has {len(prompt)} tokens, expected 1 to "
            f"{reuse.model.config.max_length - 1}: the model sees "
            f"{reuse.model.config.max_length} at once, and one is to be new."
        )
    return left
