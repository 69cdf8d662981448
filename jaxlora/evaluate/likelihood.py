"""How likely a model finds texts: sums of log-probabilities, in buckets of shapes.

A pair is a context and a continuation, both token ids. Rows are padded on the right,
where no token of the text can see, so a score depends on its own pair only. Lengths are
rounded up to powers of two and batches filled with empty rows: one program is compiled
for each bucket. Of the hidden states, only those that predict a continuation are
unembedded, a chunk at a time where the vocabulary is large.

>>> config = DecoderConfig(vocab_size=16, hidden_size=8, num_layers=2, mlp_size=16,
...                        num_heads=2, num_kv_heads=2, head_dim=4)
>>> model = Decoder(config)
>>> base = models.init(jax.random.key(0), model)
>>> scores = score(model, base, [([1, 2], [3]), ([1], [4, 5, 6])])
>>> scores.total.shape, scores.count.tolist()
((2,), [1, 3])
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora, models
from jaxlora.models.config import DecoderConfig as DecoderConfig
from jaxlora.models.decoder import Decoder
from jaxlora.models.padding import bucket
from jaxlora.tree import Tree

Pair: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""Token ids of a context and of what follows it."""
_NOTHING = models.Adapted()
Progress: TypeAlias = Callable[[int, int], None]
"""Called with (pairs done, pairs in all) after every batch."""

LEAST_SCORED = 8
"""Positions scored per row at least: the smallest bucket of continuations."""
LOGITS = 2**26
"""Logits in memory at once, of all experts together; float32, so 256 MiB."""


class Scores(NamedTuple):
    """One value a pair; with every expert of a library at once, [E, N] in place of [N].

    >>> Scores(np.log([0.25]), np.array([True]), np.array([2])).per_token
    array([-0.69314718])
    """

    total: np.ndarray
    """[N] float64, log-probability of the whole continuation, in nats."""
    greedy: np.ndarray
    """[N] bool, is every token of it the model's first choice?"""
    count: np.ndarray
    """[N] int, its tokens; no axis E."""

    @property
    def per_token(self) -> np.ndarray:
        """The mean log-probability of a token."""
        return self.total / self.count


class _Batch(NamedTuple):
    tokens: np.ndarray
    first: np.ndarray
    targets: np.ndarray
    pairs: list[int]


def score(
    model: Decoder,
    base: Tree,
    pairs: Sequence[Pair],
    *,
    adapted: models.Adapted = _NOTHING,
    batch: int = 16,
    max_length: int | None = None,
    truncate: bool = False,
    progress: Progress = lambda *_: None,
) -> Scores:
    """Returns log P(continuation | context) of N pairs.

    Args:
      model: a decoder; with a route, ``library`` is routed.
      base: params tree.
      pairs: N contexts and continuations, each of at least one token.
      adapted: what adapts the base. A library [E, ...] without a route is E experts:
        all of them are scored, in one program.
      batch: rows of one call, B.
      max_length: tokens that the model may see at once; by default as its config says.
      truncate: drop the start of contexts that are too long, instead of refusing them?
      progress: called with (pairs done, pairs in all).

    Raises:
      ValueError: if a pair has an empty side, an id outside the vocabulary or more
        tokens than fit, or the adapter does not fit the model.
    """
    adapter, library, gate = adapted
    if batch < 1:
        raise ValueError(f"batch is {batch}, expected a row at least.")
    if model.route is None and adapter is not None and library is not None:
        raise ValueError(
            "Got an adapter and a library, but the model has no route: expected one of "
            "them, the adapter alone or every expert of the library."
        )
    longest = model.config.max_length if max_length is None else max_length
    rows = [
        _row(i, pair, model.config.vocab_size, longest, truncate)
        for i, pair in enumerate(pairs)
    ]
    if library is not None and model.route is not None and gate is None:
        gate = jax.jit(models.gate_state, static_argnums=0)(model, library)
    many = library is not None and model.route is None
    shape = (lora.num_experts(library), len(rows)) if many else (len(rows),)
    counts = np.array([count for _, count in rows], int)
    total, greedy = np.zeros(shape), np.zeros(shape, bool)
    done = 0
    for part in _batches(rows, batch, longest):
        asked = (part.tokens, part.first, part.targets)
        scores = _run(model, base, adapter, library, gate, *map(jnp.asarray, asked))
        logs, best = (np.asarray(x)[..., : len(part.pairs), :] for x in scores)
        beyond = np.arange(logs.shape[-1]) >= counts[part.pairs, None]
        total[..., part.pairs] = np.where(beyond, 0, logs).sum(-1, dtype=np.float64)
        greedy[..., part.pairs] = (best | beyond).all(-1)
        done += len(part.pairs)
        progress(done, len(rows))
    return Scores(total, greedy, counts)


def rolling(
    model: Decoder,
    base: Tree,
    texts: Sequence[Sequence[int]],
    *,
    prefix: int,
    overlap: int = 1,
    **arguments: Any,
) -> Scores:
    """Returns the log-likelihood of whole texts, longer than the model sees or not.

    Args:
      model: a decoder.
      base: params tree.
      texts: N texts of at least one token.
      prefix: id before each text (a bos): what its first token is predicted from.
      overlap: tokens that a window shows again at least, 1 to max_length.
      **arguments: of :func:`score`, by name: ``adapted``, ``batch``, ``max_length``,
        ``truncate`` and ``progress``.

    Raises:
      ValueError: if a text is empty, an id is outside the vocabulary, or the adapter
        does not fit the model.

    >>> config = DecoderConfig(vocab_size=16, hidden_size=8, num_layers=1, mlp_size=8,
    ...                        num_heads=1, num_kv_heads=1, head_dim=4, max_length=4)
    >>> base = models.init(jax.random.key(0), Decoder(config))
    >>> rolling(Decoder(config), base, [[3] * 10], prefix=1).count.tolist()
    [10]
    """
    length = arguments.get("max_length")
    length = model.config.max_length if length is None else length
    pairs: list[Pair] = []
    starts = []
    for text in texts:
        starts.append(len(pairs))
        pairs += windows(text, prefix=prefix, length=length, overlap=overlap)
    scores = score(model, base, pairs, **arguments)
    if not starts:
        return scores
    return Scores(
        np.add.reduceat(scores.total, starts, axis=-1),
        np.logical_and.reduceat(scores.greedy, starts, axis=-1),
        np.add.reduceat(scores.count, starts),
    )


def windows(
    text: Sequence[int], *, prefix: int, length: int, overlap: int = 1
) -> Iterator[Pair]:
    """Cuts a text into pairs that score each of its tokens once.

    A window holds ``length`` tokens of input. Each but the first shows ``overlap``
    tokens again; the last shows as many as fit.

    >>> list(windows([0, 1, 2, 3, 4], prefix=9, length=3))
    [([9], [0, 1, 2]), ([1, 2], [3, 4])]
    """
    if not len(text) or not 1 <= overlap <= length:
        raise ValueError(
            f"Got a text of {len(text)} tokens, windows of {length} and an overlap of "
            f"{overlap}, expected a token at least and an overlap from 1 to {length}."
        )
    yield [prefix], text[:length]
    done = min(length, len(text))
    while done < len(text):
        end = min(done + length - overlap + 1, len(text))
        yield text[end - length - 1 : done], text[done:end]
        done = end


def _row(
    index: int, pair: Pair, vocab: int, longest: int, truncate: bool
) -> tuple[np.ndarray, int]:
    """All tokens of a pair, the last one never an input, and how many are scored."""
    context, continuation = (np.asarray(side, np.int64) for side in pair)
    count = len(continuation)
    if not len(context) or not count:
        raise ValueError(
            f"Pair {index} has {len(context)} tokens of context and {count} to score, "
            f"expected one of each at least; a text without context follows a bos."
        )
    row = np.concatenate([context, continuation])
    if row.min() < 0 or row.max() >= vocab:
        raise ValueError(
            f"Pair {index} has the token ids {row.min()} to {row.max()}, expected 0 to "
            f"{vocab - 1}; is the tokenizer that of another model?"
        )
    if count > longest or (len(row) - 1 > longest and not truncate):
        raise ValueError(
            f"Pair {index} has {len(context)} tokens of context and {count} to score, "
            f"but the model sees {longest} at once, the last one not counted; shorten "
            f"it, or let truncate=True drop the start of contexts."
        )
    return row[-longest - 1 :].astype(np.int32), count


def _batches(
    rows: Sequence[tuple[np.ndarray, int]], size: int, longest: int
) -> Iterator[_Batch]:
    """Rows of like shape together, the longest first: lack of memory shows at once."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (row, count) in enumerate(rows):
        length = min(bucket(len(row) - 1), longest)
        scored = min(bucket(count, LEAST_SCORED), length)
        groups.setdefault((length, scored), []).append(i)
    for (length, scored), members in sorted(groups.items(), reverse=True):
        for start in range(0, len(members), size):
            chosen = members[start : start + size]
            tokens = np.zeros((size, length), np.int32)
            first = np.zeros(size, np.int32)
            targets = np.zeros((size, scored), np.int32)
            for b, i in enumerate(chosen):
                row, count = rows[i]
                tokens[b, : len(row) - 1] = row[:-1]
                first[b] = len(row) - 1 - count
                targets[b, :count] = row[-count:]
            yield _Batch(tokens, first, targets, chosen)


@functools.partial(jax.jit, static_argnums=0)
def _run(
    model: Decoder, base, adapter, library, gate, tokens, first, targets
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of targets [B, K] from position ``first`` on, and the hits."""
    many = library is not None and model.route is None
    room = LOGITS // (lora.num_experts(library) if many else 1)
    chunk = max(1, room // model.config.vocab_size)

    def score(adapter) -> tuple[jax.Array, jax.Array]:
        routed = {} if model.route is None else {"library": library, "gate": gate}
        x = models.hidden(model, base, tokens, adapter=adapter, **routed)
        wanted = first[:, None] + jnp.arange(targets.shape[1])[None]
        wanted = jnp.minimum(wanted, tokens.shape[1] - 1)  # beyond the text: unused
        x = jnp.take_along_axis(x, wanted[..., None], axis=1)
        flat = (x.reshape(-1, x.shape[-1]), targets.reshape(-1))
        judge = functools.partial(_judge, model, base, adapter)
        pairs = jax.lax.map(lambda at: judge(*at), flat, batch_size=chunk)
        return jax.tree.map(lambda y: y.reshape(targets.shape), pairs)

    return jax.vmap(score)(library) if many else score(adapter)


def _judge(model: Decoder, base: Tree, adapter, x: jax.Array, target: jax.Array):
    logits = models.unembed(model, base, x, adapter)
    log = logits[target] - jax.nn.logsumexp(logits)
    return log, (jnp.argmax(logits) == target) & ~jnp.isnan(log)
