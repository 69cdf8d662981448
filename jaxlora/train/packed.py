"""Packed text: updates of E experts, each on rows of its own, in one program.

An update averages the loss over all answer tokens of ``accumulate`` microbatches, as
one large batch would. Experts never meet: each has its own rows, key, learning-rate
plan and end, so that what one gets for E = 1 is what one gets at E = 64. "Expert" is
also said of a gate: :class:`jaxlora.train.step.Part` is all that differs.

The base may be bfloat16; what learns and optimizer state are float32.
"""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jaxlora import lora
from jaxlora.lora import Adapter, Library, LoraConfig
from jaxlora.models import Decoder
from jaxlora.parallel import layout
from jaxlora.tasks import packing
from jaxlora.tasks.packing import Rows
from jaxlora.train.step import ADAPTER, GATE, Fit, Part, Sums, step, sums
from jaxlora.train.training import Plan, Training, rate
from jaxlora.tree import Tree


class Program(NamedTuple):
    """What a program is compiled for; hashable, and the same objects in every call."""

    model: Decoder
    """Without a route if adapters learn, with one if gates do."""
    opt: optax.GradientTransformation
    """From :meth:`jaxlora.train.training.Training.optimizer`."""
    together: int
    """Experts that run at once; the others wait. It only moves work: one after another
    where one expert fills the machine's caches, all at once where a step of one is too
    small for it."""
    part: Part = ADAPTER
    """What learns."""
    most: int = 0
    """Tokens of a row that are learnt, at most, of which alone there are logits; 0 for
    logits of all tokens."""


@struct.dataclass
class Run:
    """All that a resumed run needs beside its data: every leaf but step is [E, ...]."""

    trained: Library | Tree
    """A library, or the states of gates."""
    opt_state: Tree
    step: jax.Array


class Report(NamedTuple):
    """What there is to say of updates, each [E, K]."""

    loss: jax.Array
    """Nats per answer token before the update."""
    norm: jax.Array
    """Norm of the gradient before clipping."""


def start(
    base: Tree,
    config: LoraConfig,
    opt: optax.GradientTransformation,
    keys: jax.Array,
) -> Run:
    """Returns fresh experts and their optimizer state.

    Args:
      base: params tree.
      config: rank, scale and targets of every expert.
      opt: of the program that will train them.
      keys: [E] PRNG keys of the initialisations.

    Raises:
      ValueError: if the targets or the rank do not fit the base, as
        :func:`jaxlora.lora.init` says.
    """

    def expert(key: jax.Array) -> tuple[Adapter, Tree]:
        adapter = lora.init(key, base, config)
        return adapter, opt.init(lora.split(adapter)[0])

    library, opt_state = jax.vmap(expert)(keys)
    return Run(library, opt_state, jnp.zeros((), jnp.int32))


def start_gates(states: Tree, opt: optax.GradientTransformation) -> Run:
    """Returns copies of gates and their optimizer state.

    Args:
      states: of the route, [G, ...].
      opt: of the program that will train them.
    """
    opt_state = jax.vmap(opt.init)(GATE.split(states)[0])
    return Run(jax.tree.map(jnp.copy, states), opt_state, jnp.zeros((), jnp.int32))


def number(name: str) -> int:
    """A number for a name, the same everywhere and always."""
    return zlib.crc32(name.encode())


def key_of(seed: int, name: str) -> jax.Array:
    """The key of an expert's start: by its name, whoever else is trained with it."""
    return jax.random.fold_in(jax.random.key(seed), number(name))


def batches(data: Mapping[str, Rows], training: Training, steps: range) -> Rows:
    """Rows [E, K, A, N, T] of some updates, a function of names, seed and steps.

    Args:
      data: rows of E experts by name, [.., T].
      training: has N ``batch``, A ``accumulate``, and the seed of the orders.
      steps: numbers of K updates.
    """

    def cut(x: np.ndarray) -> np.ndarray:
        return x.reshape(training.accumulate, -1, x.shape[-1])

    experts = []
    for name, rows in data.items():
        size = training.batch * training.accumulate
        every: Any = packing.batches(rows, size, number(name) ^ training.seed)
        some = [Rows(*map(cut, every[step])) for step in steps]
        experts.append(Rows(*map(np.stack, zip(*some, strict=True))))
    return Rows(*map(np.stack, zip(*experts, strict=True)))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def updates(
    program: Program,
    base: Tree,
    run: Run,
    plan: Plan,
    rows: Rows,
    libraries: Library | None = None,
) -> tuple[Run, Report]:
    """Runs K updates of every expert.

    Args:
      program: what the call is compiled for.
      base: frozen params tree.
      run: donated.
      plan: learning rates, arrays [E].
      rows: [E, K, A, N, T]: K updates of A microbatches of N rows.
      libraries: of gates, frozen, [G, E, ...].

    Returns:
      The next run, and what there is to say of each update.
    """
    model, opt, together, part, most = program
    held = {} if libraries is None else {"library": libraries}

    def expert(args: tuple[Tree, Tree, Plan, Rows, dict[str, Tree]]):
        start, opt_state, plan, rows, held = args
        free, fixed = part.split(start)
        value = sums(model, part, fixed, {"base": base} | held, most=most)
        gradient = functools.partial(_gradient, value)

        def body(carry: tuple[Fit, jax.Array], batch: Rows):
            fit, count = carry
            moved, report = step(gradient, opt, fit, batch, rate(plan, count))
            # An expert at its end is carried along, unchanged, until the last one is.
            going = count.astype(jnp.float32) < plan.total
            fit = jax.tree.map(functools.partial(jnp.where, going), moved, fit)
            return (fit, count + 1), report

        begin = (Fit(free, opt_state), run.step)
        (fit, _), report = jax.lax.scan(body, begin, rows)
        return part.join(fit.params, fixed), fit.opt_state, report

    experts = (run.trained, run.opt_state, plan, rows, held)
    trained, opt_state, report = over_experts(expert, experts, together)
    after = Run(trained, opt_state, run.step + rows.tokens.shape[1])
    # As it came: the next call must not find it elsewhere, and compile again.
    return layout.by_expert(after), report


def over_experts(fn: Callable[[Any], Any], experts: Tree, together: int) -> Any:
    """Maps over the leading axis E of a tree, some experts at once.

    On a mesh whose ``expert`` axis has m devices each has E / m experts, and all of
    them work on as many at once.

    Args:
      fn: of one expert.
      experts: arrays [E, ...].
      together: experts at once.
    """
    every = jax.vmap(fn, spmd_axis_name="expert")
    count = len(jax.tree.leaves(experts)[0])
    if count == 1 and layout.cuts_experts():
        # One gate of all experts: it is they who lie along the axis.
        alone = fn(jax.tree.map(lambda x: x[0], experts))
        return jax.tree.map(lambda x: x[None], alone)
    if together >= count:
        return every(experts)
    devices = layout.sizes().get("expert", 1)
    if devices == 1:
        size = together if together > 1 else None
        return jax.lax.map(fn, experts, batch_size=size)

    def turn(x: jax.Array) -> jax.Array:
        # Expert e is on device e // (E / m), and stays there.
        return jnp.swapaxes(x.reshape(devices, -1, *x.shape[1:]), 0, 1)

    size = max(1, together // devices)
    mapped = jax.lax.map(every, jax.tree.map(turn, experts), batch_size=size)
    return jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1).reshape(count, *x.shape[2:]), mapped
    )


def _gradient(value: Sums, free: Tree, batch: Rows) -> tuple[Report, Tree]:
    """Mean loss and gradient over the answer tokens of all microbatches [A, N, T]."""
    slope = jax.value_and_grad(value, has_aux=True)

    def add(carry, rows: Rows):
        (summed, count), grads = slope(free, rows)
        return jax.tree.map(jnp.add, carry, (summed, count, grads)), None

    if batch.tokens.shape[0] == 1:
        first = jax.tree.map(lambda x: x[0], batch)
        (summed, count), grads = slope(free, first)
    else:
        zero = (jnp.float32(0), jnp.float32(0), jax.tree.map(jnp.zeros_like, free))
        (summed, count, grads), _ = jax.lax.scan(add, zero, batch)
    # Divided at the end: a mean of microbatches' means would weigh short answers more.
    count = jnp.maximum(count, 1.0)
    grads = jax.tree.map(lambda g: g / count.astype(g.dtype), grads)
    return Report(summed / count, optax.tree.norm(grads)), grads
