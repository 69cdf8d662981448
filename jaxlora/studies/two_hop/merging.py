"""Merging the libraries of all groups by name, whatever a merge draws or must see."""

import functools
from typing import Any

import jax
import numpy as np

from jaxlora import lora, merge
from jaxlora.evaluate import scoring
from jaxlora.evaluate.schema import Library, Method
from jaxlora.evaluate.scoring import Answers, Questions
from jaxlora.studies.two_hop import own_data
from jaxlora.studies.two_hop.bases import Base
from jaxlora.studies.two_hop.libraries import MEMBERS, Experts, stacked
from jaxlora.tree import Tree

DRAWS = 7919
"""Folded into a seed's key, so that merges and experts draw apart."""


def merges(method: Method) -> bool:
    """Is the method a merge, and not a route or none?"""
    return str(method) in merge.names()


def obstacle(library: Library, method: Method) -> str:
    """Why a method cannot combine a library, in a sentence; empty if it can.

    >>> obstacle(Library.TRIPLE, Method.MEAN)
    ''
    >>> obstacle(Library.TRIPLE, Method.SLERP)[:35]
    'slerp interpolates between two expe'
    """
    if not merges(method) or library not in MEMBERS:
        return ""
    try:
        merge.preset(str(method)).reduction.check(np.ones(len(MEMBERS[library])))
    except ValueError as error:
        return str(error)
    return ""


def key(seed: int, library: Library) -> jax.Array:
    """The key of a library's merges: one for all methods.

    What differs between two methods that draw is then not their luck.
    """
    own = jax.random.fold_in(jax.random.key(seed), DRAWS)
    return jax.random.fold_in(own, list(Library).index(library))


def keys(seed: int, library: Library, groups: int) -> jax.Array:
    """One key for each group, [G].

    >>> keys(0, Library.PAIR, 3).shape
    (3,)
    """
    return jax.random.split(key(seed, library), groups)


def answers(
    experts: Experts,
    library: Library,
    method: Method,
    questions: Questions,
    *,
    first_half: bool = False,
    data: Tree | None = None,
) -> Answers:
    """Merges the library of every group, and asks what is made of it.

    Results of at most three experts' rank share one compiled evaluation of adapters;
    those of full rank are added to the base, and share one of parameters.

    Args:
      experts: all experts of a base.
      library: a name with at least two members.
      method: a merge.
      questions: prompts of all groups.
      first_half: as in ``libraries.stacked``.
      data: for a merge that sees some, ``{site: [G, E, ...]}``; the experts' own data
        are found here.
    """
    experts_of = stacked(experts, library, first_half)
    groups = len(experts.groups)
    how = merge.preset(str(method))
    if how.data == "own":
        data = own_data.own(experts, library, method, experts_of)
    made = _merged(how, experts_of, keys(experts.base.seed, library, groups), data)
    rank = max(site.rank for site in lora.sites(made).values())
    most = 3 * max(site.rank for site in lora.sites(experts_of).values())
    return _asked(experts.base, made, questions, most if rank <= most else None)


def _asked(base: Base, made: lora.Adapter, questions: Questions, rank: int | None):
    if rank is None:
        params = _fused(base.params, made)
        return scoring.of_params(base.model, base.pad, params, questions, True)
    padded = lora.pad(made, rank)
    return scoring.of_adapters(base.model, base.pad, base.params, padded, questions)


@functools.partial(jax.jit, static_argnums=0)
def _merged(
    how: merge.Merge, libraries: lora.Library, keys: jax.Array, data: Any
) -> lora.Adapter:
    def one(library: lora.Library, key: jax.Array, data: Any) -> lora.Adapter:
        return how(library, key=key, data=data)

    return jax.vmap(one)(libraries, keys, data)


@jax.jit
def _fused(base: Tree, adapters: lora.Adapter) -> Tree:
    return jax.vmap(lora.fuse, in_axes=(None, 0))(base, adapters)
