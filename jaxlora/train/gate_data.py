"""What gates are made of beside training: mean inputs, stored examples, and losses.

Host loops over experts and batches around a program each, compiled once: prompts have
one length, padded on the right, and batches one size.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora.lora import Library
from jaxlora.models import Decoder, Inputs, statistics, tokenizer
from jaxlora.route import ROUTER
from jaxlora.tasks.packing import Rows
from jaxlora.train import text
from jaxlora.tree import Tree

Prompts: TypeAlias = Sequence[Sequence[Sequence[int]]]
"""For each expert, token ids of its examples."""
Tell: TypeAlias = Callable[[int, int], None]
"""Called with examples done, and of how many."""


class _Batch(NamedTuple):
    tokens: jax.Array  # [B, T]
    mask: jax.Array  # [B, T]
    count: int  # rows that are examples; the others repeat one


def means(
    model: Decoder,
    base: Tree,
    library: Library,
    prompts: Prompts,
    *,
    batch: int = 8,
    tell: Tell = lambda *_: None,
) -> dict[str, np.ndarray]:
    """Mean inputs of the last token of each expert's prompts, for ``route.Mean``.

    Args:
      model: a decoder without a route.
      base: params tree.
      library: E experts; each is on while its own prompts are read.
      prompts: of E experts, one at least of each.
      batch: prompts at once.
      tell: called after each batch.

    Returns:
      ``{site: [E, L, D]}``, float32.

    Raises:
      ValueError: if there are not as many sets of prompts as experts, one is empty, or
        a prompt is longer than the context.
    """
    adapters = lora.unstack(library)
    _check(prompts, len(adapters))
    out: dict[str, list[np.ndarray]] = {name: [] for name in lora.sites(library)}
    for adapter, batches in zip(adapters, _told(model, prompts, batch, tell)):  # noqa: B905
        sums, count = dict.fromkeys(out, 0.0), 0
        for tokens, mask, used in batches:
            real = (jnp.arange(len(tokens)) < used)[:, None]
            last = mask & ~jnp.pad(mask[:, 1:], ((0, 0), (0, 1))) & real
            weights = last.astype(jnp.float32)
            found = _means(model, base, tokens, weights, adapter, mask)
            sums = {n: sums[n] + used * np.asarray(found[n], np.float64) for n in out}
            count += used
        for name, kept in out.items():
            kept.append(np.asarray(sums[name] / count, np.float32))
    return {name: np.stack(kept) for name, kept in out.items()}


def examples(
    model: Decoder,
    base: Tree,
    prompts: Prompts,
    *,
    batch: int = 64,
    tell: Tell = lambda *_: None,
) -> dict[str, np.ndarray]:
    """Mean embeddings of each expert's examples, for ``route.Nearest``.

    Arguments are those of :func:`means`.

    Returns:
      ``{"router": [E, M, D]}``, float32; an expert with fewer than M examples has some
      of them again, which changes no largest cosine.

    Raises:
      ValueError: as :func:`means`.
    """
    _check(prompts, len(prompts))
    kept = []
    for batches in _told(model, prompts, batch, tell):
        rows = [np.asarray(_embed(model, base, t, m))[:used] for t, m, used in batches]
        kept.append(np.concatenate(rows))
    most = max(len(rows) for rows in kept)
    return {ROUTER: np.stack([np.resize(rows, (most, rows.shape[1])) for rows in kept])}


def losses(
    model: Decoder,
    base: Tree,
    libraries: Library,
    states: Tree,
    data: Mapping[str, Rows],
    *,
    batch: int = 8,
    most: int = 64,
) -> np.ndarray:
    """Nats per answer token of each gate on its rows.

    Args:
      model: a decoder with a route.
      base: params tree.
      libraries: [G, E, ...].
      states: of the route, [G, ...].
      data: G data sets.
      batch: rows at once.
      most: rows of each data set, from the first on, that are read.

    Returns:
      [G].
    """
    out = []
    for g, rows in enumerate(data.values()):
        library, state = jax.tree.map(lambda x, g=g: x[g], (libraries, states))
        found = [
            _nats(model, base, part, library=library, gate=state)
            for part in _cut(rows, batch, most)
        ]
        total, count = np.sum(np.asarray(found, np.float64), axis=0)
        out.append(total / max(count, 1.0))
    return np.asarray(out)


_nats: Any = jax.jit(text.nats, static_argnums=(0,))
_embed: Any = jax.jit(statistics.embeddings, static_argnums=(0,))


@functools.partial(jax.jit, static_argnums=(0,))
def _means(model, base, tokens, weights, adapter, mask):
    inputs = Inputs(tokens, mask)
    return statistics.mean_inputs(model, base, inputs, weights, adapter=adapter)


def _check(prompts: Prompts, experts: int) -> None:
    empty = [e for e, some in enumerate(prompts) if not some]
    if len(prompts) != experts or empty or not experts:
        raise ValueError(
            f"Got {len(prompts)} sets of examples for {experts} experts, of which "
            f"{len(empty)} are empty; expected one for each, with an example at least."
        )


def _told(
    model: Decoder, prompts: Prompts, batch: int, tell: Tell
) -> Iterator[Iterator[_Batch]]:
    """For each expert its batches, all of one shape."""
    longest = max(len(row) for some in prompts for row in some)
    length = min(tokenizer.bucket(longest), model.config.max_length)
    if longest > length:
        raise ValueError(
            f"An example has {longest} tokens, but the model's context is {length}; "
            f"shorten it, or leave it out."
        )
    size = min(batch, max(map(len, prompts)))
    total, done = sum(map(len, prompts)), 0

    def batches(some: Sequence[Sequence[int]]) -> Iterator[_Batch]:
        nonlocal done
        for start in range(0, len(some), size):
            part = some[start : start + size]
            tokens = np.zeros((size, length), np.int32)
            mask = np.zeros((size, length), bool)
            for i in range(size):
                row = part[min(i, len(part) - 1)]
                tokens[i, : len(row)], mask[i, : len(row)] = row, True
            yield _Batch(jnp.asarray(tokens), jnp.asarray(mask), len(part))
            done += len(part)
            tell(done, total)

    for some in prompts:
        yield batches(some)


def _cut(rows: Rows, batch: int, most: int) -> Iterator[Rows]:
    count = min(len(rows.tokens), most)
    for start in range(0, count, batch):
        at = np.minimum(np.arange(start, start + batch), count - 1)
        real = (np.arange(start, start + batch) < count)[:, None]
        part = Rows(*(column[at] for column in rows))
        yield part._replace(weights=np.where(real, part.weights, np.float32(0)))
