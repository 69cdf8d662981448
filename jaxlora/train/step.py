"""One update, whatever learns and whatever it learns from.

- :class:`Part`: what learns: an adapter's factors, a gate's keys, or the whole base;
- :func:`cross_entropy`: what it lowers, on a :class:`Batch` or on packed
  :class:`jaxlora.tasks.packing.Rows`;
- :func:`step`: gradient, optimizer, update.

Full batches (``full_batch``), packed text (``packed``) and pretraining (``pretrain``)
differ in what they scan it over.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxlora import lora, route
from jaxlora.lora import Adapter, Library
from jaxlora.models import Decoder, Inputs, hidden, sites
from jaxlora.models.calls import head
from jaxlora.models.decoder import logits
from jaxlora.parallel import BATCH, layout
from jaxlora.route import State
from jaxlora.tasks.packing import Rows
from jaxlora.tree import Tree

CHUNK_FLOATS = 2**25
"""Logits in memory at once while training (128 MiB), on each device."""


class Batch(NamedTuple):
    """Rows of one example each, as device arrays [..., B, T]."""

    tokens: jax.Array
    targets: jax.Array
    weights: jax.Array
    """0 where nothing is predicted."""


class Logits(NamedTuple):
    """Of how many tokens there are logits; 0 for the usual."""

    most: int = 0
    """Tokens of a row, those of most weight; it is the caller's to know that no row has
    more of a weight above 0. Usually all."""
    chunk: int = 0
    """Tokens whose logits are in memory at once; usually by V."""


def cross_entropy(
    model: Decoder,
    base: Tree,
    batch: Batch | Rows,
    *,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
    pad: int | None = None,
    scored: Logits = Logits(),  # noqa: B008 (frozen)
) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy of the targets in nats, and the sum of their weights.

    ``sum_t w_t (-log p(target_t))`` and ``sum_t w_t``, over all rows. Two sums and no
    mean, so that those of microbatches add up.

    Args:
      model: a decoder; with a route, if there is a library.
      base: params tree.
      batch: rows [B, T]; packed ones say by their segments what a token sees.
      adapter: one adapter, or none.
      library: [E, ...], for a model with a route.
      gate: state of the route.
      pad: id of the padding token, which is never attended to; for a ``Batch`` only.
      scored: of how many tokens there are logits.

    Returns:
      Two scalars, float32.

    Raises:
      ValueError: if there is no ``pad`` for a ``Batch``.
    """
    _, targets, weights = map(jnp.asarray, batch[:3])
    inputs = _inputs(batch, pad)
    x = hidden(model, base, inputs, adapter=adapter, library=library, gate=gate)
    if 0 < scored.most < targets.shape[-1]:
        weights, places = jax.lax.top_k(weights, scored.most)
        targets = jnp.take_along_axis(targets, places, axis=-1)
        x = jnp.take_along_axis(x, places[..., None], axis=-2)
    size = scored.chunk or max(1, CHUNK_FLOATS // model.config.vocab_size)
    parts = layout.batch_parts()
    parts = parts if len(targets) % parts == 0 else 1
    many = targets.size > size * parts
    # A sum over [B T] rounds otherwise than one over [B, T]: each kind of rows keeps
    # the order in which its published results were summed.
    if isinstance(batch, Rows) or many:
        x, targets = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
        weights = weights.reshape(-1)
    update = sites.of_head(adapter)
    # Gathered here, before the loop over chunks.
    summed = functools.partial(_summed, model, head(model, base), update)
    if many:
        summed = functools.partial(_by_chunks, summed, size, parts)
    return summed(x, targets, weights), jnp.sum(weights)


def _inputs(batch: Batch | Rows, pad: int | None) -> Inputs:
    """Tokens, and which of them each may attend to."""
    tokens = jnp.asarray(batch.tokens)
    if isinstance(batch, Rows):
        segments, positions = map(jnp.asarray, batch[3:])
        return Inputs(tokens, segments=segments, positions=positions)
    if pad is None:
        raise ValueError(
            "Got a Batch and no pad; give the id of its padding token, which is never "
            "attended to. Packed Rows need none."
        )
    return Inputs(tokens, jnp.not_equal(tokens, pad))


def _summed(model, head, update, x, targets, weights) -> jax.Array:
    scores = logits(model.config, x, head, update)
    each = optax.softmax_cross_entropy_with_integer_labels(scores, targets)
    return jnp.sum(each * weights)


def _by_chunks(summed, size: int, parts: int, *arrays: jax.Array) -> jax.Array:
    """Adds ``summed`` of ``size`` tokens a part at a time; arrays [N, ...]."""

    def cut(x: jax.Array) -> jax.Array:
        # Each chunk has tokens of every part: no device waits, nor sends any away.
        x = x.reshape(parts, -1, *x.shape[1:])
        extra = -x.shape[1] % size
        x = jnp.pad(x, [(0, 0), (0, extra), *[(0, 0)] * (x.ndim - 2)])
        x = jnp.moveaxis(x.reshape(parts, -1, size, *x.shape[2:]), 1, 0)
        x = x.reshape(-1, parts * size, *x.shape[3:])
        return layout.constrain(x, None, BATCH, *(None,) * (x.ndim - 2))

    chunks = tuple(map(cut, arrays))
    # The backward pass computes a chunk's logits again: kept, they would all add up.
    again = jax.checkpoint(summed)

    def add(total: jax.Array, chunk: Any) -> tuple[jax.Array, None]:
        return total + again(*chunk), None

    return jax.lax.scan(add, jnp.float32(0.0), chunks)[0]


@dataclasses.dataclass(frozen=True)
class Part:
    """One of a decoder's arguments, and how much of it learns; hashable."""

    name: Literal["base", "adapter", "gate"]
    """The argument of :func:`cross_entropy`."""
    split: Callable[[Tree], tuple[Tree, Tree]]
    """Into what learns and the rest."""
    join: Callable[[Tree, Tree], Tree]
    """The inverse of ``split``."""


def _split_gate(state: Tree) -> tuple[Tree, Tree]:
    def pick(fields: Callable[[State], Any]) -> Tree:
        return jax.tree.map(fields, state, is_leaf=route.is_state)

    return pick(lambda s: s.keys), pick(lambda s: (s.live, s.fingerprint))


def _join_gate(keys: Tree, rest: Tree) -> Tree:
    return jax.tree.map(
        lambda fixed, learned: State(learned, *fixed),
        rest,
        keys,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )


BASE = Part("base", lambda params: (params, ()), lambda params, _: params)
"""Everything learns."""
ADAPTER = Part("adapter", lora.split, lora.combine)
"""Factors learn; scales stay."""
GATE = Part("gate", _split_gate, _join_gate)
"""Keys learn; live places and fingerprints stay."""

Sums: TypeAlias = Callable[[Tree, Any], tuple[jax.Array, jax.Array]]
"""Loss and weights of a batch, summed, as a function of what learns."""


def sums(
    model: Decoder,
    part: Part,
    fixed: Tree,
    held: dict[str, Tree],
    pad: int | None = None,
    most: int = 0,
) -> Sums:
    """Returns the cross-entropy as a function of what learns, and of a batch.

    Args:
      model: a decoder; without a route if adapters learn, with one if gates do.
      part: what learns.
      fixed: the rest of it, as ``part.split`` gives it.
      held: all other arguments of :func:`cross_entropy` by name: base, library.
      pad: id of the padding token, for a :class:`Batch`.
      most: tokens of a row that have a weight, at most; 0 for all.
    """

    def value(free: Tree, batch: Batch | Rows) -> tuple[jax.Array, jax.Array]:
        given: Any = held | {part.name: part.join(free, fixed)}
        scored = Logits(most)
        return cross_entropy(model, batch=batch, pad=pad, scored=scored, **given)

    return value


def mean(value: Sums) -> Callable[[Tree, Any], jax.Array]:
    """Returns the loss a unit of weight; 0, not NaN, where nothing is predicted."""

    def average(free: Tree, batch: Any) -> jax.Array:
        summed, count = value(free, batch)
        return summed / jnp.maximum(count, 1.0)

    return average


@struct.dataclass
class Fit:
    """What one step changes: trained parameters and their optimizer state."""

    params: Tree
    opt_state: Tree


def step(
    gradient: Callable[[Tree, Any], tuple[Any, Tree]],
    opt: optax.GradientTransformation,
    fit: Fit,
    batch: Any,
    rate: jax.Array | None = None,
) -> tuple[Fit, Any]:
    """One update of one data set; pure, so it vmaps, pmaps and scans.

    Args:
      gradient: of trained parameters and a batch: what there is to report, and the
        gradient; for example ``jax.value_and_grad(mean(...))``.
      opt: an optax optimizer.
      fit: parameters and optimizer state.
      batch: what ``gradient`` takes.
      rate: learning rate, a scalar, for an optimizer without one.

    Returns:
      The next fit, and the report before the update.
    """
    report, grads = gradient(fit.params, batch)
    updates, opt_state = opt.update(grads, fit.opt_state, fit.params)
    if rate is not None:
        updates = optax.tree.scale(-rate, updates)
    return Fit(optax.apply_updates(fit.params, updates), opt_state), report
