"""Pretraining of a small base: a jitted scan of steps over rows held on the device.

Every ``extra_every``-th step trains on the extra rows (written bridge, documents,
facts in context), which are longer and so have a batch of their own shape; all other
steps train on the direct rows. Wang et al. (arXiv 2405.15071) for the recipe: AdamW,
short warm-up, then a constant rate, and a strong weight decay.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxlora.models import Decoder, init
from jaxlora.train.step import BASE, Batch, Fit, mean, step, sums
from jaxlora.tree import Tree


class Data(NamedTuple):
    """Rows on the device, padded to a common shape; ``n`` rows of each are real."""

    direct: Batch
    direct_n: jax.Array
    extra: Batch
    extra_n: jax.Array


@struct.dataclass
class State:
    """All that a resumed run needs: params, optimizer state, key and step."""

    params: Tree
    opt_state: Tree
    key: jax.Array
    step: jax.Array


class Sizes(NamedTuple):
    """Static numbers of a pretraining step."""

    batch: int
    extra_batch: int
    extra_every: int
    pad: int


def optimizer(
    learning_rate: float, weight_decay: float, warmup: int
) -> optax.GradientTransformation:
    """AdamW (b2 = 0.98) with a linear warm-up to a constant rate.

    Args:
      learning_rate: after the warm-up.
      weight_decay: of all leaves but norm scales and biases.
      warmup: steps in which the rate rises from 0; 0 for none.
    """
    schedule: optax.Schedule = optax.constant_schedule(learning_rate)
    if warmup:  # optax takes a warm-up of no steps for a rate of 0, for ever
        schedule = optax.warmup_constant_schedule(0.0, learning_rate, warmup)
    return optax.adamw(schedule, b2=0.98, weight_decay=weight_decay, mask=decayed)


def decayed(params: Tree) -> Tree:
    """Mask of the leaves that weight decay shrinks: all but norm scales and biases."""

    def shrinks(path: tuple[Any, ...], _: Any) -> bool:
        return getattr(path[-1], "key", "") not in ("scale", "bias")

    return jax.tree_util.tree_map_with_path(shrinks, params)


def start(model: Decoder, opt: optax.GradientTransformation, key: jax.Array) -> State:
    """Returns the state before the first step.

    Args:
      model: a decoder without a route.
      opt: from :func:`optimizer`.
      key: of the parameters, and of the rows that are drawn.
    """
    make, run = jax.random.split(key)
    params = init(make, model)
    return State(params, opt.init(params), run, jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=(4,))
def chunk(
    model: Decoder,
    opt: optax.GradientTransformation,
    sizes: Sizes,
    steps: int,
    state: State,
    data: Data,
) -> tuple[State, jax.Array]:
    """Runs ``steps`` steps of one base.

    The batch of step i is drawn with the key folded with i, so that a run cut into
    chunks, or resumed from one, is bit-equal to an uninterrupted one.

    Args:
      model: a decoder.
      opt: an optax optimizer, the same object in every call.
      sizes: batch sizes; ``steps`` is a multiple of ``extra_every``.
      steps: number of steps.
      state: donated.
      data: rows to draw from, with replacement.

    Returns:
      The next state, and the mean loss on direct rows.
    """
    gradient = jax.value_and_grad(mean(sums(model, BASE, (), {}, sizes.pad)))

    def update(state: State, batch: Batch) -> tuple[State, jax.Array]:
        fit, loss = step(gradient, opt, Fit(state.params, state.opt_state), batch)
        return State(fit.params, fit.opt_state, state.key, state.step + 1), loss

    def direct(state: State, _: None) -> tuple[State, jax.Array]:
        batch = _draw(state, data.direct, data.direct_n, sizes.batch)
        return update(state, batch)

    # Extra rows are longer: a batch of their own shape, at the end of every round.
    def round_(state: State, _: None) -> tuple[State, jax.Array]:
        state, losses = jax.lax.scan(direct, state, length=sizes.extra_every - 1)
        batch = _draw(state, data.extra, data.extra_n, sizes.extra_batch)
        return update(state, batch)[0], jnp.mean(losses)

    state, losses = jax.lax.scan(round_, state, length=steps // sizes.extra_every)
    return state, jnp.mean(losses)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=(4,))
def chunks(
    model: Decoder,
    opt: optax.GradientTransformation,
    sizes: Sizes,
    steps: int,
    states: State,
    data: Data,
) -> tuple[State, jax.Array]:
    """Runs ``steps`` steps of S bases at once.

    Args:
      model: a decoder, the same for all.
      opt: an optax optimizer, the same object in every call.
      sizes: batch sizes; ``steps`` is a multiple of ``extra_every``.
      steps: number of steps.
      states: donated; every array has a leading axis S.
      data: rows of each base, [S, ...].

    Returns:
      States [S, ...], and the mean direct losses [S].
    """
    return jax.vmap(lambda state, rows: chunk(model, opt, sizes, steps, state, rows))(
        states, data
    )


def _draw(state: State, rows: Batch, n: jax.Array, size: int) -> Batch:
    key = jax.random.fold_in(state.key, state.step)
    chosen = jax.random.randint(key, (size,), 0, n)
    return jax.tree.map(lambda x: x[chosen], rows)
