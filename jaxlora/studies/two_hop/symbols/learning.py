"""What some merges learn on the target task, from people who are not asked.

Target data are two-hop questions about other people of the group: each half of the
people is answered by what was learned on the other half, as by the oracle's route.
Scalars (CAT) are trained on the loss of these questions, weights (LoraHub) searched.

With a counterfactual expert the answers that are learned are those that the experts'
facts compose to, else the true ones.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlora import lora, merge, models
from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.models import Decoder
from jaxlora.studies.two_hop.arms import COUNTERFACTUALS
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.questions import Asked
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tree import Tree

STEPS, RATE = 60, 0.1
"""Of Adam, for CAT: from the mean to wherever a softmax of three can go."""
SEARCHED = (Method.LORAHUB, Method.LORAHUB_ORIGINAL)


class Examples(NamedTuple):
    """Two-hop questions that a merge may learn from, for every group and half."""

    tokens: jax.Array
    """[G, 2, N, 3]; of half h are the people whose number mod 2 is *not* h."""
    targets: jax.Array
    """[G, 2, N]."""
    weights: jax.Array
    """[G, 2, N], 0 where there is nobody, or no answer to give."""


def examples(asked: Asked, arm: Arm) -> Examples:
    """The two-hop questions that an arm's merges learn from.

    Args:
      asked: the questions of all groups.
      arm: says which answers are right.
    """
    groups, n, moved = asked.groups, asked.people, arm in COUNTERFACTUALS
    prompts = np.asarray(asked.questions.direct[:, 2 * n : 3 * n])
    size = -(-n // 2)
    tokens = np.zeros((len(groups), 2, size, 3), prompts.dtype)
    targets = np.zeros((len(groups), 2, size), np.int32)
    weights = np.zeros((len(groups), 2, size), np.float32)
    for g, group in enumerate(groups):
        key = asked.keys[g][Split.TWO_HOP]
        answers = key.counterfactual if moved else key.answer
        for half in (0, 1):
            others = np.arange(1 - half, group.size, 2)
            rest = np.resize(others, size)  # repeats, of weight 0, up to the size
            tokens[g, half] = prompts[g, rest]
            targets[g, half] = np.maximum(answers[rest], 0)
            weights[g, half, : len(others)] = answers[others] >= 0
    return Examples(*map(jnp.asarray, (tokens, targets, weights)))


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
    base: Base, method: Method, library: lora.Library, given: Examples, keys: jax.Array
) -> dict[str, jax.Array]:
    """What a merge learns of the examples, ``{site: [2, G, E, ...]}`` by half.

    Args:
      base: a trained base.
      method: CAT or LoraHub.
      library: of every group, [G, E, ...].
      given: examples of every group and half.
      keys: [G].

    Raises:
      ValueError: if it is not known how the method learns.
    """
    if method is Method.CAT:
        return _scales(base.model, base.pad, base.params, library, given)
    if method not in SEARCHED:
        raise ValueError(
            f"The merge '{method}' sees data of the target task, and this study knows "
            f"only how 'cat' and 'lorahub' learn."
        )
    how = merge.preset(str(method))

    def group(g: int, half: int) -> np.ndarray:
        mine = jax.tree.map(lambda x: x[g], library)
        examples = jax.tree.map(lambda x: x[g, half], given)
        return _search(base, how, mine, examples, jax.random.fold_in(keys[g], half))

    halves = [[group(g, half) for g in range(len(keys))] for half in (0, 1)]
    weights = jnp.asarray(halves)  # [2, G, E]
    return {
        name: jnp.broadcast_to(
            weights.reshape(*weights.shape, *[1] * (site.scale.ndim - 2)),
            (2, *site.scale.shape),
        )
        for name, site in lora.sites(library).items()
    }


def _loss(model: Decoder, pad: int, base: Tree, adapter: lora.Adapter, given: Examples):
    """Mean loss of one half of one group, in nats."""
    inputs = models.Inputs(given.tokens, given.tokens != pad)
    logits = models.apply(model, base, inputs, adapter=adapter)[:, 2]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, given.targets)
    total = jnp.maximum(jnp.sum(given.weights), 1.0)
    return jnp.sum(losses * given.weights) / total


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scales(
    model: Decoder, pad: int, base: Tree, libraries: lora.Library, given: Examples
) -> dict[str, jax.Array]:
    def group(library: lora.Library, given: Examples) -> dict[str, jax.Array]:
        def loss(adapter: lora.Adapter) -> jax.Array:
            return _loss(model, pad, base, adapter, given)

        return merge.learn_scales(loss, library, steps=STEPS, learning_rate=RATE)

    halves = jax.vmap(group, in_axes=(None, 0))
    return jax.vmap(halves, out_axes=1)(libraries, given)


def _search(
    base: Base,
    how: merge.Merge,
    library: lora.Library,
    given: Examples,
    key: jax.Array,
) -> np.ndarray:
    """Weights [E] of one group, searched on the examples of one half."""

    def losses(weights: jax.Array) -> jax.Array:
        return _candidates(
            how, base.model, base.pad, base.params, library, given, weights
        )

    experts = lora.num_experts(library)
    return np.asarray(merge.search_weights(losses, experts, key=key).weights)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _candidates(
    how: merge.Merge,
    model: Decoder,
    pad: int,
    base: Tree,
    library: lora.Library,
    given: Examples,
    weights: jax.Array,
) -> jax.Array:
    """The losses of a generation [P, E], one vmapped forward; [P]."""

    def candidate(weights: jax.Array) -> jax.Array:
        adapter = how(library, data=scalars(weights, library))
        return _loss(model, pad, base, adapter, given)

    return jax.vmap(candidate)(weights)


def scalars(weights: jax.Array, library: lora.Library) -> dict[str, jax.Array]:
    """One number an expert, [E], as the data of a scaled sum: ``{site: [E, ...]}``.

    >>> w = lora.LoraWeight(
    ...     jnp.ones((2, 4, 3, 1)), jnp.ones((2, 4, 1, 5)), jnp.ones((2, 4))
    ... )
    >>> scalars(jnp.asarray([1.0, 2.0]), {"kernel": w})["kernel"].shape
    (2, 4)
    """
    return {
        name: jnp.broadcast_to(
            weights.reshape(-1, *[1] * (site.scale.ndim - 1)), site.scale.shape
        )
        for name, site in lora.sites(library).items()
    }
