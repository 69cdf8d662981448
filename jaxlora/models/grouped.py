"""Products of sorted rows with a stack of matrices, a group of rows to each.

``jax.lax.ragged_dot`` is that on an accelerator. XLA:CPU has no kernel for it and
multiplies every row with every matrix; there blocks of rows of one group are multiplied
in turn, whose number grows with the rows.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

How: TypeAlias = Literal["auto", "ragged", "blocks"]


@dataclasses.dataclass(frozen=True)
class Groups:
    """Which matrix [D, F] of a stack [X, D, F] each row is multiplied with."""

    sizes: jax.Array | None = None
    """[X], rows of each group, one group after another; or"""
    index: jax.Array | None = None
    """[], the group of all rows."""

    def dot(self, x: jax.Array, stacked: jax.Array) -> jax.Array:
        """Multiplies x [N, D] with the stack, [N, F].

        Args:
          x: [N, D], its rows sorted by group.
          stacked: [X, D, F].
        """
        if self.sizes is not None:
            return ragged_dot(x, stacked, self.sizes)
        return x @ jax.lax.dynamic_index_in_dim(stacked, self.index, keepdims=False)


def grouped(
    fn: Callable[[Groups, jax.Array], jax.Array],
    x: jax.Array,
    sizes: jax.Array,
    how: How = "auto",
) -> jax.Array:
    """Applies a function of single rows and of the matrices of their groups.

    Args:
      fn: ``fn(groups, x [N, D]) -> [N, F]``, row by row but for ``groups.dot``.
      x: [N, D], its rows sorted by group.
      sizes: [X] int32, rows of each group; they add up to N.
      how: all rows at once by ``ragged_dot``, or block after block; auto takes blocks
        where the program is compiled for a CPU.

    Returns:
      [N, F].

    >>> x, stack = jnp.ones((3, 2)), jnp.asarray([[[1.0], [1.0]], [[5.0], [5.0]]])
    >>> y = grouped(lambda g, x: g.dot(x, stack), x, jnp.asarray([1, 2]))
    >>> y[:, 0].tolist()
    [2.0, 10.0, 10.0]
    """
    ways = {"ragged": _at_once, "blocks": _in_blocks}
    each = {name: functools.partial(way, fn) for name, way in ways.items()}
    if how == "auto":
        forms = {"cpu": each["blocks"], "default": each["ragged"]}
        return jax.lax.platform_dependent(x, sizes, **forms)
    return each[how](x, sizes)


def _at_once(fn, x: jax.Array, sizes: jax.Array) -> jax.Array:
    return fn(Groups(sizes=sizes), x)


def _in_blocks(fn, x: jax.Array, sizes: jax.Array) -> jax.Array:
    rows, groups = len(x), len(sizes)
    block = _block(rows, groups)
    # Each group fills blocks of its own, the last of them in part.
    count = rows // block + min(rows, groups)
    blocks = -(-sizes // block)
    ends = jnp.cumsum(blocks)
    group = jnp.searchsorted(ends, jnp.arange(count), side="right")
    group = jnp.minimum(group, groups - 1)
    # Row i, the r-th of its group, is row r of its group's blocks.
    mine = jnp.searchsorted(jnp.cumsum(sizes), jnp.arange(rows), side="right")
    first = (ends - blocks) * block - (jnp.cumsum(sizes) - sizes)
    slots = jnp.arange(rows) + first[mine]
    padded = jnp.zeros((count * block, x.shape[1]), x.dtype).at[slots].set(x)

    def multiply(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        return fn(Groups(index=part[0]), part[1])

    parts = (group, padded.reshape(count, block, -1))
    return jax.lax.map(multiply, parts).reshape(count * block, -1)[slots]


def _block(rows: int, groups: int) -> int:
    """Rows of a block: a power of two near half of a group, from 8 to 128."""
    half = max(rows // (2 * groups), 1)
    return min(max(1 << (half.bit_length() - 1), 8), 128)


@jax.custom_vjp
def ragged_dot(x: jax.Array, stacked: jax.Array, sizes: jax.Array) -> jax.Array:
    """As ``jax.lax.ragged_dot``, which has no batching rule for a shared stack.

    Args:
      x: [N, D], its rows sorted by group.
      stacked: [X, D, F].
      sizes: [X] int32.
    """
    return _ragged(x, stacked, sizes)


def _forward(x, stacked, sizes):
    return _ragged(x, stacked, sizes), (x, stacked, sizes)


def _backward(kept, g):
    x, stacked, sizes = kept
    back = _ragged(g, jnp.swapaxes(stacked, 1, 2), sizes)
    return back, _outer(x, stacked, sizes, g), None


ragged_dot.defvjp(_forward, _backward)


@sequential_vmap
def _ragged(x, stacked, sizes):
    return jax.lax.ragged_dot(x, stacked, sizes)


@sequential_vmap
def _outer(x, stacked, sizes, g):
    """``x^T g`` of each group, [X, D, F]: the gradient of the stack."""

    def of(stacked: jax.Array) -> jax.Array:
        return jax.lax.ragged_dot(x, stacked, sizes)

    return jax.vjp(of, stacked)[1](g)[0]
