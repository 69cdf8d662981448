"""The stacked adapters of an arm, and the models that merges make of them."""

import functools

import jax
import jax.numpy as jnp

from jaxlora import lora, merge
from jaxlora.evaluate import scoring
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.evaluate.scoring import Answers, Questions
from jaxlora.studies.two_hop import arms
from jaxlora.studies.two_hop.symbols import own_data
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.experts import Experts, keys_of
from jaxlora.tasks.two_hop.experts import Expert
from jaxlora.train import combine
from jaxlora.tree import Tree


def stacked(experts: Experts, arm: Arm, first_half: bool = False) -> lora.Library:
    """Returns the library of every group: leaves [G, E, ...].

    Args:
      experts: all experts of a base.
      arm: with at least one expert; random and permuted ones are made of A->B and B->C,
        the same for every method.
      first_half: for held-out A->C experts, use the one trained on the first half.
    """
    trees = [experts.adapters[name] for name in arms.members(arm, first_half)]
    library = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *trees)
    if arm is Arm.RANDOM:
        keys = keys_of(experts.base.seed, [Expert.HOP1], len(experts.groups))
        return _random(keys, library)
    return _permuted(library) if arm is Arm.PERMUTED else library


# Made once, so that all seeds share their compiled programs.
_random = jax.jit(jax.vmap(merge.random_like))
_permuted = jax.jit(jax.vmap(functools.partial(merge.permute_sites, None)))


def keys(experts: Experts, arm: Arm) -> jax.Array:
    """One key for each group, [G]."""
    return jax.random.split(arms.key(experts.base.seed, arm), len(experts.groups))


def merged(
    experts: Experts,
    arm: Arm,
    method: Method,
    *,
    first_half: bool = False,
    data: Tree | None = None,
) -> lora.Adapter:
    """Merges the library of every group; adapters [G, ...].

    Args:
      experts: all experts of a base.
      arm: with at least two experts.
      method: a merge.
      first_half: as for :func:`stacked`.
      data: for a merge that learned on the target task, ``{site: [G, E, ...]}``; the
        experts' own data are measured here.
    """
    library = stacked(experts, arm, first_half)
    how = merge.preset(str(method))
    if how.data == "own":
        data = own_data.measure(experts, arm, method, library)
    return combine.merge_each(how, library, keys(experts, arm), data)


def answers(experts: Experts, adapters: lora.Adapter, questions: Questions) -> Answers:
    """Asks one adapter [G, ...] of every group.

    Those of at most three experts' rank share one compiled evaluation of adapters;
    those of full rank are added to the base, and share one of parameters.

    Args:
      experts: all experts of a base.
      adapters: merged, or of one expert.
      questions: prompts of all groups.
    """
    base: Base = experts.base
    rank = max(site.rank for site in lora.sites(adapters).values())
    hop1 = experts.adapters[Expert.HOP1]
    most = 3 * max(site.rank for site in lora.sites(hop1).values())
    if rank > most:
        params = _fused(base.params, adapters)
        return scoring.of_params(base.model, base.pad, params, questions, True)
    padded = lora.pad(adapters, most)
    return scoring.of_adapters(base.model, base.pad, base.params, padded, questions)


@jax.jit
def _fused(base: Tree, adapters: lora.Adapter) -> Tree:
    return jax.vmap(lora.fuse, in_axes=(None, 0))(base, adapters)
