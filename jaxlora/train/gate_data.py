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
from jax.sharding import Mesh, PartitionSpec

from jaxlora import lora, parallel
from jaxlora.lora import Library
from jaxlora.models import Decoder, Inputs, padding, statistics
from jaxlora.parallel import processes
from jaxlora.route import ROUTER
from jaxlora.tasks.packing import Rows
from jaxlora.train.step import cross_entropy
from jaxlora.tree import Tree

Prompts: TypeAlias = Sequence[Sequence[Sequence[int]]]
"""For each expert, token ids of its examples."""
Progress: TypeAlias = Callable[[int, int], None]
"""Called with examples done, and of how many."""


class _Batch(NamedTuple):
    tokens: np.ndarray  # [B, T]
    mask: np.ndarray  # [B, T]
    count: int  # rows that are examples; the others repeat one


def means(
    model: Decoder,
    base: Tree,
    library: Library,
    prompts: Prompts,
    *,
    batch: int = 8,
    mesh: Mesh | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, np.ndarray]:
    """Mean inputs of the last token of each expert's prompts, for ``route.Mean``.

    Args:
      model: a decoder without a route.
      base: params tree.
      library: E experts; each is on while its own prompts are read.
      prompts: of E experts, one at least of each.
      batch: prompts at once.
      mesh: what base and library are cut over, or None.
      progress: called after each batch.

    Returns:
      ``{site: [E, L, D]}``, float32.

    Raises:
      ValueError: if there are not as many sets of prompts as experts, one is empty, or
        a prompt is longer than the context.
    """
    _check(prompts, lora.num_experts(library))
    out: dict[str, list[np.ndarray]] = {name: [] for name in lora.sites(library)}
    for e, batches in enumerate(_batches(model, prompts, batch, mesh, progress)):
        adapter = jax.tree.map(lambda x, e=e: x[e], library)
        sums, count = dict.fromkeys(out, 0.0), 0
        for tokens, mask, used in batches:
            real = (np.arange(len(tokens)) < used)[:, None]
            last = mask & ~np.pad(mask[:, 1:], ((0, 0), (0, 1))) & real
            rows = parallel.place(
                (tokens, last.astype(np.float32), mask),
                mesh,
                PartitionSpec(parallel.BATCH),
            )
            with parallel.using(mesh):
                inputs = _means(model, base, rows[0], rows[1], adapter, rows[2])
            inputs = processes.host(inputs)
            # _means divides by the prompts of a batch; their sum is wanted here.
            sums = {n: sums[n] + used * np.asarray(inputs[n], np.float64) for n in out}
            count += used
        for name, rows in out.items():
            rows.append(np.asarray(sums[name] / count, np.float32))
    return {name: np.stack(rows) for name, rows in out.items()}


def examples(
    model: Decoder,
    base: Tree,
    prompts: Prompts,
    *,
    batch: int = 64,
    mesh: Mesh | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, np.ndarray]:
    """Mean embeddings of each expert's examples, for ``route.Nearest``.

    Args:
      model: a decoder without a route.
      base: params tree.
      prompts: of E experts, one at least of each.
      batch: prompts at once.
      mesh: what the base is cut over, or None.
      progress: called after each batch.

    Returns:
      ``{"router": [E, M, D]}``, float32; an expert with fewer than M examples has some
      of them again, which changes no largest cosine.

    Raises:
      ValueError: if an expert has no prompts, or one is longer than the context.
    """
    _check(prompts, len(prompts))
    vectors = []
    for batches in _batches(model, prompts, batch, mesh, progress):
        parts = []
        for tokens, mask, used in batches:
            spec = PartitionSpec(parallel.BATCH)
            rows = parallel.place((tokens, mask), mesh, spec)
            with parallel.using(mesh):
                parts.append(processes.host(_embed(model, base, *rows))[:used])
        vectors.append(np.concatenate(parts))
    most = max(map(len, vectors))
    filled = [np.resize(rows, (most, rows.shape[1])) for rows in vectors]
    return {ROUTER: np.stack(filled)}


def losses(
    model: Decoder,
    base: Tree,
    libraries: Library,
    states: Tree,
    data: Mapping[str, Rows],
    *,
    batch: int = 8,
    most: int = 64,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Mean cross-entropy of each gate on its rows, in nats per answer token.

    Args:
      model: a decoder with a route.
      base: params tree.
      libraries: [G, E, ...].
      states: of the route, [G, ...].
      data: G data sets.
      batch: rows at once.
      most: rows of each data set, from the first on, that are read.
      mesh: what base and libraries are cut over, or None.

    Returns:
      [G].
    """
    out = []
    for g, rows in enumerate(data.values()):
        library, state = jax.tree.map(lambda x, g=g: x[g], (libraries, states))
        sums = []
        for part in _cut(rows, batch, most):
            part = parallel.place(part, mesh, PartitionSpec(parallel.BATCH))
            with parallel.using(mesh):
                pair = _cross_entropy(model, base, part, library=library, gate=state)
            sums.append(processes.host(pair))
        total, count = np.sum(np.asarray(sums, np.float64), axis=0)
        out.append(total / max(count, 1.0))
    return np.asarray(out)


def singles(library: Library) -> Library:
    """A library [E, ...] as E libraries of one expert, [E, 1, ...]."""
    return jax.tree.map(lambda x: x[:, None], library)


def join_singles(states: Tree) -> Tree:
    """States of E libraries of one expert, [E, 1, ...], as that of one of E experts."""
    return jax.tree.map(lambda x: jnp.squeeze(x, 1), states)


_cross_entropy: Any = jax.jit(cross_entropy, static_argnums=(0,))
_embed: Any = jax.jit(statistics.embeddings, static_argnums=(0,))


@functools.partial(jax.jit, static_argnums=(0,))
def _means(model, base, tokens, weights, adapter, mask):
    inputs = Inputs(tokens, mask)
    return statistics.mean_inputs(model, base, inputs, weights, adapter=adapter)


def _check(prompts: Prompts, experts: int) -> None:
    empty = [e for e, rows in enumerate(prompts) if not rows]
    if len(prompts) != experts or empty or not experts:
        raise ValueError(
            f"Got {len(prompts)} sets of examples for {experts} experts, of which "
            f"{len(empty)} are empty; expected one for each, with an example at least."
        )


def _batches(
    model: Decoder,
    prompts: Prompts,
    batch: int,
    mesh: Mesh | None,
    progress: Progress,
) -> Iterator[Iterator[_Batch]]:
    """For each expert its batches, all of one shape."""
    longest = max(len(row) for some in prompts for row in some)
    length = min(padding.bucket(longest), model.config.max_length)
    if longest > length:
        raise ValueError(
            f"An example has {longest} tokens, but the model's context is {length}; "
            f"shorten it, or leave it out."
        )
    size = parallel.filled(min(batch, max(map(len, prompts))), mesh)
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
            yield _Batch(tokens, mask, len(part))
            done += len(part)
            progress(done, total)

    for some in prompts:
        yield batches(some)


def _cut(rows: Rows, batch: int, most: int) -> Iterator[Rows]:
    count = min(len(rows.tokens), most)
    for start in range(0, count, batch):
        at = np.minimum(np.arange(start, start + batch), count - 1)
        real = (np.arange(start, start + batch) < count)[:, None]
        part = Rows(*(column[at] for column in rows))
        yield part._replace(weights=np.where(real, part.weights, np.float32(0)))
