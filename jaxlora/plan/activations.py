"""Bytes that training one adapter keeps, read off the traced forward pass."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxlora import lora, models
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, DecoderConfig
from jaxlora.models.kernels import LANES
from jaxlora.plan.work import size
from jaxlora.tree import Tree

LONG = 2048
"""Tokens of a row: of those of more than twice as many, what is kept is computed from
rows of one and two times as many."""


def activations(
    decoder: DecoderConfig, config: LoraConfig, batch: int, length: int
) -> int:
    """Bytes that training one adapter keeps, and computes again in one layer.

    Args:
      decoder: with or without ``remat``.
      config: of the adapter.
      batch: rows.
      length: tokens of a row.
    """
    # Each row keeps as much as any other: two traces serve all batches.
    first, second = (_of_length(decoder, config, rows, length) for rows in (1, 2))
    return first + (batch - 1) * (second - first)


def _of_length(
    decoder: DecoderConfig, config: LoraConfig, batch: int, length: int
) -> int:
    """As :func:`_kept`, without a trace of minutes where rows are very long."""
    holds_scores = decoder.attention not in ("splash", "cudnn")
    if holds_scores or length <= 2 * LONG or length % LONG:
        return _kept(decoder, config, batch, length)
    # The kernel's mask takes time by the square, what is kept is by the token.
    short, twice = (_kept(decoder, config, batch, n * LONG) for n in (1, 2))
    return short + (length // LONG - 1) * (twice - short)


def _kept(decoder: DecoderConfig, config: LoraConfig, batch: int, length: int) -> int:
    kept = residuals(decoder, config, batch, length)
    if not decoder.remat:
        return kept
    kinds = {kind: decoder.kinds.index(kind) for kind in decoder.kinds}
    return kept + max(
        residuals(_single(decoder, layer), config, batch, length)
        for layer in kinds.values()
    )


def _single(decoder: DecoderConfig, layer: int) -> DecoderConfig:
    """A decoder of one layer of another; it keeps what that would compute again."""
    delta = decoder.delta_layers[layer : layer + 1]
    dense = decoder.dense_layers[layer : layer + 1]
    if any(dense):
        decoder = dataclasses.replace(
            decoder,
            moe_mlps=0,
            moe_shared=0,
            dense_layers=(),
            dense_size=0,
            mlp_size=decoder.dense_size,
        )
    return dataclasses.replace(
        decoder,
        remat=False,
        num_layers=1,
        local_layers=decoder.local_layers[:1],
        rotary_layers=decoder.rotary_layers[:1],
        delta_layers=delta,
        delta=decoder.delta if any(delta) else None,
        dense_layers=(),
        dense_size=0,
    )


@functools.lru_cache(maxsize=256)  # a second of tracing each
def residuals(
    decoder: DecoderConfig, config: LoraConfig, batch: int, length: int
) -> int:
    """Bytes that the forward pass keeps for the gradient of one adapter.

    These are the outputs of the traced vector-Jacobian product that are not inputs:
    the base's kernels are used again, not kept twice.

    Args:
      decoder: with or without ``remat``.
      config: of the adapter.
      batch: rows.
      length: tokens of a row.
    """
    if decoder.attention == "cudnn":  # which is not here; it keeps as much
        fits = length % LANES == 0
        kernel = "splash" if fits else "plain"
        decoder = dataclasses.replace(decoder, attention=kernel)
    model, key = Decoder(decoder), jax.random.key(0)
    base = jax.eval_shape(lambda: models.init(key, model))
    adapter = jax.eval_shape(lambda x: lora.init(key, x, config), base)
    factors, scales = jax.eval_shape(lora.split, adapter)
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)

    def forward(base: Tree, factors: Tree, scales: Tree, tokens: Any):
        def value(factors: Tree) -> jax.Array:
            return models.hidden(
                model,
                base,
                models.Inputs(tokens, segments=tokens, positions=tokens),
                adapter=lora.combine(factors, scales),
            )

        return jax.vjp(value, factors)

    traced = jax.make_jaxpr(forward)(base, factors, scales, tokens).jaxpr
    known = {id(v) for v in traced.invars}
    # The first output is the hidden states themselves: they are kept for the head.
    kept = {id(v): v.aval for v in traced.outvars if id(v) not in known}
    return size([x for x in kept.values() if hasattr(x, "shape")])
