"""How long and how fast a run learns: every number that a user may choose.

AdamW as in Loshchilov and Hutter (arXiv 1711.05101), with a rate that rises linearly,
then falls linearly.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxlora.models.config import DecoderConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How long and how fast every adapter, or every gate, learns."""

    epochs: float = 3.0
    """Passes over each file."""
    steps: int = 0
    """Updates of every adapter, in place of epochs, if not 0."""
    learning_rate: float = 2e-4
    """Peak of AdamW's rate: it rises linearly, then falls linearly to zero."""
    warmup: float = 0.05
    """Share of the updates in which the rate rises; from 1 on, their number."""
    decay: float = 1.0
    """Share of the peak that is gone at the end: 0 constant, 1 linear to zero."""
    weight_decay: float = 0.0
    """Of AdamW, on a and b."""
    clip: float = 1.0
    """Gradients are clipped to this norm; 0 leaves them."""
    length: int = 512
    """Tokens of a row; several examples share one, without seeing each other."""
    batch: int = 8
    """Rows of a microbatch."""
    accumulate: int = 1
    """Microbatches of an update."""
    together: int = 0
    """Adapters that train at once; 0 chooses, fewer need less memory."""
    seed: int = 0
    """Of starts and orders."""

    def __post_init__(self):
        sizes = (self.epochs, self.learning_rate)
        if not all(0 < size < math.inf for size in sizes) or self.steps < 0:
            raise ValueError(
                f"epochs={self.epochs}, steps={self.steps}, learning_rate="
                f"{self.learning_rate}: expected positive numbers (steps may be 0)."
            )
        if not 0 <= self.warmup < math.inf or not 0 <= self.decay <= 1:
            raise ValueError(
                f"warmup={self.warmup}, decay={self.decay}: expected shares, from 0 "
                f"to 1 (warmup below 1, or a number of updates from 1 on)."
            )
        if not all(0 <= x < math.inf for x in (self.weight_decay, self.clip)):
            raise ValueError(
                f"weight_decay={self.weight_decay}, clip={self.clip}: expected "
                f"numbers, 0 or more."
            )
        if self.batch < 1 or self.accumulate < 1 or self.length < 1:
            raise ValueError(
                f"batch={self.batch}, accumulate={self.accumulate}, length="
                f"{self.length}: expected 1 or more."
            )
        if self.together < 0 or self.seed < 0:
            raise ValueError(
                f"together={self.together}, seed={self.seed}: expected 0 or more."
            )

    def total(self, rows: int) -> int:
        """Updates of an expert of so many rows.

        >>> Training(epochs=2, batch=4).total(10)
        5
        """
        size = self.batch * self.accumulate
        return self.steps or max(1, -(-int(rows * self.epochs) // size))

    def fitted(self, rows: int) -> "Training":
        """With a microbatch of no more rows than the largest data set has.

        >>> Training(batch=8).fitted(3).batch
        3
        """
        return dataclasses.replace(self, batch=min(self.batch, rows))

    def plan(self, totals: Sequence[int]) -> "Plan":
        """The learning rates of E experts that take so many updates each.

        >>> Training(warmup=0.25).plan([8, 40]).warmup.tolist()
        [2.0, 10.0]
        >>> Training(warmup=3).plan([8, 40]).warmup.tolist()
        [3.0, 3.0]
        """
        total = jnp.asarray(totals, jnp.float32)
        share = self.warmup < 1
        warmup = total * self.warmup if share else jnp.full_like(total, self.warmup)
        return Plan(
            peak=jnp.full_like(total, self.learning_rate),
            warmup=jnp.floor(warmup),
            total=total,
            decay=jnp.full_like(total, self.decay),
        )

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW of these numbers; equal numbers give the same object."""
        return optimizer(weight_decay=self.weight_decay, clip=self.clip)


def faster(
    config: DecoderConfig,
    remat: Literal["auto", "on", "off"],
    platform: str,
) -> DecoderConfig:
    """Choices that change time and memory of training, not values.

    Args:
      config: of the model as it was read.
      remat: are layers computed again in the backward pass? auto: from width 1024 on.
      platform: of the devices that will train.
    """
    auto = remat == "auto" and config.hidden_size >= 1024
    return dataclasses.replace(
        config,
        remat=remat == "on" or auto,
        unroll=min(4, config.num_layers) if platform == "cpu" else 1,
    )


def at_once(config: DecoderConfig, experts: int, platform: str) -> int:
    """How many experts train at once, unless chosen.

    Args:
      config: of the base.
      experts: of a group.
      platform: of the devices that will train.
    """
    # On CPU one expert's row fills the caches: two at once took as long as one after
    # the other (experiments/real_models), and their activations twice the memory.
    alone = platform == "cpu" and config.hidden_size >= 512
    return 1 if alone else experts


class Plan(NamedTuple):
    """The learning rate of every expert; arrays [E], or scalars for one."""

    peak: jax.Array
    """Learning rate after the warm-up."""
    warmup: jax.Array
    """Updates in which it rises linearly from 0."""
    total: jax.Array
    """Updates of the expert; after them it stays as it is."""
    decay: jax.Array
    """Share of the peak that is gone at ``total``: 0 constant, 1 linear to zero."""


def rate(plan: Plan, step: jax.Array) -> jax.Array:
    """Learning rate of update ``step``, from 0.

    >>> plan = Plan(*map(jnp.float32, (1.0, 2, 6, 1.0)))
    >>> [round(float(rate(plan, jnp.float32(s))), 3) for s in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    step = step.astype(jnp.float32)
    rise = jnp.minimum(1.0, (step + 1.0) / jnp.maximum(plan.warmup, 1.0))
    left = jnp.maximum(plan.total - plan.warmup, 1.0)
    gone = jnp.clip((step - plan.warmup) / left, 0.0, 1.0)
    return plan.peak * rise * (1.0 - plan.decay * gone)


# Cached: jit tells compiled programs apart by the identity of their optimizer.
@functools.cache
def optimizer(
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    clip: float = 1.0,
) -> optax.GradientTransformation:
    """AdamW without its learning rate, which a :class:`Plan` gives.

    Args:
      b1: decay of the mean of gradients.
      b2: decay of the mean of their squares.
      eps: added to the root of the latter.
      weight_decay: share of the parameters that an update takes away, times its rate.
      clip: largest norm of a gradient; 0 for any.

    Returns:
      The same object whenever the numbers are the same.
    """
    parts = [optax.clip_by_global_norm(clip)] if clip else []
    parts += [optax.scale_by_adam(b1, b2, eps), optax.add_decayed_weights(weight_decay)]
    return optax.chain(*parts)
