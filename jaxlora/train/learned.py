"""What merges learn of a task's questions: CAT's scalars and LoraHub's weights.

Both are learned on many libraries at once whose experts have the same roles: one number
of each role serves them all, and whoever measures a library leaves its own questions
out. CAT (LoRA Soups, Prabhakar et al., arXiv 2410.13025) trains a scalar for each
expert, site and layer; LoraHub (Huang et al., arXiv 2307.13269) searches a weight for
each expert without gradients.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxlora import lora, merge, models
from jaxlora.lora import Adapter, Library
from jaxlora.models import Decoder
from jaxlora.train.step import Batch
from jaxlora.tree import Tree

SCALED = ("cat",)
"""Merges whose scalars :func:`scales` trains."""
SEARCHED = ("lorahub", "lorahub[original]")
"""Merges whose weights :func:`searched` finds."""
STEPS, RATE = 60, 0.1
"""Of Adam, for CAT: from the mean to wherever a softmax of three can go."""


def check(name: str) -> None:
    """Refuses a merge of which it is not known how it learns.

    Args:
      name: of a merge that sees data of the target task.

    Raises:
      ValueError: if it is neither trained nor searched.
    """
    if name not in (*SCALED, *SEARCHED):
        known = ", ".join(map(repr, (*SCALED, *SEARCHED)))
        raise ValueError(
            f"The merge '{name}' sees data of the target task, and it is known only "
            f"of {known} how they learn."
        )


def loss(
    model: Decoder,
    pad: int,
    base: Tree,
    adapters: Library,
    rows: Batch,
    at: int | None = None,
) -> jax.Array:
    """Mean loss in nats of the rows of K tasks, each under its adapter.

    Args:
      model: a decoder without a route.
      pad: id of the padding token.
      base: params tree.
      adapters: [K, ...].
      rows: [K, Q, T]; what is not asked weighs 0.
      at: where every row is answered, if only there: targets and weights are then
        [K, Q].
    """

    def task(adapter: Adapter, rows: Batch) -> jax.Array:
        inputs = models.Inputs(rows.tokens, rows.tokens != pad)
        logits = models.apply(model, base, inputs, adapter=adapter)
        logits = logits if at is None else logits[:, at]
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, rows.targets)
        return jnp.sum(nats * rows.weights)

    total = jnp.sum(jax.vmap(task)(adapters, rows))
    return total / jnp.maximum(jnp.sum(rows.weights), 1.0)


def scales(
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: Library,
    rows: Batch,
    at: int | None = None,
) -> dict[str, jax.Array]:
    """CAT's scalars, ``{site: [E, ...]}``, trained on the mean loss of K tasks.

    Args:
      model: a decoder without a route.
      pad: id of the padding token.
      base: params tree.
      libraries: [K, E, ...].
      rows: [K, Q, T], as :func:`loss` takes them.
      at: as in :func:`loss`.
    """
    value = functools.partial(loss, model, pad, base, rows=rows, at=at)
    how = {"steps": STEPS, "learning_rate": RATE, "shared": True}
    return merge.learn_scales(value, libraries, **how)


def searched(
    how: merge.Merge,
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: Library,
    rows: Batch,
    key: jax.Array,
    at: int | None = None,
) -> jax.Array:
    """LoraHub's weights [E], searched on the mean loss of K tasks.

    Args:
      how: the merge whose scalars the weights are.
      model: a decoder without a route.
      pad: id of the padding token.
      base: params tree.
      libraries: [K, E, ...].
      rows: [K, Q, T], as :func:`loss` takes them.
      key: of the search.
      at: as in :func:`loss`.
    """
    given = (how, model, pad, base, libraries, rows)
    losses = functools.partial(candidates, *given, at=at)
    experts = lora.sites(libraries).popitem()[1].scale.shape[1]
    return merge.search_weights(losses, experts, key=key).weights


@functools.partial(jax.jit, static_argnames=("how", "model", "pad", "at"))
def candidates(
    how: merge.Merge,
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: Library,
    rows: Batch,
    weights: jax.Array,
    at: int | None = None,
) -> jax.Array:
    """The losses [P] of a generation of weights [P, E], each for K libraries alike.

    Args:
      how: the merge whose scalars the weights are.
      model: a decoder without a route.
      pad: id of the padding token.
      base: params tree.
      libraries: [K, E, ...].
      rows: [K, Q, T], as :func:`loss` takes them.
      weights: [P, E].
      at: as in :func:`loss`.
    """

    def candidate(weights: jax.Array) -> jax.Array:
        def merged(library: Library) -> Adapter:
            return how(library, data=scalars(weights, library))

        return loss(model, pad, base, jax.vmap(merged)(libraries), rows, at)

    return jax.vmap(candidate)(weights)


def scalars(weights: jax.Array, library: Library) -> dict[str, jax.Array]:
    """One number an expert, [E], as the data of a scaled sum: ``{site: [E, ...]}``.

    Args:
      weights: [E].
      library: [E, ...].

    >>> w = lora.LoraWeight(
    ...     jnp.ones((2, 4, 3, 1)), jnp.ones((2, 4, 1, 5)), jnp.ones((2, 4))
    ... )
    >>> scalars(jnp.asarray([1.0, 2.0]), {"kernel": w})["kernel"].shape
    (2, 4)
    """
    out = {}
    for name, site in lora.sites(library).items():
        spread = weights.reshape(-1, *[1] * (site.scale.ndim - 1))
        out[name] = jnp.broadcast_to(spread, site.scale.shape)
    return out
