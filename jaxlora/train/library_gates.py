"""The gates of one route for M libraries at once, whatever the route must see.

- :func:`fresh`, :func:`drawn`: gates that see nothing, and gates before training;
- :func:`on_own_rows`: measured on what each expert was trained on (average activation,
  retrieval), or trained there by each expert alone (Phatgoose);
- :func:`fit_keys`: one gate that learns on the questions of several libraries whose
  experts have the same roles. Its keys are numbered by experts, so that they serve all.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxlora import lora, models, route
from jaxlora.lora import Adapter, Library
from jaxlora.models import Decoder, Inputs, statistics
from jaxlora.train import full_batch, gate_data
from jaxlora.train.step import GATE, Batch, Fit, mean, step, sums
from jaxlora.tree import Tree

STEPS, RATE = 100, 1e-2
"""Of Adam, for every gate that is trained; Phatgoose's own number of steps."""


def prepared(how: route.Route, libraries: Library) -> Library:
    """Libraries as a route uses them; the general expert is the mean of each.

    Args:
      how: the route.
      libraries: [M, E, ...].
    """
    return libraries if how.prepare is None else _prepared(how, libraries)


@functools.partial(jax.jit, static_argnums=0)
def _prepared(how: route.Route, libraries: Library) -> Library:
    return jax.vmap(how.library)(libraries)


@functools.partial(jax.jit, static_argnums=0)
def fresh(model: Decoder, libraries: Library, key: jax.Array) -> Tree:
    """Untrained states [M, ...]; one key for all: they differ by their data only.

    Args:
      model: a decoder with a route.
      libraries: [M, E, ...], as the route uses them.
      key: of all gates.
    """

    def state(library: Library) -> Tree:
        return models.gate_state(model, library, key=key)

    return jax.vmap(state)(libraries)


@functools.partial(jax.jit, static_argnums=0)
def drawn(model: Decoder, libraries: Library, keys: jax.Array) -> Tree:
    """States [M, ...] without data, each with a key of its own.

    Args:
      model: a decoder with a route.
      libraries: [M, E, ...], as the route uses them.
      keys: [M].
    """

    def state(library: Library, key: jax.Array) -> Tree:
        return models.gate_state(model, library, key=key)

    return jax.vmap(state)(libraries, keys)


def on_own_rows(
    name: str,
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: Library,
    rows: Batch,
) -> Tree:
    """Gate states [M, ...] of what each expert's own training rows say of it.

    Args:
      name: of a route that sees the experts' own data.
      model: a decoder; a route of it is not used.
      pad: id of the padding token.
      base: params tree.
      libraries: [M, E, ...], as the route uses them.
      rows: [M, E, N, T]; unused rows weigh 0.
    """
    entry = route.describe(name)
    if entry.training is not None:
        alone = Decoder(model.config, entry.training)
        return _trained_alone(alone, pad, base, libraries, rows)
    return _measured(Decoder(model.config, entry.route), pad, base, libraries, rows)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measured(
    model: Decoder, pad: int, base: Tree, libraries: Library, rows: Batch
) -> Tree:
    """Gates of mean inputs where something is predicted, or of embedded rows."""

    def state(library: Library, rows: Batch) -> Tree:
        assert model.route is not None
        data = (_embedded if model.route.per == "model" else _inputs)(
            Decoder(model.config), pad, base, library, rows
        )
        return models.gate_state(model, library, data=data)

    return jax.vmap(state)(libraries, rows)


def _inputs(model: Decoder, pad: int, base: Tree, library: Library, rows: Batch):
    def expert(adapter: Adapter, rows: Batch) -> dict[str, jax.Array]:
        return statistics.mean_inputs(
            model,
            base,
            Inputs(rows.tokens, rows.tokens != pad),
            rows.weights,  # not 0 where a gate will be asked for a prediction
            adapter=adapter,
        )

    return jax.vmap(expert)(library, rows)


def _embedded(model: Decoder, pad: int, base: Tree, library: Library, rows: Batch):
    del library

    def expert(rows: Batch) -> jax.Array:
        # Rows that fill up a set weigh nothing: the first row stands in their place.
        used = jnp.sum(rows.weights, axis=-1, keepdims=True) > 0
        tokens = jnp.where(used, rows.tokens, rows.tokens[:1])
        return statistics.embeddings(model, base, tokens, tokens != pad)

    return {route.ROUTER: jax.vmap(expert)(rows)}


def _trained_alone(
    model: Decoder, pad: int, base: Tree, libraries: Library, rows: Batch
) -> Tree:
    """Each expert trains a gate alone; together they are the gate of the library."""
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (libraries, rows))
    alone, rows = gate_data.singles(flat[0]), flat[1]
    states = fresh(model, alone, jax.random.key(0))
    fit = functools.partial(full_batch.fit_gates, model, _adam(), STEPS, pad)
    states = gate_data.join_singles(fit(base, alone, states, rows)[0])
    count = lora.num_experts(libraries)  # of libraries: the leading axis is theirs
    return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), states)


def training_of(name: str) -> route.Route:
    """How the keys of a route that learns on the target task are trained.

    Args:
      name: of the route.

    Raises:
      ValueError: if its preset does not say so.
    """
    how = route.describe(name).training
    if how is None:
        raise ValueError(
            f"The route '{name}' sees data of the target task, and it is not known "
            f"how it learns: its preset has no training."
        )
    return how


def fit_keys(
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: Library,
    states: Tree,
    rows: Batch,
) -> Tree:
    """One set of keys, trained on the rows of K libraries at once.

    Args:
      model: a decoder with the route that is trained.
      pad: id of the padding token.
      base: params tree.
      libraries: [K, E, ...], frozen.
      states: [K, ...], of the same keys each, as :func:`fresh` makes them.
      rows: [K, Q, T]; what is not learned weighs 0.

    Returns:
      The part of a state that learns: see :data:`jaxlora.train.step.GATE`.
    """
    keys, rest = GATE.split(states)

    def summed(keys: Tree, rows: Batch) -> tuple[jax.Array, jax.Array]:
        def task(rest: Tree, library: Library, rows: Batch):
            held = {"base": base, "library": library}
            return sums(model, GATE, rest, held, pad)(keys, rows)

        losses, counts = jax.vmap(task)(rest, libraries, rows)
        return jnp.sum(losses), jnp.sum(counts)

    gradient = jax.value_and_grad(mean(summed))
    # All libraries start with the same keys: fresh() has one key for all.
    start = jax.tree.map(lambda x: x[0], keys)

    def body(fit: Fit, _: None) -> tuple[Fit, None]:
        return step(gradient, _adam(), fit, rows)[0], None

    fit = Fit(start, _adam().init(start))
    return jax.lax.scan(body, fit, None, length=STEPS)[0].params


@functools.cache
def _adam() -> optax.GradientTransformation:
    return optax.adam(RATE)
