"""Bytes a chip by formula: of the arrays that a program is given, and of what it keeps.

Arrays are cut by the rules that place them. What the forward pass keeps is read off the
traced program (``jax.make_jaxpr``) of one device's share: its rows, its heads, its part
of the MLP. A compiler needs some room beside that, and saves some by fusing.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxlora import lora, models
from jaxlora import tree as named
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, DecoderConfig
from jaxlora.models.kernels import LANES
from jaxlora.parallel import merging, rules
from jaxlora.plan.work import Shapes, Work, shapes
from jaxlora.train.step import CHUNK_FLOATS
from jaxlora.tree import Tree

ARRAYS = ("base", "adapters", "optimizer")
"""What a program is given."""
BESIDE = ("gradients", "gathered", "activations", "logits")
"""What it makes."""


def estimate(work: Work, sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes a chip by part, those of ``ARRAYS`` and of ``BESIDE``.

    Args:
      work: for a platform, see :meth:`Work.on`.
      sizes: of the axes of the mesh.
    """
    given = shapes(work)
    parts = dict.fromkeys((*ARRAYS, *BESIDE), 0)
    if work.task == "merge":
        where = functools.partial(merging.spec, sizes)
        parts["adapters"] = _cut(given.library, where, sizes)
        # With its layers in the place of its experts, and the result.
        return parts | {"activations": 2 * parts["adapters"]}
    parts["base"] = base_bytes(given.base, sizes)
    parts["adapters"] = expert_bytes(given.library, sizes)
    parts["adapters"] += expert_bytes(given.gate, sizes)
    parts["gathered"] = _gathered(work, given, sizes)
    if work.task == "route":
        return parts | _asked(work, sizes)
    here = share(work, sizes)
    factors, _ = lora.split(given.library)
    parts["optimizer"] = expert_bytes(given.opt_state, sizes)
    trained = expert_bytes(factors, sizes) * work.at_once // work.experts
    parts["gradients"] = trained * (2 if work.accumulate > 1 else 1)
    parts["activations"] = here.experts * activations(
        here.config, work.lora, here.batch, work.length
    )
    tokens = min(here.batch * work.length, max(1, CHUNK_FLOATS // _vocabulary(work)))
    # Scores of a chunk of tokens, and their gradient; float32.
    columns = _vocabulary(work) // _parts(sizes, "tensor", _vocabulary(work))
    parts["logits"] = here.experts * 2 * 4 * tokens * columns
    return parts


@dataclasses.dataclass(frozen=True)
class Share:
    """What one chip works on."""

    config: DecoderConfig
    """With its heads and its part of the MLP."""
    batch: int
    experts: int
    """At once."""


def share(work: Work, sizes: Mapping[str, int]) -> Share:
    """The part of some work that one chip does.

    Args:
      work: the program.
      sizes: of the axes of the mesh.
    """
    c, tensor = work.config, sizes.get("tensor", 1)
    local = dataclasses.replace(
        c,
        num_heads=max(1, c.num_heads // tensor),
        num_kv_heads=max(1, c.num_kv_heads // tensor),
        mlp_size=max(1, c.mlp_size // tensor),
        unroll=1,
    )
    rows = sizes.get("data", 1) * sizes.get("fsdp", 1)
    experts = max(1, work.at_once // sizes.get("expert", 1))
    return Share(local, max(1, work.batch // rows), experts)


def size(tree: Tree) -> int:
    """Bytes of all arrays of a tree; shapes and types suffice.

    >>> size({"a": jnp.ones((2, 3)), "b": jnp.ones(4, jnp.bfloat16)})
    32
    """
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def base_bytes(base: Tree, sizes: Mapping[str, int]) -> int:
    """Bytes a chip of a base, cut by :mod:`jaxlora.parallel.rules`.

    Args:
      base: params, or their shapes.
      sizes: of the axes of the mesh.
    """

    def where(name: str, shape: Sequence[int]) -> PartitionSpec:
        last = rules.axes_of(name)
        axes = (*(None,) * (len(shape) - len(last)), *last) if last else ()
        return rules.fitting(sizes, axes, shape)

    return _cut(base, where, sizes)


def expert_bytes(tree: Tree, sizes: Mapping[str, int]) -> int:
    """Bytes a chip of a library, or of what has its shape.

    Args:
      tree: arrays [E, ...], or their shapes.
      sizes: of the axes of the mesh.
    """

    def where(name: str, shape: Sequence[int]) -> PartitionSpec:
        return rules.fitting(sizes, rules.expert_axes(name, len(shape)), shape)

    return _cut(tree, where, sizes)


def _cut(
    tree: Tree,
    where: Callable[[str, Sequence[int]], PartitionSpec],
    sizes: Mapping[str, int],
) -> int:
    total = 0
    for name, leaf in named.flatten(tree).items():
        names = [
            x
            for axis in where(name, leaf.shape)
            for x in ((axis,) if isinstance(axis, str) else axis or ())
        ]
        parts = math.prod(sizes.get(x, 1) for x in names)
        total += math.prod(leaf.shape) * leaf.dtype.itemsize // parts
    return total


def _gathered(work: Work, given: Shapes, sizes: Mapping[str, int]) -> int:
    """Of one layer and the next, and of the head, whole along ``fsdp``."""
    if sizes.get("fsdp", 1) == 1:
        return 0
    only = {"tensor": sizes.get("tensor", 1)}
    layers = base_bytes({"layers": given.base["layers"]}, only)
    name = "embed" if work.config.tie_head else "head"
    return 2 * layers // work.config.num_layers + base_bytes(
        {name: given.base[name]}, only
    )


def _vocabulary(work: Work) -> int:
    return work.config.vocab_size


def _parts(sizes: Mapping[str, int], axis: str, number: int) -> int:
    parts = sizes.get(axis, 1)
    return parts if number % parts == 0 else 1


def _asked(work: Work, sizes: Mapping[str, int]) -> dict[str, int]:
    """Of one layer of a routed forward pass, and the scores of the last tokens."""
    here, width = share(work, sizes), work.config.hidden_size
    c, tokens = here.config, here.batch * work.length
    item = 2 if c.dtype == "bfloat16" else 4
    experts = max(1, work.experts // sizes.get("expert", 1))
    wide = max(3 * c.mlp_size, (c.num_heads + 2 * c.num_kv_heads) * c.head_dim)
    low = 4 * experts * work.lora.rank  # float32, weighted and not
    plain = c.attention in ("auto", "plain")
    scores = 4 * here.batch * c.num_heads * work.length**2 if plain else 0
    return {
        "activations": tokens * (3 * item * width + item * wide + 2 * low) + scores,
        "logits": 4 * here.batch * work.config.vocab_size,
    }


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
    first, second = (_kept(decoder, config, rows, length) for rows in (1, 2))
    return first + (batch - 1) * (second - first)


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
