"""Rows and experts as a mesh takes them: filled up until its devices divide them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlora import parallel
from jaxlora.parallel import processes
from jaxlora.tasks.packing import Rows
from jaxlora.train import packed
from jaxlora.train.training import Training
from jaxlora.tree import Tree

BY_BATCH = PartitionSpec("expert", None, None, parallel.BATCH)
"""Where rows [E, K, A, N, T] lie on a mesh."""


def spread(count: int, mesh: Mesh | None) -> np.ndarray:
    """Numbers of experts, and of those whose copies fill the devices up.

    A copy learns what its expert does; nobody reads it.

    Args:
      count: E.
      mesh: its ``expert`` need not divide E; or None.

    >>> spread(3, parallel.mesh(expert=2, devices=jax.devices()[:2])).tolist()
    [0, 1, 2, 0]
    """
    parts = 1 if mesh is None else mesh.shape["expert"]
    return np.arange(count + -count % parts) % count


def taken(tree: Tree, which: np.ndarray) -> Tree:
    """Some experts of arrays [E, ...]; scalars are of all.

    Args:
      tree: of arrays.
      which: numbers of experts; for all of them, in order, nothing is copied.
    """

    def some(x: Any) -> Any:
        same = not x.ndim or np.array_equal(which, np.arange(len(x)))
        return x if same else x[which]

    return jax.tree.map(some, tree)


def without_copies(which: np.ndarray, count: int) -> Callable[[Tree], Tree]:
    """A function that leaves out of arrays [E, ...] what only fills devices up.

    Args:
      which: as :func:`spread` gives it.
      count: E without copies.
    """
    if len(which) == count:
        return lambda tree: tree
    return functools.partial(taken, which=np.arange(count))


def on(mesh: Mesh | None, tree: Tree) -> Tree:
    """Puts experts [E, ...] and their optimizer states each on its devices.

    Args:
      mesh: or None, for the default device.
      tree: of arrays.
    """
    where = {} if mesh is None else parallel.expert_shardings(mesh, tree)
    return parallel.place(tree, mesh, where)


def rows(
    data: Mapping[str, Rows],
    names: Sequence[str],
    training: Training,
    steps: range,
    mesh: Mesh | None,
) -> Rows:
    """Rows [E, K, A, N, T] of some updates; a process reads those of its experts.

    Args:
      data: rows by name.
      names: E of them; one may come twice.
      training: how many rows an update takes, and in which order.
      steps: numbers of K updates.
      mesh: where they go, or None.
    """
    # A single gate has its rows on all devices along ``expert``.
    spec = BY_BATCH if len(names) > 1 else PartitionSpec(None, *BY_BATCH[1:])

    @functools.cache
    def some(start: int, stop: int) -> Rows:
        few = {name: data[name] for name in names[start:stop]}
        each = packed.batches(few, training, steps)
        where = [list(few).index(name) for name in names[start:stop]]
        return even(Rows(*(x[where] for x in each)), mesh)

    if mesh is None or processes.count() == 1:
        return parallel.place(some(0, len(names)), mesh, spec)
    length = data[names[0]].tokens.shape[1]
    lead = (len(names), len(steps), training.accumulate)
    shape = (*lead, parallel.filled(training.batch, mesh), length)
    where = NamedSharding(mesh, spec)

    def column(i: int) -> Any:
        def part(at: Any) -> np.ndarray:
            start, stop, _ = at[0].indices(len(names))
            return some(start, stop)[i][(slice(None), *at[1:])]

        return jax.make_array_from_callback(shape, where, part)

    return Rows(*map(column, range(len(Rows._fields))))


def even(batch: Rows, mesh: Mesh | None) -> Rows:
    """Rows [..., N, T] that the mesh cuts evenly: those added count for nothing.

    Args:
      batch: of any number of rows.
      mesh: or None, which cuts nothing.
    """
    size = batch.tokens.shape[-2]
    extra = parallel.filled(size, mesh) - size
    wide = [*[(0, 0)] * (batch.tokens.ndim - 2), (0, extra), (0, 0)]
    more = Rows(*(np.pad(x, wide, mode="edge") for x in batch)) if extra else batch
    return more._replace(weights=np.pad(batch.weights, wide))
