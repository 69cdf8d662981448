"""How well hard routes do on the two-hop prompts of a half: one program per shape."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxlora import lora, models
from jaxlora.models import Decoder
from jaxlora.studies.two_hop.symbols import oracle_search
from jaxlora.studies.two_hop.symbols.lessons import Examples
from jaxlora.studies.two_hop.symbols.oracle_search import Best, Score
from jaxlora.tree import Tree

CHUNK = 32
"""Routes that one call of an exhaustive search tries."""


class Problem(NamedTuple):
    """What routes are searched for: C cells, each with groups of people."""

    params: Tree
    libraries: lora.Library
    """[G, E, ...]."""
    examples: Examples
    """[G, 2, N, ...]; half h of a route sees those of half h alone."""
    cells: jax.Array
    """[G], numbers below C."""


# At the top of the module, so that all blocks and seeds share the compiled programs.
@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def climb(
    model: Decoder,
    pad: int,
    values: int,
    climbers: int,
    problem: Problem,
    starts: jax.Array,
    sweeps: jax.Array,
) -> Best:
    """``oracle_search.climb`` on a model, in one program.

    Args:
      model: a decoder with the oracle's route.
      pad: id of the padding token.
      values: number of values of a layer and token: experts, and one more for none.
      climbers: how many of the starts climb.
      problem: what routes are for.
      starts: [C, 2, S, L, T].
      sweeps: [], at most.
    """
    score = functools.partial(of_routes, model, pad, problem)
    return oracle_search.climb(score, starts, values, climbers, sweeps)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def look(model: Decoder, pad: int, values: int, problem: Problem, best: Best) -> Best:
    """``oracle_search.look`` on a model, at the next routes by number.

    Args:
      model: a decoder with the oracle's route.
      pad: id of the padding token.
      values: number of values of a layer and token.
      problem: what routes are for.
      best: so far.
    """
    score = functools.partial(of_routes, model, pad, problem)
    return oracle_search.look(score, values, CHUNK, best)


def of_routes(model: Decoder, pad: int, problem: Problem, routes: jax.Array) -> Score:
    """Scores of routes [C, 2, P, L, T] on the examples of their half, [C, 2, P]."""
    mine = jnp.take(routes, problem.cells, axis=0)
    ask = functools.partial(_one_group, model, pad, problem.params)
    # Not vmapped: on a CPU the activations of one group fit the cache, of all do not.
    sums = jax.lax.map(lambda x: ask(*x), (problem.libraries, problem.examples, mine))
    right, loss, count = (
        jax.ops.segment_sum(x, problem.cells, num_segments=routes.shape[0])
        for x in sums
    )
    return Score(right, loss / jnp.maximum(count, 1.0)[..., None])


def _one_group(model, pad, params, library, given: Examples, routes: jax.Array):
    """Right answers and summed loss, [2, P], and the number of people, [2]."""
    halves, count, layers, length = routes.shape
    batch = (halves, count, given.tokens.shape[1])
    tokens = jnp.broadcast_to(given.tokens[:, None], (*batch, length))
    tokens = tokens.reshape(-1, length)
    chosen = labels(routes, lora.num_experts(library))  # [2, P, L, T, E]
    chosen = jnp.moveaxis(chosen, 2, 0)[:, :, :, None]
    chosen = jnp.broadcast_to(chosen, (layers, *batch, *chosen.shape[-2:]))
    chosen = chosen.reshape(layers, -1, *chosen.shape[-2:])
    inputs = models.Inputs(tokens, tokens != pad)
    logits = models.apply(model, params, inputs, library=library, labels=chosen)
    logits = logits[:, length - 1].reshape(*batch, -1)
    answers = jnp.broadcast_to(given.targets[:, None], batch)
    counts = given.weights[:, None] > 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, answers)
    hits = (jnp.argmax(logits, axis=-1) == answers) & counts
    # A person of weight 0 counts for nothing, even where its loss is no number.
    lost = jnp.sum(jnp.where(counts, losses, 0.0), axis=-1)
    return jnp.sum(hits, axis=-1, dtype=jnp.int32), lost, jnp.sum(given.weights, -1)


def labels(routes: jax.Array, experts: int) -> jax.Array:
    """The labels of routes [...], [..., E]: 1 for the expert, all 0 for none.

    >>> labels(jnp.asarray([0, 1, 2]), 2).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    return jax.nn.one_hot(routes, experts, dtype=jnp.float32)
