"""Asking a model questions: answer logits of many adapters in one program.

Every function maps over a leading axis M of models: the base with M adapters, M sets of
params, or M libraries under one route. Only the logits at answer positions
leave the device.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlora.lora import Adapter, Library
from jaxlora.models import Decoder, Inputs, apply, gate_state
from jaxlora.tree import Tree


class Questions(NamedTuple):
    """Prompts as token ids, padded on the right.

    Shapes: ``direct`` [M, Q, 3], answered at positions ``at`` [M, Q]; ``written``
    [M, N, 5], whose position 3 asks for the bridge and position 4 is filled with it;
    ``context`` [M, N, 9], answered at position 8.
    """

    direct: jax.Array
    written: jax.Array
    context: jax.Array
    at: jax.Array


class Answers(NamedTuple):
    """Logits: ``direct`` [M, Q, V], ``written`` and ``context`` [M, N, V].

    ``bridge`` [M, N] is the token that the model wrote before ``written``.
    """

    direct: Any
    bridge: Any
    written: Any
    context: Any


class Labels(NamedTuple):
    """Oracle weights for each kind of question, [L, Q or N, T, E]."""

    direct: jax.Array
    written: jax.Array
    context: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1))
def of_adapters(
    model: Decoder, pad: int, base: Tree, adapters: Adapter, questions: Questions
) -> Answers:
    """Asks M adapters on one base; adapters are [M, ...]."""

    def ask(adapter: Adapter, asked: Questions) -> Answers:
        return _ask(lambda tokens, _: _run(model, pad, base, tokens, adapter), asked)

    return jax.vmap(ask)(adapters, questions)


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def of_params(
    model: Decoder, pad: int, params: Tree, questions: Questions, stacked: bool
) -> Answers:
    """Asks M sets of params (``stacked``), or the same one M times; no adapter."""

    def ask(params: Tree, asked: Questions) -> Answers:
        return _ask(lambda tokens, _: _run(model, pad, params, tokens, None), asked)

    return jax.vmap(ask, in_axes=(0 if stacked else None, 0))(params, questions)


@functools.partial(jax.jit, static_argnums=(0, 1))
def of_libraries(
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: Library,
    questions: Questions,
    labels: Labels | None = None,
    gates: Tree | None = None,
) -> Answers:
    """Asks M libraries [M, E, ...] under the model's route.

    Args:
      model: a decoder with a route.
      pad: id of the padding token.
      base: params tree.
      libraries: one library for each of M.
      questions: prompts.
      labels: for the oracle gate, the same for all M.
      gates: state of the route for each of M; by default made of the library alone.
    """

    def ask(library: Library, asked: Questions, state: Tree | None) -> Answers:
        # The gate state is made once a library, not once a question.
        state = gate_state(model, library) if state is None else state

        def forward(tokens: jax.Array, given: jax.Array | None) -> jax.Array:
            inputs = Inputs(tokens, tokens != pad)
            return apply(model, base, inputs, library=library, gate=state, labels=given)

        return _ask(forward, asked, labels)

    return jax.vmap(ask)(libraries, questions, gates)


def _run(model: Decoder, pad: int, params: Tree, tokens: jax.Array, adapter):
    return apply(model, params, Inputs(tokens, tokens != pad), adapter=adapter)


def _ask(forward, asked: Questions, labels: Labels | None = None) -> Answers:
    given = labels or (None, None, None)
    logits = forward(asked.direct, given[0])
    direct = jnp.take_along_axis(logits, asked.at[:, None, None], axis=1)[:, 0]
    bridge = jnp.argmax(forward(asked.written, given[1])[:, 3], axis=-1)
    bridge = bridge.astype(asked.written.dtype)
    filled = asked.written.at[:, 4].set(bridge)
    written = forward(filled, given[1])[:, 4]
    context = forward(asked.context, given[2])[:, 8]
    return Answers(direct, bridge, written, context)


@functools.partial(jax.jit, static_argnums=(0, 1))
def right(
    model: Decoder,
    pad: int,
    base: Tree,
    tokens: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    adapter: Adapter | None = None,
) -> jax.Array:
    """Which rows [N, T] have every weighted target as their argmax; [N] booleans."""
    logits = apply(model, base, Inputs(tokens, tokens != pad), adapter=adapter)
    hit = jnp.argmax(logits, axis=-1) == targets
    return jnp.all(hit | (weights == 0), axis=-1)
