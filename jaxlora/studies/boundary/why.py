"""Why a combination composes: where the bridge is, and where the second fact is read.

Three measurements of one combined model, for all groups of a base in one program. The
lens reads the residual stream of every layer and position. Patching puts the stream of
another run, a *donor's*, in one layer and position, and counts how often the donor's
answer follows. Ablation switches layers of one expert off before the two are combined.

Layers are counted as states of the stream: 0 is before the first layer, L after the
last. Interchange interventions: Geiger et al., Causal Abstractions of Neural Networks
(arXiv 2106.02997); patching two-hop queries: Biran et al., Hopping Too Late (arXiv
2406.12775).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlora import merge, models
from jaxlora.evaluate.schema import Method
from jaxlora.lora import Adapter, Library
from jaxlora.models import Decoder, residual
from jaxlora.studies.boundary.donors import Donor, Query
from jaxlora.tree import Tree


class Lens(NamedTuple):
    """What the stream reads as at every layer and position, [G, N, S + 1, T] each."""

    bridge: jax.Array
    """Is the bridge the likeliest token?"""
    bridge_logp: jax.Array
    bridge_rank: jax.Array
    """1 is the likeliest of all tokens."""
    subject: jax.Array
    """Of all embeddings, is the bridge's the nearest by cosine?"""
    answer: jax.Array
    """Is the right answer the likeliest token?"""
    answer_logp: jax.Array
    answer_rank: jax.Array


class Patched(NamedTuple):
    """What patching did, for every layer and position, [G, N, S + 1, T]."""

    follows: jax.Array
    """Is the answer the donor's?"""
    logp: jax.Array
    """Log-probability of the donor's answer."""
    donor: jax.Array
    """Does the donor itself give this answer? [G, N]."""


class Ablated(NamedTuple):
    """Right or wrong under each of M masks, [M, G, N] each."""

    hop1: jax.Array
    hop2: jax.Array
    two_hop: jax.Array
    """Of the question as it is asked, the bridge written anew where it is written."""
    right_bridge: jax.Array
    """Of the question with the right bridge; the same where none is written."""
    bridge: jax.Array
    """Is the written bridge right? Never, where none is written."""


@functools.partial(jax.jit, static_argnums=0)
def combine(
    method: Method, libraries: Library, kept: jax.Array | None = None
) -> Adapter:
    """Merges the library of every group, after switching layers of its experts off.

    Args:
      method: a merge that needs no data, static under jit.
      libraries: leaves [G, E, L, ...].
      kept: [E, L], 0 where a layer is switched off; by default none is.

    Returns:
      Adapters [G, ...].
    """
    how = merge.preset(str(method))

    def group(library: Library) -> Adapter:
        if kept is not None:
            library = jax.vmap(residual.ablate)(library, kept)
        return how(library)

    return jax.vmap(group)(libraries)


@functools.partial(jax.jit, static_argnums=0)
def write(model: Decoder, params: Tree, adapters: Adapter, query: Query) -> Query:
    """Fills in the bridge that each model writes itself; a direct query stays.

    Args:
      model: a decoder.
      params: base params.
      adapters: [G, ...].
      query: [G, N, T].
    """
    if not query.written:
        return query
    bridges = _answers(model, params, adapters, query.tokens[..., :-1])
    tokens = query.tokens.at[..., -1].set(bridges.astype(query.tokens.dtype))
    return query._replace(tokens=tokens)


@functools.partial(jax.jit, static_argnums=0)
def lens(model: Decoder, params: Tree, adapters: Adapter, query: Query) -> Lens:
    """Reads bridge and answer off the residual stream.

    Args:
      model: a decoder.
      params: base params.
      adapters: [G, ...].
      query: [G, N, T].
    """
    table = params["embed"]["embedding"]

    def group(adapter: Adapter, asked: Query) -> Lens:
        states = residual.trace(model, params, asked.tokens, adapter)
        # [S + 1, N, T, D] to [N, S + 1, T, D]: people first, as in all measurements.
        states = jnp.moveaxis(states, 1, 0)
        logp = jax.nn.log_softmax(residual.lens(model, params, states))
        near = jnp.argmax(_unit(states) @ _unit(table).T, axis=-1)
        near = near == asked.bridge[:, None, None]
        top, mine, rank = _read(logp, asked.bridge)
        return Lens(top, mine, rank, near, *_read(logp, asked.answer))

    return jax.vmap(group)(adapters, query)


@functools.partial(jax.jit, static_argnums=0)
def patch(
    model: Decoder, params: Tree, adapters: Adapter, query: Query, donor: Donor
) -> Patched:
    """Patches every layer and position from the donor's run.

    Args:
      model: a decoder.
      params: base params.
      adapters: [G, ...], of the run that is patched.
      query: [G, N, T].
      donor: the other run.
    """
    used, chosen = donor.places >= 0, jnp.maximum(donor.places, 0)

    def group(adapter, asked: Query, other: Adapter, tokens, wanted) -> Patched:
        states = residual.trace(model, params, tokens, other)
        end = states[-1][:, jnp.max(donor.places)]
        alone, _ = _compared(residual.lens(model, params, end), wanted)
        # Where the donor has nothing to give, the run is patched by itself.
        mine = residual.trace(model, params, asked.tokens, adapter)
        source = jnp.where(used[:, None], states[:, :, chosen], mine)

        def read(hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
            return _compared(models.unembed(model, params, hidden[:, -1]), wanted)

        swept = residual.sweep(model, params, asked.tokens, source, read, adapter)
        follows, logp = (jnp.moveaxis(x, -1, 0) for x in swept)
        return Patched(follows, logp, alone)

    return jax.vmap(group)(adapters, query, donor.adapters, donor.tokens, donor.answer)


@functools.partial(jax.jit, static_argnums=(0, 1))
def ablate(
    model: Decoder,
    method: Method,
    params: Tree,
    libraries: Library,
    query: Query,
    kept: jax.Array,
) -> Ablated:
    """Asks the combined model with layers of its experts switched off.

    Args:
      model: a decoder.
      method: a merge that needs no data.
      params: base params.
      libraries: leaves [G, 2, L, ...], of A->B and B->C.
      query: [G, N, T], with the right bridge where one is written.
      kept: masks [M, 2, L], 0 where a layer is off.
    """
    tokens = query.tokens
    second = jnp.stack([query.bridge.astype(tokens.dtype), tokens[..., 2]], axis=-1)

    def masked(mask: jax.Array) -> Ablated:
        adapters = combine(method, libraries, mask)
        ask = functools.partial(_answers, model, params, adapters)
        anew = write(model, params, adapters, query).tokens
        return Ablated(
            ask(tokens[..., :2]) == query.bridge,
            ask(second) == query.answer,
            ask(anew) == query.answer,
            ask(tokens) == query.answer,
            (anew[..., -1] == query.bridge) & query.written,
        )

    return jax.lax.map(masked, kept)


def _answers(model: Decoder, params: Tree, adapters: Adapter, tokens: jax.Array):
    """The likeliest tokens after questions [G, N, T], [G, N]."""

    def group(adapter: Adapter, asked: jax.Array) -> jax.Array:
        hidden = models.hidden(model, params, asked, adapter=adapter)
        return jnp.argmax(models.unembed(model, params, hidden[:, -1]), axis=-1)

    return jax.vmap(group)(adapters, tokens)


def _compared(logits: jax.Array, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether wanted [N] is the argmax of logits [N, V], and its log-probability."""
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits), wanted[:, None], axis=-1)
    return jnp.argmax(logits, axis=-1) == wanted, logp[:, 0]


def _read(logp: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Top-1, log-probability and rank of tokens [N] in [N, S + 1, T, V]."""
    mine = jnp.take_along_axis(logp, tokens[:, None, None, None], axis=-1)
    rank = 1 + (logp > mine).sum(-1)
    return rank == 1, mine[..., 0], rank


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
