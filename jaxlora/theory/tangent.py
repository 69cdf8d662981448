"""The tangent kernel of adapters: what a step on one row does to a question.

A fresh adapter (b = 0) leaves the base as it is. One step of gradient ascent on the
log-likelihood of row i moves its factors b along g_i, and the logit of answer y_i at
question j, to first order and for each unit of the rate, by

    K[j, i] = <grad_b logit_{y_i}(question j), g_i>.

No training is needed. Factors a are drawn as N(0, 1/D), so E[a a^T] = (R / D) I: the
mean over them is the kernel in the adapted base kernels themselves, each weighted by
``scale^2 R / D`` (:func:`metric`). Layers that an expert may not change weigh 0.

References:
  Jacot, Gabriel and Hongler, Neural Tangent Kernel (arXiv 1806.07572).
  Malladi et al., A Kernel-Based View of Language Model Fine-Tuning (arXiv 2210.05643).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Adapter, LoraConfig, LoraWeight
from jaxlora.tree import Tree


class Selectivity(NamedTuple):
    """How well rows move the answers to their questions, and not those of others."""

    effect: float
    """Mean effect of a question's own row, in nats for each unit of the rate."""
    share: float
    """Of questions whose own row moves its answer most; chance is 1 / N."""
    margin: float
    """Mean distance of the own effect from the others', in their standard deviations;
    NaN where no question has two other rows of different effects."""


def kernel(
    logits: Callable[[Tree], jax.Array],
    likelihood: Callable[[Tree, Any], jax.Array],
    free: Tree,
    rows: Any,
    answers: jax.Array,
    metric: Tree | None = None,
    batch: int | None = None,
) -> jax.Array:
    """Returns the effect of every row on its answer at every question, [Q, N].

    One gradient and one forward derivative a row, by default one row after another:
    memory does not grow with N. Pure, so it may be jitted and mapped over groups.

    Args:
      logits: of what is free, at the questions, [Q, V]; with forward derivatives, so
        that a decoder's adapter is fused into its kernels and not given beside them.
      likelihood: of what is free and of one row, its log-likelihood, a scalar.
      free: what a step moves, such as the factors b of a fresh adapter.
      rows: a pytree with a leading axis N.
      answers: [N] the index of each row's answer among V.
      metric: multiplies the gradient, leaf by leaf; None for a plain step.
      batch: rows at once, each with a gradient of its own in memory.

    >>> keys = jnp.eye(3)
    >>> free = jnp.zeros((3, 4))                       # a linear memory, [D, V]
    >>> step = lambda w, row: jax.nn.log_softmax(row[0] @ w)[row[1]]
    >>> answers = jnp.array([0, 1, 2])
    >>> moved = kernel(lambda w: keys @ w, step, free, (keys, answers), answers)
    >>> moved[:, 0].tolist()                           # row 0 moves its own question
    [0.75, 0.0, 0.0]
    """

    def column(row: tuple[Any, jax.Array]) -> jax.Array:
        direction = jax.grad(likelihood)(free, row[0])
        if metric is not None:
            direction = jax.tree.map(_weighted, direction, metric)
        _, moved = jax.jvp(logits, (free,), (direction,))
        return moved[:, row[1]]

    return jax.lax.map(column, (rows, answers), batch_size=batch).T


def _weighted(gradient: jax.Array, weight: jax.Array) -> jax.Array:
    return gradient * weight.astype(gradient.dtype)


def metric(
    base: Tree, config: LoraConfig, layers: Sequence[bool] | None = None
) -> dict[str, jax.Array]:
    """Returns ``{kernel name: scale^2 R / D}``, for the kernels that adapters adapt.

    Args:
      base: params; arrays, or shapes of arrays. Kernels are [..., D, F].
      config: rank, scale and targets.
      layers: [L] which layers of stacked kernels [L, D, F] a step may change; None for
        all. Where some may not, kernels that all layers share do not change either.

    >>> base = {"q_proj": {"kernel": jnp.ones((2, 4, 6))}}
    >>> config = LoraConfig(rank=2, alpha=4.0, targets=(".*",))
    >>> metric(base, config, [True, False])["q_proj/kernel"].ravel().tolist()
    [2.0, 0.0]
    """
    flat = named.flatten(base)
    claimed = lora.targets(base, config.targets)
    kept = None if layers is None else np.asarray(layers, bool)

    def weight(shape: Sequence[int]) -> jax.Array:
        value = config.scale**2 * config.rank / shape[-2]
        lead = np.ones(shape[:-2], np.float32)
        if kept is not None and len(shape) > 2 and shape[0] != len(kept):
            raise ValueError(
                f"Got {len(kept)} layers for kernels of {shape[0]}: in a model whose "
                f"layers are of several kinds all of them change, or none is chosen."
            )
        if kept is not None:
            lead = lead * (kept if len(shape) > 2 else kept.all())
        return jnp.asarray(value * lead, jnp.float32)[..., None, None]

    every = sorted(name for names in claimed.values() for name in names)
    return {name: weight(flat[name].shape) for name in every}


def outputs(adapter: Adapter) -> dict[str, jax.Array]:
    """Returns the factors b of a fresh adapter by site: what its first step moves.

    Args:
      adapter: one adapter, as :func:`jaxlora.lora.init` makes it.
    """
    return {name: weight.b for name, weight in lora.sites(adapter).items()}


def with_outputs(adapter: Adapter, b: dict[str, jax.Array]) -> Adapter:
    """The inverse of :func:`outputs`: the adapter with other factors b.

    Args:
      adapter: gives a and the scale.
      b: by site.
    """
    sites = lora.sites(adapter).items()
    fresh = {name: LoraWeight(w.a, b[name], w.scale) for name, w in sites}
    return named.unflatten(fresh)


def selectivity(effects: np.ndarray, own_row: np.ndarray) -> Selectivity:
    """Sums up the effects of rows on questions.

    Args:
      effects: K, [Q, N].
      own_row: int [Q], the row of each question.

    Raises:
      ValueError: if the effects are not finite.

    >>> selectivity(np.array([[2.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), np.array([0, 1]))
    Selectivity(effect=1.0, share=0.5, margin=1.0)
    """
    effects = np.asarray(effects, np.float64)
    if not np.isfinite(effects).all():
        raise ValueError(
            "Some effects of rows are not finite; does the base give NaN, or does its "
            "type overflow? Use float32."
        )
    q, n = effects.shape
    mine = effects[np.arange(q), own_row]
    others = effects[np.arange(n)[None, :] != np.asarray(own_row)[:, None]]
    others = others.reshape(q, n - 1)
    best = others.max(axis=1, initial=-np.inf)
    return Selectivity(
        float(mine.mean()), float((mine > best).mean()), _margin(mine, others)
    )


def _margin(mine: np.ndarray, others: np.ndarray) -> float:
    if others.shape[1] < 2:
        return float("nan")
    spread = others.std(axis=1)
    some = spread > 0
    distance = (mine - others.mean(axis=1))[some] / spread[some]
    return float(distance.mean()) if some.any() else float("nan")
