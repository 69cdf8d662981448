"""What is learned for each of M libraries on the questions of all others.

Libraries are of experts with the same roles, so that a number or a key for each role
can be learned elsewhere. For library m it is learned on the questions of every library
j other than m, each asked under its experts; neither questions nor experts of m are
seen. Library after library: the memory is that of M - 1 libraries at once.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import merge
from jaxlora.lora import Library
from jaxlora.models import Decoder
from jaxlora.train import learned, library_gates
from jaxlora.train.step import GATE, Batch
from jaxlora.tree import Tree


@functools.partial(jax.jit, static_argnums=(0, 1))
def scales(
    model: Decoder, pad: int, base: Tree, libraries: Library, rows: Batch
) -> dict[str, jax.Array]:
    """CAT's scalars for every library, ``{site: [M, E, ...]}``.

    Args:
      model: a decoder without a route.
      pad: id of the padding token.
      base: params tree.
      libraries: [M, E, ...], M at least 2.
      rows: questions of each, [M, Q, T]; what is not asked weighs 0.
    """

    def library(others: jax.Array) -> dict[str, jax.Array]:
        theirs, asked = jax.tree.map(lambda x: x[others], (libraries, rows))
        return learned.scales(model, pad, base, theirs, asked)

    return jax.lax.map(library, _others(len(rows.tokens)))


def weights(
    how: merge.Merge,
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: Library,
    rows: Batch,
    keys: jax.Array,
) -> jax.Array:
    """LoraHub's weights for every library, [M, E]: a loop around one program.

    Args:
      how: the merge whose scalars the weights are.
      model: a decoder without a route.
      pad: id of the padding token.
      base: params tree.
      libraries: [M, E, ...], M at least 2.
      rows: questions of each, [M, Q, T]; what is not asked weighs 0.
      keys: [M], of the searches.
    """
    best = []
    for key, others in zip(keys, _others(len(keys)), strict=True):
        theirs = jax.tree.map(lambda x, j=others: x[j], libraries)
        asked = jax.tree.map(lambda x, j=others: x[j], rows)
        best.append(learned.searched(how, model, pad, base, theirs, asked, key))
    return jnp.stack(best)


@functools.partial(jax.jit, static_argnums=(0, 1))
def gates(
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: Library,
    rows: Batch,
    keys: jax.Array,
) -> Tree:
    """Gate states [M, ...], each of keys that learned on all other libraries.

    Args:
      model: a decoder with the route that is trained.
      pad: id of the padding token.
      base: params tree.
      libraries: [M, E, ...], M at least 2, as the route uses them.
      rows: questions of each, [M, Q, T]; what is not learned weighs 0.
      keys: [M], of the gates' starts.
    """

    def library(given: tuple[jax.Array, jax.Array]) -> Tree:
        others, key = given
        theirs, asked = jax.tree.map(lambda x: x[others], (libraries, rows))
        states = library_gates.fresh(model, theirs, key)
        return library_gates.fit_keys(model, pad, base, theirs, states, asked)

    # What is no key, such as which experts are live, is of the library itself.
    _, rest = GATE.split(library_gates.drawn(model, libraries, keys))
    return GATE.join(jax.lax.map(library, (_others(len(keys)), keys)), rest)


def _others(count: int) -> jax.Array:
    """For each of M libraries the numbers of all others, [M, M - 1]."""
    numbers = np.arange(count)
    return jnp.asarray([np.delete(numbers, m) for m in numbers], jnp.int32)
