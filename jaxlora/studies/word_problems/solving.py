"""Solving problems: prompts continued greedily, under many models in one program."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.lora import Adapter, Library
from jaxlora.models import Decoder, Inputs
from jaxlora.models.decoding import Decoding
from jaxlora.models.generate import generate
from jaxlora.tasks import word_problems
from jaxlora.tasks.word_problems import Problems, Vocab
from jaxlora.tasks.word_problems.vocab import prompt_length, row_length
from jaxlora.tree import Tree


class Prompts(NamedTuple):
    """Prompts padded on the left, so that all are continued from one place."""

    tokens: np.ndarray
    """int32 [..., Q, T]."""
    mask: np.ndarray
    """bool [..., Q, T]."""


def prompts(
    problems: Problems, formats: np.ndarray | int, vocab: Vocab, levels: int
) -> Prompts:
    """The questions of some problems.

    Args:
      problems: Q chains.
      formats: int [Q], or one for all.
      vocab: gives the ids.
      levels: the highest level of any problem that is asked: T is its prompt's length.
    """
    rows = word_problems.render(problems, formats, vocab, row_length(levels))
    length = prompt_length(levels)
    shift = length - rows.prompt_lengths[:, None]
    at = np.arange(length) - shift
    tokens = np.take_along_axis(rows.tokens, np.maximum(at, 0), axis=1)
    return Prompts(np.where(at >= 0, tokens, vocab.pad).astype(np.int32), at >= 0)


def of_params(
    model: Decoder, vocab: Vocab, params: Tree, asked: Prompts, stacked: bool
) -> np.ndarray:
    """Written solutions [M, Q, N] of M sets of parameters.

    Args:
      model: a decoder without a route.
      vocab: gives the ids.
      params: [M, ...], or one tree for all.
      asked: prompts [M, Q, T].
      stacked: do the parameters have a leading axis M?
    """
    how = decoding(vocab, asked)
    return np.asarray(_of_params(model, how, stacked, params, *asked))


def of_libraries(
    model: Decoder,
    vocab: Vocab,
    base: Tree,
    libraries: Library,
    gates: Tree,
    asked: Prompts,
) -> np.ndarray:
    """Written solutions [M, Q, N] of M routed libraries.

    Args:
      model: a decoder with a route.
      vocab: gives the ids.
      base: params tree.
      libraries: [M, E, ...].
      gates: states of the route, [M, ...].
      asked: prompts [M, Q, T].
    """
    how = decoding(vocab, asked)
    return np.asarray(_of_libraries(model, how, base, libraries, gates, *asked))


def of_adapters(
    model: Decoder, vocab: Vocab, base: Tree, adapters: Adapter, asked: Prompts
) -> np.ndarray:
    """Written solutions [M, Q, N] of M adapters of one base.

    Args:
      model: a decoder without a route.
      vocab: gives the ids.
      base: params tree.
      adapters: [M, ...].
      asked: prompts [M, Q, T].
    """
    how = decoding(vocab, asked)
    return np.asarray(_of_adapters(model, how, base, adapters, *asked))


def decoding(vocab: Vocab, asked: Prompts) -> Decoding:
    """As many tokens as the longest solution has, until END.

    Args:
      vocab: gives the ids.
      asked: prompts of T tokens.
    """
    levels = (asked.tokens.shape[-1] - prompt_length(0)) // 2
    return Decoding(3 * levels + 1, stop=(vocab.end,), pad=vocab.pad)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _of_params(model, how, stacked, params, tokens, mask):
    def ask(params: Tree, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        return generate(model, params, Inputs(tokens, mask), how).tokens

    return jax.vmap(ask, in_axes=(0 if stacked else None, 0, 0))(params, tokens, mask)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _of_adapters(model, how, base, adapters, tokens, mask):
    def ask(adapter: Adapter, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        return generate(model, base, Inputs(tokens, mask), how, adapter=adapter).tokens

    return jax.vmap(ask)(adapters, jnp.asarray(tokens), jnp.asarray(mask))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _of_libraries(model, how, base, libraries, gates, tokens, mask):
    def ask(library: Library, gate: Tree, tokens: jax.Array, mask: jax.Array):
        given = {"library": library, "gate": gate}
        return generate(model, base, Inputs(tokens, mask), how, **given).tokens

    return jax.vmap(ask)(libraries, gates, tokens, mask)
