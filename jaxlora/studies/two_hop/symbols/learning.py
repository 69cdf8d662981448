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

from jaxlora import lora, merge
from jaxlora.evaluate.schema import Method
from jaxlora.models import Decoder
from jaxlora.studies.two_hop.symbols import lessons
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.lessons import Lessons
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.train import learned
from jaxlora.train.step import Batch
from jaxlora.tree import Tree

AT = 2
"""Where a two-hop question is answered."""


def notes(
    numbers: Mapping[str, jax.Array], groups: tuple[Group, ...]
) -> dict[str, list[float]]:
    """What was learned, as means over sites and layers: one number an expert.

    Args:
      numbers: ``{site: [2, G, E, ...]}``.
      groups: in the order of G.
    """
    means = [np.asarray(x).mean(axis=tuple(range(3, x.ndim))) for x in numbers.values()]
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
    learned.check(str(method))
    if method in learned.SCALED:
        scales = _scales(base.model, base.pad, base.params, library, given)
        return lessons.by_half(given, groups, scales)
    how = merge.preset(str(method))
    weights = _searched(base, how, library, groups, given, keys)
    return jax.vmap(jax.vmap(learned.scalars), (0, None))(weights, library)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scales(
    model: Decoder, pad: int, base: Tree, libraries: lora.Library, given: Lessons
) -> dict[str, jax.Array]:
    """Scalars of every half of every group by cell, ``{site: [C, K, 2, E, ...]}``."""

    def cell(given: Lessons) -> dict[str, jax.Array]:
        mine = jax.tree.map(lambda x: x[given.groups], libraries)

        def half(weights: jax.Array) -> dict[str, jax.Array]:
            asked = Batch(given.tokens, given.targets, weights)
            return learned.scales(model, pad, base, mine, asked, AT)

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
            asked = Batch(given.tokens[c], given.targets[c], weights)
            fixed = (how, base.model, base.pad, base.params, mine, asked)
            key = jax.random.fold_in(keys[g], half)
            best.append(learned.searched(*fixed, key, AT))
    return jnp.swapaxes(jnp.stack(best).reshape(len(groups), 2, -1), 0, 1)
