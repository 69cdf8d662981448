"""Small data sets: each of E experts, gates or copies sees its rows at every step.

One program trains them all: a scan of steps, vmapped over the data sets. The result of
each depends on its rows and key alone: what one gets for E = 1 is what one gets at
E = 64. The leading axis may be sharded: the inputs' sharding decides, the code does
not change.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxlora import lora
from jaxlora.lora import Adapter, Library, LoraConfig
from jaxlora.models import Decoder
from jaxlora.train.step import ADAPTER, BASE, GATE, Batch, Fit, Part, mean, step, sums
from jaxlora.tree import Tree


class Steps(NamedTuple):
    """How many steps, and of how many rows each."""

    count: int
    draw: int = 0
    """Rows drawn for a step, without replacement; 0 for all of them."""


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def fit_from(
    model: Decoder,
    opt: optax.GradientTransformation,
    steps: Steps,
    pad: int,
    base: Tree,
    rows: Batch,
    starts: Library,
    keys: jax.Array,
) -> tuple[Library, jax.Array]:
    """Trains one LoRA per data set from where it is given.

    A layer whose ``a`` and ``b`` are both 0 has no gradient and stays as it is: see
    :func:`jaxlora.lora.confine`.

    Args:
      model: a decoder without a route.
      opt: an optax optimizer, the same object in every call.
      steps: their number, and the rows of each.
      pad: id of the padding token.
      base: frozen params tree.
      rows: one data set an expert, [E, N, T]; unused rows have weights 0.
      starts: adapters to train, [E, ...].
      keys: [E] PRNG keys of the rows that are drawn.

    Returns:
      A library [E, ...] and the last losses [E] in nats.
    """

    def expert(start: Adapter, batch: Batch, key: jax.Array):
        fit = functools.partial(_fit, model, opt, steps, pad, ADAPTER)
        return fit(start, {"base": base}, batch, key)

    return jax.vmap(expert)(starts, rows, keys)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def fit_experts(
    model: Decoder,
    opt: optax.GradientTransformation,
    config: LoraConfig,
    steps: int,
    pad: int,
    base: Tree,
    rows: Batch,
    keys: jax.Array,
) -> tuple[Library, jax.Array]:
    """Trains one LoRA per data set, all at once.

    Args:
      model: a decoder without a route.
      opt: an optax optimizer, the same object in every call.
      config: rank, scale and targets of every expert.
      steps: full-batch steps.
      pad: id of the padding token.
      base: frozen params tree.
      rows: one data set an expert, [E, N, T]; unused rows have weights 0.
      keys: [E] PRNG keys of the initialisations.

    Returns:
      A library [E, ...] and the last losses [E] in nats.
    """

    def expert(key: jax.Array, batch: Batch) -> tuple[Adapter, jax.Array]:
        adapter = lora.init(key, base, config)
        fit = functools.partial(_fit, model, opt, Steps(steps), pad, ADAPTER)
        return fit(adapter, {"base": base}, batch)

    return jax.vmap(expert)(keys, rows)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def fit_gates(
    model: Decoder,
    opt: optax.GradientTransformation,
    steps: int,
    pad: int,
    base: Tree,
    libraries: Library,
    states: Tree,
    rows: Batch,
) -> tuple[Tree, jax.Array]:
    """Trains the keys of one gate for each library; all else is frozen.

    A gate that learns on the target task is one of E experts; Phatgoose's (arXiv
    2402.05859) are E gates, each of a library of one expert, on that expert's rows.

    Args:
      model: a decoder with a route.
      opt: an optax optimizer, the same object in every call.
      steps: full-batch steps.
      pad: id of the padding token.
      base: frozen params tree.
      libraries: [G, E, ...], frozen.
      states: of the route, one for each library, [G, ...].
      rows: one data set a gate, [G, N, T]; unused rows have weights 0.

    Returns:
      States [G, ...] with trained keys, and the last losses [G] in nats.
    """

    def gate(library: Library, state: Tree, batch: Batch) -> tuple[Tree, jax.Array]:
        fit = functools.partial(_fit, model, opt, Steps(steps), pad, GATE)
        return fit(state, {"base": base, "library": library}, batch)

    return jax.vmap(gate)(libraries, states, rows)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def finetune(
    model: Decoder,
    opt: optax.GradientTransformation,
    steps: int | Steps,
    pad: int,
    base: Tree,
    rows: Batch,
    keys: jax.Array | None = None,
) -> tuple[Tree, jax.Array]:
    """Full fine-tuning of a copy of the base per data set: the ceiling for LoRA.

    Args:
      model: a decoder without a route.
      opt: an optax optimizer, the same object in every call.
      steps: their number, each on all rows; or with the rows of each.
      pad: id of the padding token.
      base: the params every copy starts from.
      rows: one data set a copy, [E, N, T]; unused rows have weights 0.
      keys: [E] PRNG keys of the rows that are drawn; not needed for all rows.

    Returns:
      Params with a leading axis E, and the last losses [E] in nats.
    """
    how = Steps(steps) if isinstance(steps, int) else steps

    def copy(batch: Batch, key: jax.Array | None) -> tuple[Tree, jax.Array]:
        return _fit(model, opt, how, pad, BASE, base, {}, batch, key)

    return jax.vmap(copy)(rows, keys)


def _fit(
    model: Decoder,
    opt: optax.GradientTransformation,
    steps: Steps,
    pad: int,
    part: Part,
    start: Tree,
    held: dict[str, Tree],
    batch: Batch,
    key: jax.Array | None = None,
) -> tuple[Tree, jax.Array]:
    """Returns what was trained by some steps on one data set, and the last loss."""
    free, fixed = part.split(start)
    gradient = jax.value_and_grad(mean(sums(model, part, fixed, held, pad)))
    some = 0 < steps.draw < len(batch.tokens)
    assert key is not None or not some

    def body(fit: Fit, number: jax.Array) -> tuple[Fit, jax.Array]:
        rows = _drawn(batch, key, number, steps.draw) if some else batch
        return step(gradient, opt, fit, rows)

    fit = Fit(free, opt.init(free))
    end, losses = jax.lax.scan(body, fit, jnp.arange(steps.count))
    return part.join(end.params, fixed), jnp.asarray(losses[-1])


def _drawn(batch: Batch, key, number: jax.Array, n: int) -> Batch:
    """The rows of one step: used ones first, in an order of the step's own."""
    used = batch.weights.sum(-1) > 0
    order = jax.random.uniform(jax.random.fold_in(key, number), used.shape)
    chosen = jnp.argsort(jnp.where(used, order, 2.0))[:n]
    return jax.tree.map(lambda x: x[chosen], batch)
