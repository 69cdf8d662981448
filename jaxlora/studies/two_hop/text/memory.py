"""What a study needs in memory, from shapes alone: nothing is loaded or compiled.

Bytes are those of the arrays of the real programs, found by tracing them with abstract
inputs (``jax.eval_shape``, ``jax.make_jaxpr``): parameters, experts, optimizer state,
what the forward pass keeps for the backward pass, one layer computed again, logits,
and the keys and values of a prompt. A compiler needs some room beside them, and saves
some by fusing; attention is counted with its scores in memory.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxlora import lora, merge, models, route
from jaxlora.evaluate.schema import USUAL, Arm, Method
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, DecoderConfig, cache
from jaxlora.studies.two_hop import arms
from jaxlora.studies.two_hop.text.config import TextConfig
from jaxlora.train.step import CHUNK_FLOATS
from jaxlora.train.training import Training, at_once, faster
from jaxlora.tree import Tree

TRAINING = ("base", "experts", "gradients", "optimizer", "activations", "logits")
ASKING = ("base", "adapters asked", "keys and values", "logits asked")


def estimate(
    decoder: DecoderConfig, config: TextConfig, experts: int, longest: int = 64
) -> dict[str, int]:
    """Returns bytes by part, and the totals ``training`` and ``asking``.

    Args:
      decoder: shapes of the base; its types are those of ``config``.
      config: of the study.
      experts: that a group trains.
      longest: tokens of the longest prompt.

    >>> tiny = DecoderConfig(vocab_size=16, hidden_size=8, num_layers=2, num_heads=2,
    ...     num_kv_heads=2, head_dim=4, mlp_size=16, positions="rope")
    >>> parts = estimate(tiny, TextConfig(lora=LoraConfig(rank=2)), 10)
    >>> parts["training"] == sum(parts[name] for name in TRAINING)
    True
    """
    decoder = dataclasses.replace(
        decoder, dtype=config.dtype, param_dtype=config.dtype, attention="plain"
    )
    vocabulary = decoder.vocab_size
    base, expert = _shapes(Decoder(decoder), config.lora)
    factors, _ = jax.eval_shape(lora.split, expert)
    moments = jax.eval_shape(optax.scale_by_adam().init, factors)
    concurrent, ask = config.train.together or at_once(decoder, experts), config.ask
    # Candidates are read side by side after a prompt; two tokens each, shared or not.
    nodes = 2 * ask.candidates_at_once
    slots = longest + max(ask.new_tokens, ask.written_tokens, nodes)
    prompts = jax.eval_shape(lambda: cache.empty(decoder, ask.batch, slots))
    # Logits of a chunk of tokens, and their gradient; float32.
    tokens = min(config.train.batch * config.train.length, CHUNK_FLOATS // vocabulary)
    parts = {
        "base": size(base),
        "experts": experts * size(expert),
        "gradients": concurrent * size(factors),
        "optimizer": experts * size(moments),
        "activations": concurrent * _activations(decoder, config.lora, config.train),
        "logits": concurrent * 2 * 4 * max(1, tokens) * vocabulary,
        # A library of three, and the largest merge of it.
        "adapters asked": 3 * size(expert) + _merged(config, expert),
        # Before a call, and after it.
        "keys and values": 2 * size(prompts),
        # Of a part of the candidates, and of those of one prompt at least.
        "logits asked": 4 * max(CHUNK_FLOATS, nodes * vocabulary),
    }
    totals = {"training": TRAINING, "asking": ASKING}
    return parts | {k: sum(parts[x] for x in names) for k, names in totals.items()}


def size(tree: Tree) -> int:
    """Bytes of all arrays of a tree; shapes and types suffice.

    >>> size({"a": jnp.ones((2, 3)), "b": jnp.ones(4, jnp.bfloat16)})
    32
    """
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def table(parts: Mapping[str, int]) -> str:
    """Returns the estimate as lines of a Markdown table, in GiB."""
    lines = [f"| {name} | {n / 2**30:.2f} |" for name, n in parts.items()]
    return "\n".join(["| part | GiB |", "|:--|--:|", *lines])


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
    model = Decoder(decoder)
    base, adapter = _shapes(model, config)
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


def _merged(config: TextConfig, expert: Tree) -> int:
    """The usual merges have three times an expert's rank, others may be dense."""
    three = jax.tree.map(lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.dtype), expert)
    sizes = [3 * size(expert)]
    layers = next(iter(lora.sites(expert).values())).a.shape[0]
    key = jax.random.key(0)
    for name in set(config.methods) - set(map(str, USUAL)) - set(route.names()):
        if not arms.obstacle(Arm.TRIPLE, Method(name), layers):
            how = functools.partial(merge.preset(name), key=key)
            sizes.append(size(jax.eval_shape(how, three)))
    return max(sizes)


def _shapes(model: Decoder, config: LoraConfig) -> tuple[Tree, Tree]:
    """Of a base and of one adapter."""
    base = jax.eval_shape(lambda: models.init(jax.random.key(0), model))
    adapter = jax.eval_shape(lambda x: lora.init(jax.random.key(0), x, config), base)
    return base, adapter


def _activations(decoder: DecoderConfig, config: LoraConfig, train: Training) -> int:
    """What all layers keep; under remat, little, and all that one computes again."""
    if not faster(decoder, "auto").remat:
        plain = dataclasses.replace(decoder, remat=False)
        return residuals(plain, config, train.batch, train.length)
    kept = dataclasses.replace(decoder, remat=True)
    single = dataclasses.replace(
        decoder, remat=False, num_layers=1, local_layers=decoder.local_layers[:1]
    )
    return sum(residuals(c, config, train.batch, train.length) for c in (kept, single))
