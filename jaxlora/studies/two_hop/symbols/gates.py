"""The gates of routes that see data, made for all groups of a base at once.

Own data are the rows that an expert was trained on: such keys belong to one library.
Target data are two-hop questions about other people of the cell, as for the merges that
learn: keys are numbered by experts, which have the same roles in all libraries of a
cell, so that one gate learns on all of them; see :mod:`.lessons`.
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
from jaxlora.studies.two_hop.symbols.lessons import Lessons, by_half
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.train import full_batch as training
from jaxlora.train import gate_data
from jaxlora.train.step import GATE, Batch, Fit, mean, step, sums
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
    base: Base,
    method: Method,
    libraries: lora.Library,
    groups: tuple[Group, ...],
    given: Lessons,
    key: jax.Array,
) -> tuple[Tree, Tree]:
    """Gate states [G, ...] that learned on two-hop questions, for each half.

    Args:
      base: a trained base.
      method: a route that learns on the target task.
      libraries: of every group, [G, E, ...].
      groups: in the order of G.
      given: who is learned from.
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
    states = fresh(model, libraries, key)
    by_cell = _shared(model, base.pad, base.params, libraries, states, given)
    keys = by_half(given, groups, by_cell)
    _, rest = GATE.split(states)
    first, second = (
        GATE.join(jax.tree.map(lambda x, h=half: x[h], keys), rest) for half in (0, 1)
    )
    return first, second


@functools.partial(jax.jit, static_argnums=(0, 1))
def _shared(
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: lora.Library,
    states: Tree,
    given: Lessons,
) -> Tree:
    """Keys [C, K, 2, ...] for every half of every group, cell after cell."""

    def cell(given: Lessons) -> Tree:
        where = given.groups
        mine, begun = jax.tree.map(lambda x: x[where], (libraries, states))

        def half(weights: jax.Array) -> Tree:
            rows = _rows(given.tokens, given.targets, weights)
            return _fit_keys(model, pad, base, mine, begun, rows)

        return jax.vmap(jax.vmap(half))(given.weights)

    return jax.lax.map(cell, given)


def _fit_keys(
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: lora.Library,
    states: Tree,
    rows: Batch,
) -> Tree:
    """One set of keys, trained on the rows [K, N, T] of K libraries at once."""
    keys, rest = GATE.split(states)

    def summed(keys: Tree, rows: Batch) -> tuple[jax.Array, jax.Array]:
        def group(rest: Tree, library: lora.Library, rows: Batch):
            held = {"base": base, "library": library}
            return sums(model, GATE, rest, held, pad)(keys, rows)

        losses, counts = jax.vmap(group)(rest, libraries, rows)
        return jnp.sum(losses), jnp.sum(counts)

    gradient = jax.value_and_grad(mean(summed))
    # All libraries start with the same keys: fresh() has one key for all.
    start = jax.tree.map(lambda x: x[0], keys)

    def body(fit: Fit, _: None) -> tuple[Fit, None]:
        return step(gradient, _adam(), fit, rows)[0], None

    fit = Fit(start, _adam().init(start))
    return jax.lax.scan(body, fit, None, length=STEPS)[0].params


def _rows(tokens: jax.Array, targets: jax.Array, weights: jax.Array) -> Batch:
    """Questions [K, N, 3] as training rows, answered at the end."""

    def last(x: jax.Array) -> jax.Array:
        return jnp.stack([jnp.zeros_like(x), jnp.zeros_like(x), x], axis=-1)

    return Batch(tokens, last(targets), last(weights))


@functools.cache
def _adam() -> optax.GradientTransformation:
    return optax.adam(RATE)
