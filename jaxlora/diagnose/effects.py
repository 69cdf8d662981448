"""The tangent kernel of a decoder: rows of facts, and questions about them.

Letters: N facts, K rows of a fact, Q questions, T tokens, L layers.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import tree as named
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, Inputs, hidden, unembed
from jaxlora.theory import tangent
from jaxlora.tree import Tree


class Lesson(NamedTuple):
    """The rows that an expert is trained on, fact by fact; host or device arrays.

    A fact with fewer rows than K is filled up with rows of weight 0.
    """

    tokens: Any
    """[N, K, T]."""
    mask: Any
    """[N, K, T], false where a token may not be attended to."""
    targets: Any
    """[N, K, T] next tokens."""
    weights: Any
    """[N, K, T], 1 where a target is learnt."""


class Asked(NamedTuple):
    """Questions, and where and by what each is answered; host or device arrays."""

    tokens: Any
    """[Q, T]."""
    mask: Any
    """[Q, T]."""
    at: Any
    """[Q] position at which the answer is predicted."""
    answers: Any
    """[N] first token of every fact's answer, as it is written there."""


@functools.partial(jax.jit, static_argnums=(0, 5))
def effects(
    model: Decoder,
    base: Tree,
    lesson: Lesson,
    asked: Asked,
    metric: dict[str, jax.Array],
    batch: int | None = None,
) -> jax.Array:
    """Returns the effect of a step on each fact on its answer at each question, [Q, N].

    A step is on the mean log-likelihood of the fact's rows.

    Args:
      model: a decoder without a route.
      base: params tree.
      lesson: rows of N facts.
      asked: Q questions.
      metric: what a step may change, as :func:`jaxlora.theory.tangent.metric` gives it.
      batch: facts at once, each with a gradient of the size of the base in memory.
    """
    flat = named.flatten(base)

    def params(kernels: dict[str, jax.Array]) -> Tree:
        return named.unflatten(flat | kernels)

    def logits(kernels: dict[str, jax.Array]) -> jax.Array:
        x = hidden(model, params(kernels), Inputs(asked.tokens, asked.mask))
        x = jnp.take_along_axis(x, asked.at[:, None, None], axis=1)[:, 0]
        return unembed(model, params(kernels), x)

    def likelihood(kernels: dict[str, jax.Array], rows: Lesson) -> jax.Array:
        x = hidden(model, params(kernels), Inputs(rows.tokens, rows.mask))
        logs = jax.nn.log_softmax(unembed(model, params(kernels), x))
        each = jnp.take_along_axis(logs, rows.targets[..., None], axis=-1)[..., 0]
        used = jnp.any(rows.weights > 0, axis=-1).astype(jnp.float32)
        return jnp.sum(each * rows.weights) / jnp.maximum(jnp.sum(used), 1.0)

    free = {name: flat[name] for name in metric}
    given = (lesson, asked.answers, metric, batch)
    return tangent.kernel(logits, likelihood, free, *given)


@functools.partial(jax.jit, static_argnums=0)
def effects_of_groups(
    model: Decoder,
    base: Tree,
    lessons: Lesson,
    asked: Asked,
    metric: dict[str, jax.Array],
) -> jax.Array:
    """As :func:`effects`, of G groups, one after another in one program, [G, Q, N].

    Args:
      model: a decoder without a route.
      base: params tree.
      lessons: [G, N, ...].
      asked: [G, Q, ...].
      metric: the same for all.
    """

    def group(given: tuple[Lesson, Asked]) -> jax.Array:
        return effects(model, base, *given, metric, given[1].answers.shape[0])

    return jax.lax.map(group, (lessons, asked))


def layers_of(layers: Sequence[int], count: int) -> tuple[bool, ...]:
    """Which of ``count`` layers an expert may change, [L].

    Args:
      layers: their numbers; empty for all.
      count: L.

    Raises:
      ValueError: if a layer does not exist.

    >>> layers_of((1,), 3), layers_of((), 2)
    ((False, True, False), (True, True))
    """
    beyond = [layer for layer in layers if not 0 <= layer < count]
    if beyond:
        raise ValueError(
            f"Layer {beyond[0]} does not exist: the base has {count} layers, 0 to "
            f"{count - 1}."
        )
    return tuple(not layers or i in layers for i in range(count))


def metrics(
    base: Tree, config: LoraConfig, masks: Sequence[Sequence[bool]]
) -> list[dict[str, jax.Array]]:
    """What a step of each expert may change.

    Args:
      base: params tree.
      config: rank, scale and targets.
      masks: [L] for each expert.
    """
    return [tangent.metric(base, config, None if all(mask) else mask) for mask in masks]


def summed_up(kernel: Any, fact: np.ndarray) -> tangent.Selectivity:
    """Selectivity of a kernel [Q, N] that is still on the device.

    Args:
      kernel: effects.
      fact: [Q] the fact of each question.
    """
    return tangent.selectivity(np.asarray(kernel), fact)
