"""What some merges learn on the target task, from people who are not asked.

Target data are two-hop questions, as :mod:`.lessons` hands them out: a merge is fitted
on many libraries at once, whose experts have the same roles. Scalars (CAT) are trained
on the mean loss of these questions, weights (LoraHub) searched.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlora import lora, merge, models
from jaxlora.evaluate.schema import Method
from jaxlora.models import Decoder
from jaxlora.studies.two_hop.symbols import lessons
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.lessons import Examples, Lessons
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tree import Tree

STEPS, RATE = 60, 0.1
"""Of Adam, for CAT: from the mean to wherever a softmax of three can go."""
SEARCHED = (Method.LORAHUB, Method.LORAHUB_ORIGINAL)


def notes(
    learned: Mapping[str, jax.Array], groups: tuple[Group, ...]
) -> dict[str, list[float]]:
    """What was learned, as means over sites and layers: one number an expert.

    Args:
      learned: ``{site: [2, G, E, ...]}``.
      groups: in the order of G.
    """
    means = [np.asarray(x).mean(axis=tuple(range(3, x.ndim))) for x in learned.values()]
    mean = np.mean(means, axis=0)  # [2, G, E]
    return {
        f"{group.cell}, pair {group.pair}, half {half}": mean[half, g].round(3).tolist()
        for g, group in enumerate(groups)
        for half in (0, 1)
    }


def target(
    base: Base,
    method: Method,
    library: lora.Library,
    groups: tuple[Group, ...],
    given: Lessons,
    keys: jax.Array,
) -> dict[str, jax.Array]:
    """What a merge learns of its lessons, ``{site: [2, G, E, ...]}`` by half.

    Args:
      base: a trained base.
      method: CAT or LoraHub.
      library: of every group, [G, E, ...].
      groups: in the order of G.
      given: who is learned from.
      keys: [G].

    Raises:
      ValueError: if it is not known how the method learns.
    """
    if method is Method.CAT:
        scales = _scales(base.model, base.pad, base.params, library, given)
        return lessons.by_half(given, groups, scales)
    if method not in SEARCHED:
        raise ValueError(
            f"The merge '{method}' sees data of the target task, and this study knows "
            f"only how 'cat' and 'lorahub' learn."
        )
    how = merge.preset(str(method))
    weights, out = _searched(base, how, library, groups, given, keys), {}
    for name, site in lora.sites(library).items():
        spread = weights.reshape(*weights.shape, *[1] * (site.scale.ndim - 2))
        out[name] = jnp.broadcast_to(spread, (2, *site.scale.shape))
    return out


def loss(
    model: Decoder, pad: int, base: Tree, adapters: lora.Library, given: Examples
) -> jax.Array:
    """Mean loss of some questions in nats, each asked of its group's adapter.

    Args:
      model: a decoder without a route.
      pad: id of the padding token.
      base: params tree.
      adapters: one for each group, [K, ...].
      given: questions [K, N, ...].
    """

    def group(adapter: lora.Adapter, given: Examples) -> jax.Array:
        inputs = models.Inputs(given.tokens, given.tokens != pad)
        logits = models.apply(model, base, inputs, adapter=adapter)[:, 2]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, given.targets)
        return jnp.sum(losses * given.weights)

    total = jnp.sum(jax.vmap(group)(adapters, given))
    return total / jnp.maximum(jnp.sum(given.weights), 1.0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scales(
    model: Decoder, pad: int, base: Tree, libraries: lora.Library, given: Lessons
) -> dict[str, jax.Array]:
    """Scalars of every half of every group by cell, ``{site: [C, K, 2, E, ...]}``."""

    def cell(given: Lessons) -> dict[str, jax.Array]:
        mine = jax.tree.map(lambda x: x[given.groups], libraries)

        def half(weights: jax.Array) -> dict[str, jax.Array]:
            asked = Examples(given.tokens, given.targets, weights)
            value = functools.partial(loss, model, pad, base, given=asked)
            how = {"steps": STEPS, "learning_rate": RATE, "shared": True}
            return merge.learn_scales(value, mine, **how)

        return jax.vmap(jax.vmap(half))(given.weights)

    # Cell after cell: the libraries of one cell serve all of its groups and halves.
    return jax.lax.map(cell, given)


def _searched(
    base: Base,
    how: merge.Merge,
    library: lora.Library,
    groups: tuple[Group, ...],
    given: Lessons,
    keys: jax.Array,
) -> jax.Array:
    """Weights [2, G, E], searched by one program for every half of every group."""
    best = []
    for g, (c, k) in enumerate(lessons.places(given, groups)):
        mine = jax.tree.map(lambda x, c=c: x[given.groups[c]], library)
        for half in (0, 1):
            weights = given.weights[c, k, half]
            asked = Examples(given.tokens[c], given.targets[c], weights)
            fixed = (how, base.model, base.pad, base.params, mine, asked)
            losses = functools.partial(_candidates, *fixed)
            key = jax.random.fold_in(keys[g], half)
            experts = lora.sites(library).popitem()[1].scale.shape[1]
            best.append(merge.search_weights(losses, experts, key=key).weights)
    return jnp.swapaxes(jnp.stack(best).reshape(len(groups), 2, -1), 0, 1)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _candidates(
    how: merge.Merge,
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: lora.Library,
    given: Examples,
    weights: jax.Array,
) -> jax.Array:
    """The losses [P] of a generation [P, E], each weighing K libraries alike."""

    def candidate(weights: jax.Array) -> jax.Array:
        def merged(library: lora.Library) -> lora.Adapter:
            return how(library, data=scalars(weights, library))

        return loss(model, pad, base, jax.vmap(merged)(libraries), given)

    return jax.vmap(candidate)(weights)


def scalars(weights: jax.Array, library: lora.Library) -> dict[str, jax.Array]:
    """One number an expert, [E], as the data of a scaled sum: ``{site: [E, ...]}``.

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
