"""Statistics of each expert on its own training rows, for the merges that see them."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from jaxlora import lora, models
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.models import Decoder, statistics
from jaxlora.studies.two_hop.arms import MEMBERS
from jaxlora.studies.two_hop.symbols.experts import Experts, batches
from jaxlora.train.step import Batch
from jaxlora.tree import Tree


def measure(
    experts: Experts, arm: Arm, method: Method, library: lora.Library
) -> dict[str, jax.Array]:
    """Statistics of every expert on its own training rows, ``{site: [G, E, ...]}``.

    Args:
      experts: all experts of a base.
      arm: whose members' rows are used.
      method: RegMean or Fisher merging.
      library: its experts, [G, E, ...].

    Raises:
      ValueError: if it is not known which statistics the method sees.
    """
    measured = MEASURES.get(method)
    if measured is None:
        raise ValueError(
            f"The merge '{method}' sees the experts' own data, and this study knows "
            f"only which those are for {', '.join(map(repr, map(str, MEASURES)))}."
        )
    base = experts.base
    per_expert = []
    for i, member in enumerate(MEMBERS[arm]):
        rows = batches(experts, [member])
        mine = jax.tree.map(lambda x, i=i: x[:, i], library)
        rows = jax.tree.map(lambda x: x[0], rows)
        per_expert.append(measured(base.model, base.pad, base.params, mine, rows))
    return jax.tree.map(lambda *x: jnp.stack(x, axis=1), *per_expert)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _grams(model: Decoder, pad: int, base: Tree, adapters: lora.Adapter, rows: Batch):
    """Of the inputs at every token of a row, the position of the answer included."""

    def group(adapter: lora.Adapter, rows: Batch) -> dict[str, jax.Array]:
        mask = rows.tokens != pad
        used = rows.weights.sum(-1, keepdims=True) > 0
        counts = (mask | (rows.weights > 0)) & used
        weights = counts.astype(jnp.float32)
        inputs = models.Inputs(rows.tokens, mask)
        return statistics.input_grams(model, base, inputs, weights, adapter=adapter)

    return jax.vmap(group)(adapters, rows)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _importance(
    model: Decoder, pad: int, base: Tree, adapters: lora.Adapter, rows: Batch
):
    """Squared gradients of an answer's log-likelihood, of norm 1 over the model."""

    def score(params: Tree, row: Batch) -> jax.Array:
        tokens = row.tokens[None]
        logits = models.apply(model, params, models.Inputs(tokens, tokens != pad))[0]
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, row.targets)
        return -jnp.sum(nats * row.weights)

    def group(given: tuple[lora.Adapter, Batch]) -> dict[str, jax.Array]:
        adapter, rows = given
        used = (rows.weights.sum(-1) > 0).astype(jnp.float32)
        squares = statistics.squared_gradients(score, base, rows, used, adapter=adapter)
        norm = jnp.sqrt(sum(jnp.sum(x**2) for x in squares.values()))
        return jax.tree.map(lambda x: x / jnp.where(norm > 0, norm, 1.0), squares)

    return jax.lax.map(group, (adapters, rows))


MEASURES: Mapping[Method, Callable[..., dict[str, jax.Array]]] = {
    Method.REGMEAN: _grams,
    Method.FISHER: _importance,
}
"""What each merge sees of an expert: input Grams, or squared gradients."""
