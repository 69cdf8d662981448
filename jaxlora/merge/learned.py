"""Coefficients that are trained on the target task: CAT, or LoRA Soups.

:func:`learn_scales` trains one scalar for each expert, site and layer by gradients
(Prabhakar et al., LoRA Soups, arXiv 2410.13025); the merge is the exact sum of deltas
with these coefficients. The authors' code starts at random scalars.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Library, LoraWeight
from jaxlora.merge.linear import (
    Data,
    Reduction,
    absent_removed,
    column,
    concatenate,
    over_experts,
)


@dataclasses.dataclass(frozen=True)
class ScaledSum(Reduction):
    """The exact ``sum_e w_e c_e delta_e`` for scalars c_e given as data, [E, ...]."""

    data: ClassVar[Data] = "target"

    def leaf(self, values, weights, key, data):
        """The sum of values, each times its weight and its scalar."""
        del key
        return over_experts(weights * _present(_given(data), weights), values)

    def factors(self, experts, weights, data):
        """The exact sum, of rank E * R."""
        # Weights multiply what was learned; weight 0 leaves an expert out.
        scales = _present(_given(data), weights)
        present = absent_removed(experts, weights)
        return concatenate(present, column(weights, scales.ndim - 1) * scales)


def scaled_sum() -> Reduction:
    """Coefficients ``w_e c_e``, with the c of :func:`learn_scales` as the merge's data.

    Weights of 1, the default, give the sum that was trained; 0 leaves an expert out.

    >>> w = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 4)), jnp.ones(2))
    >>> sum_of = scaled_sum().factors(w, jnp.ones(2), jnp.asarray([0.25, 0.5]))
    >>> float(lora.delta(sum_of)[0, 0])
    0.75
    """
    return ScaledSum()


def learn_scales(
    loss: Callable[..., jax.Array],
    library: Library,
    *,
    steps: int,
    learning_rate: float,
    key: jax.Array | None = None,
    softmax: bool = True,
    shared: bool = False,
) -> dict[str, jax.Array]:
    """Trains one scalar for each expert, site and layer, and nothing else, by Adam.

    ``adapter = sum_e c_e delta_e``, exact, with c the softmax over experts of what is
    trained, or c itself. It starts at the mean, ``c_e = 1 / E``.

    The steps are one ``lax.scan``, compiled at each call; a caller that repeats it for
    other data does so once, with ``jax.jit`` around a function that takes the data and
    calls this one.

    Args:
      loss: ``loss(adapter) -> scalar``, or with a key ``loss(adapter, key_t)``, where
        key_t is new at each step: to draw the examples of a batch.
      library: leaves [E, ..., D, R].
      steps: of Adam, at least 1.
      learning_rate: of Adam; positive.
      key: PRNG key, split over the steps for a loss that takes one; or None.
      softmax: keep scalars positive and of sum 1, as the paper does; without it they
        are free, also to be negative.
      shared: the same scalars for many libraries whose experts have the same roles:
        leaves are [K, E, ..., D, R], and the loss takes adapters [K, ..., D, E * R].

    Returns:
      ``{site: c [E, ...]}`` in float32, the data of :func:`scaled_sum`.

    Raises:
      ValueError: if the steps or the learning rate are out of range. Outside jit also
        if training diverged to numbers that are not finite.

    >>> w = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 4)), jnp.arange(2.0))
    >>> def far_from_one(adapter):
    ...     return jnp.mean((lora.delta(adapter["kernel"]) - 1) ** 2)
    >>> scales = learn_scales(
    ...     far_from_one, {"kernel": w}, steps=50, learning_rate=0.1, softmax=False
    ... )
    >>> scales["kernel"].round(1).tolist()
    [0.5, 1.0]
    """
    if steps < 1 or not learning_rate > 0:
        raise ValueError(
            f"Scalars are to be trained for {steps} steps at a learning rate of "
            f"{learning_rate}, expected at least 1 step and a positive rate."
        )
    first = jax.tree.map(lambda x: x[0], library) if shared else library
    experts = lora.num_experts(first)
    # Either way training starts at the mean of the experts.
    start = 0.0 if softmax else 1 / experts
    initial = {
        name: jnp.full(w.scale.shape, start, jnp.float32)
        for name, w in lora.sites(first).items()
    }
    summed = jax.vmap(_exact_sum, in_axes=(0, None)) if shared else _exact_sum

    def scales(trained):
        return jax.tree.map(lambda c: jax.nn.softmax(c, 0) if softmax else c, trained)

    def objective(trained, library, step_key):
        adapter = summed(library, scales(trained))
        return loss(adapter) if step_key is None else loss(adapter, step_key)

    keys = None if key is None else jax.random.split(key, steps)
    optimizer = optax.adam(learning_rate)
    train = jax.jit(functools.partial(_train, objective, optimizer, steps))
    trained = scales(train(initial, library, keys))
    _check_finite(trained, learning_rate)
    return trained


def _present(scales: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.where(column(weights != 0, scales.ndim - 1), scales, 0.0)


def _given(data: jax.Array | None) -> jax.Array:
    if data is None:
        raise ValueError(
            "A scaled sum got no scalars: pass data={site: [E, ...]}, for example "
            "what learn_scales() returns."
        )
    return jnp.asarray(data, jnp.float32)


def _exact_sum(library: Library, scales: dict[str, jax.Array]) -> Any:
    def scaled(name: str, weight: LoraWeight) -> LoraWeight:
        return concatenate(weight, scales[name])

    return named.map_named(scaled, library, is_leaf=lora.is_lora)


def _train(objective, optimizer, steps, initial, library, keys):
    def step(carry, step_key):
        trained, state = carry
        gradient = jax.grad(objective)(trained, library, step_key)
        with jax.numpy_dtype_promotion("standard"):  # optax counts in int32
            updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(trained, updates), state), None

    carry = (initial, optimizer.init(initial))
    return jax.lax.scan(step, carry, keys, length=steps)[0][0]


def _check_finite(trained: dict[str, jax.Array], learning_rate: float) -> None:
    for name, scales in trained.items():
        if isinstance(scales, jax.core.Tracer):
            return
        if not bool(jnp.isfinite(scales).all()):
            raise ValueError(
                f"Scalars of site {name!r} are not finite after training at a learning "
                f"rate of {learning_rate}, expected numbers: the loss or its gradient "
                f"is not finite for some adapter on the way."
            )
