"""Many short examples in rows of one length, kept apart by segment numbers.

First-fit packing by grain: an example goes into the first open row that has room.
Attention must not cross segments; positions restart at 0 in each; the last token of an
example predicts nothing, so that no target is of another example.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from grain.experimental import FirstFitPackIterDataset

from jaxlora.tasks.text import Example

OPEN_ROWS = 128
"""Rows that are filled at once: more leave less room unused, and take more memory."""


class Rows(NamedTuple):
    """Packed examples: N rows of T tokens, N [N, T] arrays of NumPy."""

    tokens: np.ndarray
    """Int32; 0 is padding."""
    targets: np.ndarray
    """Int32: the next token of the same example; 0 after its last."""
    weights: np.ndarray
    """Float32: 1 where the target is of an answer, else 0."""
    segments: np.ndarray
    """Int32: 1, 2, ... for the examples of a row, 0 for padding, -1 for what all
    examples begin with, if a row has it once."""
    positions: np.ndarray
    """Int32: place in the example, from 0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What rows hold."""

    rows: int
    """N."""
    examples: int
    """Over all rows."""
    tokens: int
    """Without padding."""
    answer_tokens: int
    """Those that are learnt."""
    efficiency: float
    """Share of N * T that is no padding, in (0, 1]."""


def pack(
    examples: Sequence[Example],
    length: int,
    seed: int,
    *,
    open_rows: int = OPEN_ROWS,
    shared: int = 0,
) -> Rows:
    """Shuffles and packs a whole data set.

    Args:
      examples: of at most ``length`` tokens each.
      length: T.
      seed: of the order; equal seeds give equal rows.
      open_rows: rows that are filled at once.
      shared: tokens that all examples begin with (a chat's system turn), of which none
        is an answer: each row has them once, seen by all of its examples. Not for
        attention that shows a token its own segment alone (splash), nor for local
        layers, whose windows count slots.

    Returns:
      Rows in which every example is once.

    Raises:
      ValueError: if there is no example, one is empty or longer than ``length``, or
        they do not begin alike.

    >>> answered = Example(np.array([7, 8, 9]), np.array([False, False, True]))
    >>> pack([answered, answered], length=8, seed=0).segments
    array([[1, 1, 1, 2, 2, 2, 0, 0]], dtype=int32)
    """
    if shared:
        return _opened(examples, length, seed, open_rows, shared)
    # Elements are in memory: threads would only cost.
    stream = _source(examples, length, seed).to_iter_dataset(
        grain.ReadOptions(num_threads=0)
    )
    # Positions and segment numbers are counted by grain.
    packed = FirstFitPackIterDataset(
        stream,
        length_struct={"tokens": length, "targets": length, "weights": length},
        num_packing_bins=open_rows,
        shuffle_bins=False,
    )
    rows = [_rows(row) for row in packed]
    return Rows(*(np.stack(column) for column in zip(*rows, strict=True)))


def _opened(
    examples: Sequence[Example], length: int, seed: int, open_rows: int, shared: int
) -> Rows:
    """Rows that begin with what all examples begin with."""
    opening = np.asarray(examples[0].tokens[:shared], np.int32)
    for i, (tokens, answer) in enumerate(examples):
        if not np.array_equal(tokens[:shared], opening) or answer[: shared + 1].any():
            raise ValueError(
                f"Example {i} does not begin with the {shared} tokens of the first, or "
                f"learns one of the {shared + 1} first; expected what all begin with, "
                f"and a token more before an answer."
            )
    rest = [Example(*(x[shared:] for x in example)) for example in examples]
    packed = pack(rest, length - shared, seed, open_rows=open_rows)
    n = len(packed.tokens)

    def before(row: np.ndarray, rows: np.ndarray) -> np.ndarray:
        begin = np.broadcast_to(np.asarray(row, rows.dtype), (n, shared))
        return np.concatenate([begin, rows], axis=1)

    nothing = np.zeros(shared)
    return Rows(
        tokens=before(opening, packed.tokens),
        targets=before(nothing, packed.targets),
        weights=before(nothing, packed.weights),
        segments=before(nothing - 1, packed.segments),
        positions=before(np.arange(shared), packed.positions + shared),
    )


def batches(rows: Rows, batch: int, seed: int) -> grain.MapDataset:
    """Returns endless batches ``Rows`` [batch, T], shuffled anew every epoch.

    Batch k is ``batches(...)[k]``, so that a step number is all it takes to resume.
    Every epoch has every row once; two epochs may share a batch.

    Args:
      rows: as :func:`pack` returns them.
      batch: rows of a batch, at least 1.
      seed: of the order.

    Raises:
      ValueError: if ``batch`` is less than 1, or there are no rows.

    >>> answered = Example(np.array([7, 8, 9]), np.array([False, False, True]))
    >>> rows = pack([answered, answered], length=6, seed=0)
    >>> batches(rows, batch=2, seed=0)[10].tokens
    array([[7, 8, 9, 7, 8, 9],
           [7, 8, 9, 7, 8, 9]], dtype=int32)
    """
    if batch < 1 or not len(rows.tokens):
        raise ValueError(
            f"Got batch = {batch} of {len(rows.tokens)} rows, expected 1 or more of 1 "
            f"or more."
        )
    # Endless and indexed: batch k needs no state of an iterator.
    order = grain.MapDataset.range(len(rows.tokens)).seed(seed).shuffle().repeat()
    return order.batch(batch).map(lambda at: Rows(*(column[at] for column in rows)))


def report(rows: Rows) -> Report:
    """Counts what is in rows.

    Args:
      rows: as :func:`pack` returns them.

    >>> answered = Example(np.array([7, 8, 9]), np.array([False, False, True]))
    >>> report(pack([answered, answered], length=8, seed=0)).efficiency
    0.75
    """
    filled = int(np.count_nonzero(rows.segments))
    return Report(
        rows=len(rows.tokens),
        examples=int(rows.segments.max(axis=1).sum()),
        tokens=filled,
        answer_tokens=int(rows.weights.sum()),
        efficiency=filled / rows.tokens.size,
    )


def _source(examples: Sequence[Example], length: int, seed: int) -> grain.MapDataset:
    sizes = [len(example.tokens) for example in examples]
    if not sizes:
        raise ValueError("There is no example to pack, expected one at least.")
    if min(sizes) < 1 or max(sizes) > length:
        # Grain would drop or split it without a word.
        worst = sizes.index(0) if 0 in sizes else sizes.index(max(sizes))
        raise ValueError(
            f"Example {worst} has {sizes[worst]} tokens, expected 1 to {length}, the "
            f"length of a row; encode drops or cuts longer ones."
        )
    elements = [_element(example) for example in examples]
    return grain.MapDataset.source(elements).seed(seed).shuffle()


def _element(example: Example) -> dict[str, np.ndarray]:
    """Shifts tokens to targets; the last has none."""
    tokens = np.asarray(example.tokens, np.int32)
    learnt = np.asarray(example.answer, np.float32)
    return {
        "tokens": tokens,
        # The weight of the added target is 0, so that its value does not matter.
        "targets": np.append(tokens[1:], np.int32(0)),
        "weights": np.append(learnt[1:], np.float32(0)),
    }


def _rows(packed: dict[str, Any]) -> Rows:
    return Rows(
        tokens=packed["tokens"],
        targets=packed["targets"],
        weights=packed["weights"],
        segments=packed["tokens_segment_ids"],
        positions=packed["tokens_positions"],
    )
