"""Calling a decoder: checked entry points around ``Decoder.apply``.

>>> config = DecoderConfig(vocab_size=16, hidden_size=8, num_layers=2, mlp_size=16,
...                        num_heads=2, num_kv_heads=2, head_dim=4)
>>> model = Decoder(config)
>>> tokens = jnp.zeros((1, 3), jnp.int32)
>>> base = init(jax.random.key(0), model)
>>> apply(model, base, tokens).shape
(1, 3, 16)
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora.lora import Adapter, Library
from jaxlora.models.cache import Cache
from jaxlora.models.config import DecoderConfig as DecoderConfig
from jaxlora.models.decoder import Decoder, logits
from jaxlora.tree import Tree


def init(key: jax.Array, model: Decoder) -> Tree:
    """Returns fresh base parameters."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    return Decoder(model.config).init(key, tokens)["params"]


def apply(
    model: Decoder,
    base: Tree,
    tokens: jax.Array,
    *,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
    mask: jax.Array | None = None,
    segments: jax.Array | None = None,
    positions: jax.Array | None = None,
    labels: jax.Array | None = None,
) -> jax.Array:
    """Runs the base alone, with one adapter, or with a routed library.

    Args:
      model: a decoder; its ``route`` says whether it is routed.
      base: params tree.
      tokens: [B, T] token ids, T <= max_length for learned positions.
      adapter: one adapter, for a model without a route.
      library: a library [E, ...], for a model with a route.
      gate: gate state for the library; by default ``route.gate.init(library)``.
      mask: [B, T], true where a token may be attended to; padding is false.
      segments: [B, T] in place of a mask, for several examples in a row: a token sees
        its own segment only, and 0 is padding.
      positions: [B, T] for rotary angles or learned positions; by default 0 to T - 1.
      labels: [L, B, T, E] gate weights, for the oracle gate only.

    Returns:
      Logits [B, T, V], float32.

    Raises:
      ValueError: if adapter or library does not fit the base or the model's route,
        the labels have another shape, both mask and segments are given, or the
        sequence is too long.
    """
    variables = _variables(model, base, tokens, adapter, library, gate, labels)
    _check_mask(tokens, mask, segments)
    return model.apply(variables, tokens, mask, labels, segments, positions)  # pyrefly: ignore


def hidden(
    model: Decoder,
    base: Tree,
    tokens: jax.Array,
    *,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
    mask: jax.Array | None = None,
    segments: jax.Array | None = None,
    positions: jax.Array | None = None,
    labels: jax.Array | None = None,
) -> jax.Array:
    """As :func:`apply`, but returns the final hidden states [B, T, D].

    ``unembed(model, base, hidden(...))`` equals ``apply(...)``; scores of a large
    vocabulary need not be in memory for every token at once.
    """
    variables = _variables(model, base, tokens, adapter, library, gate, labels)
    _check_mask(tokens, mask, segments)
    return model.apply(  # pyrefly: ignore
        variables, tokens, mask, labels, segments, positions, output="hidden"
    )


def unembed(model: Decoder, base: Tree, x: jax.Array) -> jax.Array:
    """Maps final hidden states [..., D] to logits [..., V], float32."""
    tied = model.config.tie_head
    return logits(model.config, x, base["embed"]["embedding"] if tied else base["head"])


def extend(
    model: Decoder,
    base: Tree,
    tokens: jax.Array,
    cache: Cache,
    *,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, Cache]:
    """Runs the next tokens of sequences whose earlier keys and values are cached.

    Args:
      model: a decoder.
      base: params tree.
      tokens: [B, T] token ids; they fill T more slots of the cache.
      cache: from :func:`jaxlora.models.cache.empty`, or an earlier call.
      adapter: as in :func:`apply`.
      library: as in :func:`apply`.
      gate: as in :func:`apply`.
      mask: [B, T], false where a row is padded on the left.

    Returns:
      Final hidden states [B, T, D], for :func:`unembed`, and the next cache. Slots
      beyond the cache's are not checked: the caller sizes it.

    Raises:
      ValueError: as :func:`apply`.
    """
    variables = _variables(model, base, tokens, adapter, library, gate, None)
    _check_mask(tokens, mask, None)
    return model.apply(  # pyrefly: ignore
        variables, tokens, mask, None, None, None, cache, output="hidden"
    )


def _check_mask(tokens, mask, segments) -> None:
    if mask is not None and segments is not None:
        raise ValueError("Got both mask and segments; segments say both, 0 is padding.")
    given = mask if segments is None else segments
    if given is not None and given.shape != tokens.shape:
        raise ValueError(
            f"mask or segments have shape {given.shape}, expected that of the tokens, "
            f"{tokens.shape}."
        )


def routes(
    model: Decoder,
    base: Tree,
    tokens: jax.Array,
    *,
    library: Library,
    gate: Tree | None = None,
    mask: jax.Array | None = None,
    labels: jax.Array | None = None,
) -> Tree:
    """Returns the gate weights of every site, a tree of [L, B, T, E].

    Arguments are those of :func:`apply`.

    Raises:
      ValueError: as ``apply``, and if the model has no route.
    """
    if model.route is None:
        raise ValueError("The model has no route; build it with Decoder(config, route)")
    variables = _variables(model, base, tokens, None, library, gate, labels)
    _, found = model.apply(variables, tokens, mask, labels, mutable=["routes"])
    # Flax keeps what is sown as a tuple, here of one array [L, N, E].
    return jax.tree.map(
        lambda sown: sown[0].reshape(sown[0].shape[0], *tokens.shape, -1),
        found["routes"],
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )


def _variables(model: Decoder, base, tokens, adapter, library, gate, labels):
    c = model.config
    if c.positions == "learned" and tokens.shape[1] > c.max_length:
        raise ValueError(
            f"Sequences have {tokens.shape[1]} tokens, but the model has learned "
            f"positions for {c.max_length}; raise max_length or shorten the input."
        )
    variables: dict[str, Any] = {"params": base}
    if model.route is None:
        if library is not None or gate is not None or labels is not None:
            raise ValueError(
                "Got a library, gate or labels, but the model has no route; build it "
                "with Decoder(config, route), or merge the library into one adapter."
            )
        if adapter is not None:
            lora.check(base, adapter)
            variables["lora"] = adapter
    else:
        variables |= _routed(model, base, tokens, adapter, library, gate, labels)
    return variables


def _routed(model: Decoder, base, tokens, adapter, library, gate, labels):
    if adapter is not None or library is None:
        raise ValueError(
            "The model has a route, so it needs library=..., and no adapter=...; "
            "stack() makes a library of adapters."
        )
    experts = lora.num_experts(library)
    lora.check(base, library, experts)
    wanted = (model.config.num_layers, *tokens.shape, experts)
    if labels is not None and labels.shape != wanted:
        raise ValueError(
            f"Oracle labels have shape {labels.shape}, expected [L, B, T, E] = "
            f"{wanted}."
        )
    route: Any = model.route
    state = route.gate.init(library) if gate is None else gate
    return {"lora": library, "gate": state}
