"""Calling a decoder: checked entry points around ``Decoder.apply``.

>>> config = DecoderConfig(vocab_size=16, hidden_size=8, num_layers=2, mlp_size=16,
...                        num_heads=2, num_kv_heads=2, head_dim=4)
>>> model = Decoder(config)
>>> tokens = jnp.zeros((1, 3), jnp.int32)
>>> base = init(jax.random.key(0), model)
>>> apply(model, base, tokens).shape
(1, 3, 16)
>>> padded = Inputs(tokens, mask=jnp.array([[True, True, False]]))
>>> hidden(model, base, padded).shape
(1, 3, 8)
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxlora import tree as named
from jaxlora.lora import Adapter, Library
from jaxlora.models import sites
from jaxlora.models.cache import Cache
from jaxlora.models.config import DecoderConfig as DecoderConfig
from jaxlora.models.decoder import Decoder, Output, logits
from jaxlora.models.inputs import Adapted, Inputs, Tokens, inputs_of
from jaxlora.models.routing import POOLED
from jaxlora.models.variables import spread, variables
from jaxlora.parallel import layout
from jaxlora.tree import Tree


def init(key: jax.Array, model: Decoder) -> Tree:
    """Returns fresh base parameters.

    Args:
      key: PRNG key.
      model: a decoder; a route of it has no parameters.
    """
    tokens = jnp.zeros((1, 1), jnp.int32)
    return Decoder(model.config).init(key, Inputs(tokens))["params"]


def leaf_shapes(model: Decoder) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and type of each leaf of a decoder's parameters, by name.

    Args:
      model: a decoder.

    >>> leaf_shapes(Decoder(DecoderConfig(hidden_size=8)))["final_norm/scale"].shape
    (8,)
    """
    return named.flatten(jax.eval_shape(lambda: init(jax.random.key(0), model)))


def apply(
    model: Decoder,
    base: Tree,
    inputs: Tokens,
    *,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
    labels: jax.Array | None = None,
) -> jax.Array:
    """Runs the base alone, with one adapter, or with a routed library.

    Args:
      model: a decoder; its ``route`` says whether it is routed.
      base: params tree.
      inputs: token ids [B, T], or :class:`Inputs` with a mask, segments or positions.
      adapter: one adapter, for a model without a route.
      library: a library [E, ...], for a model with a route.
      gate: the route's state for the library; by default that of :func:`gate_state`.
      labels: weights for the oracle gate only: [L, B, T, E], the same in all layers
        [B, T, E], or for whole sequences [B, E].

    Returns:
      Logits [B, T, V], float32.

    Raises:
      ValueError: if adapter or library does not fit the base or the model's route,
        the labels have another shape, both mask and segments are given, or the
        sequence is too long.
    """
    adapted = Adapted(adapter, library, gate)
    x = _run(model, base, inputs, adapted, labels).hidden
    return unembed(model, base, x, adapter)


def hidden(
    model: Decoder,
    base: Tree,
    inputs: Tokens,
    *,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
    labels: jax.Array | None = None,
) -> jax.Array:
    """Returns the final hidden states, those that :func:`unembed` makes logits of.

    ``unembed(model, base, hidden(...), adapter)`` equals ``apply(...)``; scores of a
    large vocabulary need not be in memory for every token at once.

    Args:
      model: a decoder; its ``route`` says whether it is routed.
      base: params tree.
      inputs: token ids [B, T], or :class:`Inputs` with a mask, segments or positions.
      adapter: one adapter, for a model without a route.
      library: a library [E, ...], for a model with a route.
      gate: the route's state for the library; by default that of :func:`gate_state`.
      labels: weights for the oracle gate only, [L, B, T, E], [B, T, E] or [B, E].

    Returns:
      [B, T, D], in the dtype of the activations.

    Raises:
      ValueError: as :func:`apply`.
    """
    adapted = Adapted(adapter, library, gate)
    return _run(model, base, inputs, adapted, labels).hidden


def _run(model: Decoder, base, inputs: Tokens, adapted: Adapted, labels) -> Output:
    inputs = inputs_of(inputs)
    given = variables(model, base, inputs.tokens, adapted, labels)
    output: Any = model.apply(given, inputs, spread(model, inputs.tokens, labels))
    return output


def unembed(
    model: Decoder, base: Tree, x: jax.Array, adapter: Adapter | None = None
) -> jax.Array:
    """Maps final hidden states to logits.

    Args:
      model: a decoder; it says whether the head is the embedding table.
      base: params tree.
      x: [..., D] hidden states.
      adapter: of which the head is read, if it adapts that; or None.

    Returns:
      [..., V] float32.
    """
    update = None if adapter is None else adapter.get(sites.HEAD)
    return logits(model.config, x, head(model, base), update)


def head(model: Decoder, base: Tree) -> jax.Array:
    """The matrix that makes logits, [D, V], or [V, D] if it is the embedding table.

    On a mesh it is gathered along ``fsdp``.

    Args:
      model: a decoder.
      base: params tree.
    """
    if model.config.tie_head:
        return layout.gathered(base["embed"]["embedding"], "embed/embedding")
    return layout.gathered(base["head"], "head")


def extend(
    model: Decoder,
    base: Tree,
    inputs: Tokens,
    cache: Cache,
    *,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
) -> tuple[jax.Array, Cache]:
    """Runs the next tokens of sequences whose earlier keys and values are cached.

    Args:
      model: a decoder.
      base: params tree.
      inputs: token ids [B, T], which fill T more slots of the cache; or
        :class:`Inputs` with a mask that is false where a row is padded on the left,
        and with a tree and its positions.
      cache: from :func:`jaxlora.models.cache.empty`, or an earlier call.
      adapter: one adapter, for a model without a route.
      library: a library [E, ...], for a model with a route.
      gate: the route's state for the library; by default that of :func:`gate_state`.

    Returns:
      Final hidden states [B, T, D], for :func:`unembed`, and the next cache. Slots
      beyond the cache's are not checked: the caller sizes it.

    Raises:
      ValueError: as :func:`apply`; also if there are segments, or positions without a
        tree, which the cache counts itself, or the route is by sequence and the cache
        has no sums, or there is a tree.
    """
    inputs = inputs_of(inputs)
    counted = inputs.positions is not None and inputs.tree is None
    if inputs.segments is not None or counted:
        raise ValueError(
            "Got segments or positions beside a cache, which counts them itself; "
            "expected tokens and a mask only."
        )
    adapted = Adapted(adapter, library, gate)
    given = variables(model, base, inputs.tokens, adapted)
    if model.route is None or model.route.granularity != "sequence":
        output: Any = model.apply(given, inputs, cache=cache)
        return output
    if inputs.tree is not None:
        raise ValueError(
            "The route is by sequence, but the inputs are a tree, in which a token has "
            "no one sequence; ask one continuation after the other."
        )
    if cache.pooled is None:
        raise ValueError(
            "The route is by sequence, but the cache holds no sums to go on from; "
            "make it with cache.empty(..., pooled=routing.pooled(...))."
        )
    given[POOLED] = cache.pooled
    (x, cache), sums = model.apply(  # pyrefly: ignore
        given, inputs, cache=cache, mutable=[POOLED]
    )
    return x, dataclasses.replace(cache, pooled=sums[POOLED])
