"""One call of a decoder while it generates: of one model, or of all experts at once."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxlora.lora import Adapter
from jaxlora.models import cache as caches
from jaxlora.models import routing
from jaxlora.models.cache import Cache
from jaxlora.models.calls import extend, unembed
from jaxlora.models.decoder import Decoder
from jaxlora.models.inputs import Adapted, Inputs
from jaxlora.tree import Tree


def forward(
    model: Decoder,
    base: Tree,
    adapted: Adapted,
    inputs: Inputs,
    cache: Cache,
    at: jax.Array | int = -1,
) -> tuple[jax.Array, Cache]:
    """Returns logits [B, V] after one token of each row, and the next cache.

    Args:
      model: a decoder.
      base: params tree.
      adapted: what changes the base.
      inputs: tokens [B, T] and their mask.
      cache: of what came before.
      at: index of the token; the last by default.
    """
    x, cache = extend(model, base, inputs, cache, **adapted._asdict())
    return unembed(model, base, x[:, at], adapted.adapter), cache


def forward_all(
    model: Decoder,
    base: Tree,
    adapted: Adapted,
    inputs: Inputs,
    cache: Cache,
    at: jax.Array | int = -1,
) -> tuple[jax.Array, Cache]:
    """As :func:`forward`, of every expert: logits [E, B, V] of tokens [E, B, T].

    Args:
      model: a decoder without a route.
      base: params tree.
      adapted: with a library [E, ...].
      inputs: tokens [E, B, T], and their mask [B, T].
      cache: as :func:`empty` makes it for E experts.
      at: index of the token.
    """

    def single(cache: Cache, tokens: jax.Array, adapter: Adapter):
        row = inputs._replace(tokens=tokens)
        return forward(model, base, Adapted(adapter), row, cache, at)

    # All experts fill the same slots: only their keys, values and states differ.
    of: Any = Cache
    axes = of(keys=0, values=0, segments=None, start=None, state=0)
    run = jax.vmap(single, in_axes=(axes, 0, 0), out_axes=(0, axes))
    return run(cache, inputs.tokens, adapted.library)


def empty(
    model: Decoder,
    adapted: Adapted,
    shape: tuple[int, ...],
    steps: int,
    lead: tuple[int, ...],
) -> Cache:
    """Returns a cache for prompts and the tokens to come.

    Args:
      model: a decoder.
      adapted: what changes the base.
      shape: [B, T] of the prompts.
      steps: tokens to come.
      lead: (E,) for all experts of a library at once, else ().
    """
    rows, slots = shape[0], shape[1] + steps
    pooled = routing.pooled(model.route, model.config, adapted.library, rows)
    cache = caches.empty(model.config, rows, slots, pooled)
    mine = (cache.keys, cache.values, cache.state)
    mine = jax.tree.map(lambda x: spread(x, lead), mine)
    new = dict(zip(("keys", "values", "state"), mine, strict=True))
    return dataclasses.replace(cache, **new)


def spread(x: jax.Array, lead: tuple[int, ...]) -> jax.Array:
    """Returns one copy of an array for each expert.

    Args:
      x: of any shape.
      lead: (E,) for all experts of a library at once, else ().
    """
    return jnp.broadcast_to(x, (*lead, *x.shape))
