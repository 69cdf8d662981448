"""Many experts in one program: one step, vmapped over E data sets on one frozen base.

Each expert sees its whole data set at every step, so its result depends on its own
rows and key alone: what one gets for E = 1 is what one gets at E = 64. The expert axis
may be sharded: the inputs' sharding decides, the code does not change.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxlora import lora
from jaxlora.lora import Library, LoraConfig
from jaxlora.models import Decoder
from jaxlora.train.loss import Batch, loss
from jaxlora.tree import Tree


@struct.dataclass
class Fit:
    """What one step changes: trained parameters and their optimizer state."""

    params: Tree
    opt_state: Tree


def step(
    value: Callable[[Tree, Batch], jax.Array],
    opt: optax.GradientTransformation,
    fit: Fit,
    batch: Batch,
) -> tuple[Fit, jax.Array]:
    """One update of one data set; pure, so it vmaps, pmaps and scans.

    Args:
      value: loss of the trained parameters on a batch.
      opt: an optax optimizer.
      fit: parameters and optimizer state.
      batch: rows [N, T].

    Returns:
      The next fit, and the loss before the update.
    """
    now, grads = jax.value_and_grad(value)(fit.params, batch)
    updates, opt_state = opt.update(grads, fit.opt_state, fit.params)
    return Fit(optax.apply_updates(fit.params, updates), opt_state), now


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def experts(
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

    def one(key: jax.Array, batch: Batch) -> tuple[Tree, jax.Array]:
        factors, scales = lora.split(lora.init(key, base, config))

        def value(factors: Tree, batch: Batch) -> jax.Array:
            adapter = lora.combine(factors, scales)
            return loss(model, base, batch, pad, adapter)

        trained, last = fit(value, opt, steps, factors, batch)
        return lora.combine(trained, scales), last

    return jax.vmap(one)(keys, rows)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def finetune(
    model: Decoder,
    opt: optax.GradientTransformation,
    steps: int,
    pad: int,
    base: Tree,
    rows: Batch,
) -> tuple[Tree, jax.Array]:
    """Full fine-tuning of a copy of the base per data set: the ceiling for LoRA.

    Args:
      model: a decoder without a route.
      opt: an optax optimizer.
      steps: full-batch steps.
      pad: id of the padding token.
      base: the params every copy starts from.
      rows: one data set a copy, [E, N, T].

    Returns:
      Params with a leading axis E, and the last losses [E] in nats.
    """

    def one(batch: Batch) -> tuple[Tree, jax.Array]:
        return fit(
            lambda params, rows: loss(model, params, rows, pad), opt, steps, base, batch
        )

    return jax.vmap(one)(rows)


def fit(
    value: Callable[[Tree, Batch], jax.Array],
    opt: optax.GradientTransformation,
    steps: int,
    params: Tree,
    batch: Batch,
) -> tuple[Tree, jax.Array]:
    """Takes ``steps`` steps on one batch; returns the parameters and the last loss."""

    def body(now: Fit, _: None) -> tuple[Fit, jax.Array]:
        return step(value, opt, now, batch)

    start = Fit(params, opt.init(params))
    end, losses = jax.lax.scan(body, start, length=steps)
    return end.params, jnp.asarray(losses[-1])
