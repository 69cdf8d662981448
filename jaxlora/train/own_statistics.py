"""Statistics of experts on their own training rows, for the merges that see them.

RegMean (Jin et al., arXiv 2212.09849) sees the second moments of what enters each
kernel, Fisher merging (Matena and Raffel, arXiv 2111.09832) squared gradients. Both are
measured for M libraries at once, expert after expert: one program, whose memory is that
of one expert of each library.
"""

import functools
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import optax

from jaxlora import models
from jaxlora.lora import Library
from jaxlora.models import Decoder, statistics
from jaxlora.train.step import Batch
from jaxlora.tree import Tree


def measured(
    name: str,
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: Library,
    rows: Iterable[Batch],
) -> dict[str, jax.Array]:
    """What a merge sees of every expert, on its own rows: ``{site: [M, E, ...]}``.

    Args:
      name: of the merge, a key of ``MEASURES``.
      model: a decoder without a route.
      pad: id of the padding token.
      base: params tree.
      libraries: [M, E, ...].
      rows: of expert after expert, [M, N, T] each, N and T of its own; unused rows
        weigh 0.

    Raises:
      ValueError: if it is not known which statistics the merge sees.
    """
    measure = MEASURES.get(name)
    if measure is None:
        raise ValueError(
            f"The merge '{name}' sees the experts' own data, and it is known only for "
            f"{', '.join(map(repr, MEASURES))} which statistics of them those are."
        )
    per_expert = []
    for e, batch in enumerate(rows):
        adapters = jax.tree.map(lambda x, e=e: x[:, e], libraries)
        per_expert.append(measure(model, pad, base, adapters, batch))
    return jax.tree.map(lambda *x: jnp.stack(x, axis=1), *per_expert)


@functools.partial(jax.jit, static_argnums=(0, 1))
def grams(
    model: Decoder, pad: int, base: Tree, adapters: Library, rows: Batch
) -> dict[str, jax.Array]:
    """Second moments of the inputs of each kernel, ``{site: [M, L, D, D]}``.

    Inputs are those at every token of a row, and where something is predicted, be it at
    a padding token.

    Args:
      model: a decoder without a route.
      pad: id of the padding token.
      base: params tree.
      adapters: [M, ...]; each is on while its rows are read.
      rows: [M, N, T]; unused rows weigh 0.
    """

    def group(adapter: Library, rows: Batch) -> dict[str, jax.Array]:
        mask = rows.tokens != pad
        used = rows.weights.sum(-1, keepdims=True) > 0
        counts = (mask | (rows.weights > 0)) & used
        weights = counts.astype(jnp.float32)
        inputs = models.Inputs(rows.tokens, mask)
        return statistics.input_grams(model, base, inputs, weights, adapter=adapter)

    return jax.vmap(group)(adapters, rows)


@functools.partial(jax.jit, static_argnums=(0, 1))
def importance(
    model: Decoder, pad: int, base: Tree, adapters: Library, rows: Batch
) -> dict[str, jax.Array]:
    """Squared gradients of each row's log-likelihood, ``{site: [M, L, D, F]}``.

    They have norm 1 over the model, as Fisher merging wants them: unscaled, many would
    be below its floor.

    Args:
      model: a decoder without a route.
      pad: id of the padding token.
      base: params tree.
      adapters: [M, ...]; each is on while its rows are read.
      rows: [M, N, T]; unused rows weigh 0.
    """

    def score(params: Tree, row: Batch) -> jax.Array:
        tokens = row.tokens[None]
        logits = models.apply(model, params, models.Inputs(tokens, tokens != pad))[0]
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, row.targets)
        return -jnp.sum(nats * row.weights)

    def group(given: tuple[Library, Batch]) -> dict[str, jax.Array]:
        adapter, rows = given
        used = (rows.weights.sum(-1) > 0).astype(jnp.float32)
        squares = statistics.squared_gradients(score, base, rows, used, adapter=adapter)
        norm = jnp.sqrt(sum(jnp.sum(x**2) for x in squares.values()))
        return jax.tree.map(lambda x: x / jnp.where(norm > 0, norm, 1.0), squares)

    return jax.lax.map(group, (adapters, rows))


MEASURES: Mapping[str, Callable[..., dict[str, jax.Array]]] = {
    "regmean": grams,
    "fisher": importance,
}
"""What each merge that sees own data sees of an expert."""
