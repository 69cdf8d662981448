"""What makes a training run what it is, and what must hold of its data and losses."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxlora.parallel import processes
from jaxlora.tasks.packing import Rows
from jaxlora.train.training import Training
from jaxlora.tree import Tree


def facts(data: Mapping[str, Rows], training: Training) -> dict[str, Any]:
    """What must be equal for a run to go on; data by checksums.

    Args:
      data: rows by name, in the order of the states.
      training: how they are trained; what only moves work is left out.
    """
    rows = {
        name: {
            "shape": list(columns.tokens.shape),
            "content": [zlib.crc32(column.tobytes()) for column in columns],
        }
        for name, columns in data.items()
    }
    numbers = dataclasses.asdict(training)
    del numbers["together"], numbers["length"]  # moves work only; seen in the rows
    # States lie in the order of the names, which keys of JSON would lose.
    return {"data": rows, "order": list(data), "training": numbers}


def sums(tree: Tree) -> list[int]:
    """Checksums of the leaves of a tree, gathered from all processes.

    >>> sums({"x": np.zeros(2, np.float32)})
    [1696784233]
    """
    # One at a time: of many devices none may hold them all.
    leaves = (processes.host(leaf) for leaf in jax.tree.leaves(tree))
    return [zlib.crc32(np.ascontiguousarray(leaf).data) for leaf in leaves]


def check_finite(history: np.ndarray, start: int, names: Sequence[str], totals):
    """Stops before a lost run is saved.

    Args:
      history: losses and norms [2, E, K] of the updates from ``start``.
      start: number of the first update.
      names: of the experts, E.
      totals: updates of each expert, [E]; what comes after them does not count.

    Raises:
      ValueError: if one is not finite, naming the expert and the update.
    """
    for e, (name, total) in enumerate(zip(names, totals, strict=True)):
        fine = np.isfinite(history[:, e, : max(0, total - start)]).all(axis=0)
        if not fine.all():
            k = int(fine.argmin())
            raise ValueError(
                f"Training of {name!r} diverged: update {start + k} has the loss "
                f"{history[0, e, k]:.4g} and a gradient of norm {history[1, e, k]:.4g}"
                f", expected finite numbers; lower the learning rate, or clip "
                f"gradients."
            )


def check_rows(data: Mapping[str, Rows]) -> None:
    """Refuses no data, and rows of several lengths.

    Args:
      data: rows by name.

    Raises:
      ValueError: naming the lengths.
    """
    lengths = {rows.tokens.shape[1] for rows in data.values()}
    if len(lengths) != 1:
        raise ValueError(
            f"Got {len(data)} data sets with rows of {sorted(lengths)} tokens, "
            f"expected one set at least, and one length."
        )


def check_gates(data: Mapping[str, Rows], gates: Tree) -> None:
    """Refuses gates that are not as many as their data sets.

    Args:
      data: rows by name.
      gates: libraries and states, [G, ...].

    Raises:
      ValueError: naming both numbers.
    """
    sizes = {x.shape[0] for x in jax.tree.leaves(gates)}
    if sizes != {len(data)}:
        raise ValueError(
            f"Got {len(data)} data sets, and libraries and states with leading axes "
            f"of {sorted(sizes)}, expected one library and one state a data set."
        )
