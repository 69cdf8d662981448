"""The gates of routes that see data, made for all groups of a base at once.

Own data are the rows that an expert was trained on; target data are two-hop questions
about other people of the group, as for the merges that learn: each half of the people
is routed by a gate that learned on the other half.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxlora import lora, models, route
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.models import Decoder, Inputs, statistics
from jaxlora.studies.two_hop.arms import MEMBERS
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.experts import Experts, batches
from jaxlora.studies.two_hop.symbols.learning import Examples
from jaxlora.train import full_batch as training
from jaxlora.train import gate_data
from jaxlora.train.step import Batch
from jaxlora.tree import Tree

STEPS, RATE = 100, 1e-2
"""Of Adam, for every gate that is trained; Phatgoose's own number of steps."""


def prepared(how: route.Route, libraries: lora.Library) -> lora.Library:
    """Libraries [G, E, ...] as a route uses them; the general expert is their mean."""
    return libraries if how.prepare is None else _prepared(how, libraries)


@functools.partial(jax.jit, static_argnums=0)
def _prepared(how: route.Route, libraries: lora.Library) -> lora.Library:
    return jax.vmap(how.library)(libraries)


def on_own_data(
    experts: Experts, arm: Arm, method: Method, library: lora.Library
) -> Tree:
    """Gate states [G, ...] from the experts' own training rows.

    Args:
      experts: all experts of a base.
      arm: whose members' rows are used, also where the members are controls.
      method: a route that sees the experts' own data.
      library: its experts, [G, E, ...].
    """
    base, entry = experts.base, route.describe(str(method))
    rows = batches(experts, MEMBERS[arm])
    rows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), rows)  # [G, E, N, T]
    given = (base.pad, base.params, library, rows)
    if entry.training is not None:
        return _trained(Decoder(base.model.config, entry.training), *given)
    return _measured(Decoder(base.model.config, entry.route), *given)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measured(
    model: Decoder, pad: int, base: Tree, libraries: lora.Library, rows: Batch
) -> Tree:
    """Gates of mean inputs at the last token, or of the embedded prompts."""

    def group(library: lora.Library, rows: Batch) -> Tree:
        assert model.route is not None
        data = (_prompts if model.route.per == "model" else _inputs)(
            Decoder(model.config), pad, base, library, rows
        )
        return models.gate_state(model, library, data=data)

    return jax.vmap(group)(libraries, rows)


def _inputs(model: Decoder, pad: int, base: Tree, library: lora.Library, rows: Batch):
    def expert(adapter: lora.Adapter, rows: Batch) -> dict[str, jax.Array]:
        return statistics.mean_inputs(
            model,
            base,
            Inputs(rows.tokens, rows.tokens != pad),
            rows.weights,  # not 0 at the last token of a question alone
            adapter=adapter,
        )

    return jax.vmap(expert)(library, rows)


def _prompts(model: Decoder, pad: int, base: Tree, library: lora.Library, rows: Batch):
    del library

    def expert(rows: Batch) -> jax.Array:
        # Rows that fill up a set weigh nothing: the first row stands in their place.
        used = jnp.sum(rows.weights, axis=-1, keepdims=True) > 0
        tokens = jnp.where(used, rows.tokens, rows.tokens[:1])
        return statistics.embeddings(model, base, tokens, tokens != pad)

    return {route.ROUTER: jax.vmap(expert)(rows)}


def _trained(
    model: Decoder, pad: int, base: Tree, libraries: lora.Library, rows: Batch
) -> Tree:
    """Each expert trains a gate alone; together they are the gate of the library."""
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (libraries, rows))
    alone, rows = gate_data.singles(flat[0]), flat[1]
    states = fresh(model, alone, jax.random.key(0))
    fit = functools.partial(training.fit_gates, model, _adam(), STEPS, pad)
    states = gate_data.join_singles(fit(base, alone, states, rows)[0])
    groups = lora.num_experts(libraries)
    return jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), states)


@functools.partial(jax.jit, static_argnums=0)
def fresh(model: Decoder, libraries: lora.Library, key: jax.Array) -> Tree:
    """Untrained states [G, ...]; one key for all: groups differ by their data only."""

    def group(library: lora.Library) -> Tree:
        return models.gate_state(model, library, key=key)

    return jax.vmap(group)(libraries)


def on_target(
    base: Base, method: Method, library: lora.Library, given: Examples, key: jax.Array
) -> tuple[Tree, Tree]:
    """Gate states [G, ...] that learned on two-hop questions, for each half.

    Args:
      base: a trained base.
      method: a route that learns on the target task.
      library: of every group, [G, E, ...].
      given: examples of every group and half.
      key: of the gates' starts.

    Raises:
      ValueError: if the route has no training.
    """
    how = route.describe(str(method)).training
    if how is None:
        raise ValueError(
            f"The route '{method}' sees data of the target task, and it is not known "
            f"how it learns: its preset has no training."
        )
    model = Decoder(base.model.config, how)
    states = fresh(model, library, key)
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), (library, states))
    rows = _rows(given)
    trained, _ = training.fit_gates(
        model, _adam(), STEPS, base.pad, base.params, *twice, rows
    )
    first, second = (
        jax.tree.map(lambda x, h=half: x.reshape(2, -1, *x.shape[1:])[h], trained)
        for half in (0, 1)
    )
    return first, second


def _rows(given: Examples) -> Batch:
    """Examples [G, 2, N, 3] as training rows [2 * G, N, 3], answered at the end."""

    def last(x: jax.Array) -> jax.Array:
        return jnp.stack([jnp.zeros_like(x), jnp.zeros_like(x), x], axis=-1)

    rows = Batch(given.tokens, last(given.targets), last(given.weights))
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), rows)


@functools.cache
def _adam() -> optax.GradientTransformation:
    return optax.adam(RATE)
