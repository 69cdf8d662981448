"""Training on packed text: E experts, each on rows of its own, in one program.

What learns is a :class:`Part`: the factors of E adapters on a frozen base, or the keys
of E gates on a frozen base and frozen libraries. "Expert" below is either.

An update averages the loss over all answer tokens of ``accumulate`` microbatches, as
one large batch would. Experts never meet: each has its own rows, key, learning-rate
plan and end, so that what one gets for E = 1 is what one gets at E = 64. How many
run at once (``together``) only moves work: one after another where one expert fills
the machine's caches, all at once where a step of one is too small for it.

The base may be bfloat16; what learns and optimizer state are float32. AdamW as in
Loshchilov and Hutter (arXiv 1711.05101).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxlora import lora
from jaxlora.lora import Adapter, Library, LoraConfig
from jaxlora.models import Decoder, Inputs, hidden, unembed
from jaxlora.tasks.packing import Rows
from jaxlora.train.part import ADAPTER, GATE, Part
from jaxlora.train.training import Plan, rate
from jaxlora.tree import Tree

CHUNK_FLOATS = 2**25
"""Logits in memory at once while training, unless told otherwise (128 MiB)."""


@struct.dataclass
class Run:
    """All that a resumed run needs beside its data: every leaf but step is [E, ...]."""

    trained: Library | Tree
    """A library, or the states of gates."""
    opt_state: Tree
    step: jax.Array


class Told(NamedTuple):
    """What an update says of itself, each [E, K]."""

    loss: jax.Array
    """Nats per answer token before the update."""
    norm: jax.Array
    """Norm of the gradient before clipping."""


def nats(
    model: Decoder,
    base: Tree,
    rows: Rows,
    adapter: Adapter | None = None,
    chunk: int = 0,
    *,
    library: Library | None = None,
    gate: Tree | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy of the answer tokens, and how many there are.

    Args:
      model: a decoder; with a route, if there is a library.
      base: params tree.
      rows: [N, T] arrays.
      adapter: one adapter, or none.
      chunk: tokens whose logits are in memory at once; 0 chooses by V.
      library: [E, ...], for a model with a route.
      gate: state of the route.

    Returns:
      Two scalars: nats, and the sum of the weights.
    """
    tokens, targets, weights, segments, positions = map(jnp.asarray, rows)
    inputs = Inputs(tokens, segments=segments, positions=positions)
    x = hidden(model, base, inputs, adapter=adapter, library=library, gate=gate)
    x, targets = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    weights = weights.reshape(-1)
    size = chunk or max(1, CHUNK_FLOATS // model.config.vocab_size)
    if targets.size <= size:
        return _nats(model, base, x, targets, weights), jnp.sum(weights)
    extra = -targets.size % size
    parts = tuple(
        jnp.pad(z, [(0, extra), *[(0, 0)] * (z.ndim - 1)]).reshape(
            -1, size, *z.shape[1:]
        )
        for z in (x, targets, weights)
    )
    some = jax.checkpoint(functools.partial(_nats, model, base))

    def add(total: jax.Array, part: Any) -> tuple[jax.Array, None]:
        return total + some(*part), None

    return jax.lax.scan(add, jnp.float32(0.0), parts)[0], jnp.sum(weights)


def _nats(model, base, x, targets, weights) -> jax.Array:
    scores = unembed(model, base, x)
    each = optax.softmax_cross_entropy_with_integer_labels(scores, targets)
    return jnp.sum(each * weights)


def start(
    base: Tree,
    config: LoraConfig,
    opt: optax.GradientTransformation,
    keys: jax.Array,
) -> Run:
    """Returns fresh experts, one a key [E], and their optimizer state.

    Raises:
      ValueError: as :func:`jaxlora.lora.init`.
    """

    def one(key: jax.Array) -> tuple[Adapter, Tree]:
        adapter = lora.init(key, base, config)
        return adapter, opt.init(lora.split(adapter)[0])

    library, opt_state = jax.vmap(one)(keys)
    return Run(library, opt_state, jnp.zeros((), jnp.int32))


def start_gates(states: Tree, opt: optax.GradientTransformation) -> Run:
    """As :func:`start`, of gates that are made: copies of states [G, E, ...]."""
    opt_state = jax.vmap(opt.init)(GATE.split(states)[0])
    return Run(jax.tree.map(jnp.copy, states), opt_state, jnp.zeros((), jnp.int32))


@functools.partial(
    jax.jit, static_argnums=(0, 1, 2), static_argnames=("part",), donate_argnums=(4,)
)
def updates(
    model: Decoder,
    opt: optax.GradientTransformation,
    together: int,
    base: Tree,
    run: Run,
    plan: Plan,
    rows: Rows,
    *,
    part: Part = ADAPTER,
    held: dict[str, Tree] | None = None,
) -> tuple[Run, Told]:
    """Runs K updates of every expert.

    Args:
      model: a decoder; without a route if adapters learn, with one if gates do.
      opt: from :func:`optimizer`, the same object in every call.
      together: experts that run at once; the others wait.
      base: frozen params tree.
      run: donated.
      plan: learning rates, arrays [E].
      rows: [E, K, A, N, T]: K updates of A microbatches of N rows.
      part: what learns.
      held: other arguments of ``models.hidden``, frozen, each tree [E, ...]: the
        libraries of gates.

    Returns:
      The next run, and what each update says of itself.
    """

    def expert(args: tuple[Tree, Tree, Plan, Rows, dict[str, Tree]]):
        whole, opt_state, plan, rows, held = args
        free, fixed = part.split(whole)

        def value(free: Tree, batch: Rows):
            given = {part.name: part.join(free, fixed)}
            return nats(model, base, batch, **given, **held)

        def body(carry, batch: Rows):
            free, opt_state, step = carry
            told, grads = _gradient(value, free, batch)
            change, after = opt.update(grads, opt_state, free)
            going = step.astype(jnp.float32) < plan.total
            size = rate(plan, step)
            moved = jax.tree.map(
                lambda p, u: jnp.where(going, p - size.astype(p.dtype) * u, p),
                free,
                change,
            )
            kept = jax.tree.map(functools.partial(jnp.where, going), after, opt_state)
            return (moved, kept, step + 1), told

        carry, told = jax.lax.scan(body, (free, opt_state, run.step), rows)
        return part.join(carry[0], fixed), carry[1], told

    experts = (run.trained, run.opt_state, plan, rows, held or {})
    if together >= rows.tokens.shape[0]:
        trained, opt_state, told = jax.vmap(expert)(experts)
    else:
        size = together if together > 1 else None
        trained, opt_state, told = jax.lax.map(expert, experts, batch_size=size)
    return Run(trained, opt_state, run.step + rows.tokens.shape[1]), told


def _gradient(value: Any, free: Tree, batch: Rows) -> tuple[Told, Tree]:
    """Mean loss and gradient over the answer tokens of all microbatches [A, N, T]."""

    def add(carry, rows: Rows):
        (summed, count), grads = jax.value_and_grad(value, has_aux=True)(free, rows)
        return jax.tree.map(jnp.add, carry, (summed, count, grads)), None

    if batch.tokens.shape[0] == 1:
        first = jax.tree.map(lambda x: x[0], batch)
        (summed, count), grads = jax.value_and_grad(value, has_aux=True)(free, first)
    else:
        zero = (jnp.float32(0), jnp.float32(0), jax.tree.map(jnp.zeros_like, free))
        (summed, count, grads), _ = jax.lax.scan(add, zero, batch)
    count = jnp.maximum(count, 1.0)
    grads = jax.tree.map(lambda g: g / count.astype(g.dtype), grads)
    return Told(summed / count, optax.tree.norm(grads)), grads
