"""Every merge and every route of M libraries at once, whatever data it must see.

One door for studies: :func:`merged` and :func:`routed` take the name of a method and
what there is to see, and find for themselves what the method needs of it. Libraries are
of experts with the same roles: expert e of each does the same job for its own task.

A method that sees *own* data sees the rows that each expert was trained on. One that
sees *target* data learns, for library m, on the questions of all other libraries and
under their experts, never on those of m: what it learns is a number, or a key, for each
role. Nothing that is then asked of library m was learned from.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora, merge, route
from jaxlora.lora import Adapter, Library
from jaxlora.models import Decoder
from jaxlora.train import learned, left_out, library_gates, own_statistics
from jaxlora.train.step import Batch
from jaxlora.tree import Tree


class Given(NamedTuple):
    """M libraries of E experts on one base, and all that a method may see."""

    model: Decoder
    """Without a route."""
    pad: int
    """Id of the padding token."""
    base: Tree
    """Params tree."""
    libraries: Library
    """[M, E, ...]."""
    rows: Batch
    """[M, E, N, T], the rows that each expert was trained on; unused rows weigh 0."""
    target: Batch
    """[M, Q, T], questions of each library's task, answered at weighted targets."""
    keys: jax.Array
    """[M] PRNG keys, of methods that draw, search or start at random."""


class Routed(NamedTuple):
    """M libraries under one route, with its gates."""

    model: Decoder
    """With the route."""
    libraries: Library
    """[M, E, ...], as the route uses them."""
    states: Tree
    """Of the gates, [M, ...]."""


def merged(given: Given, name: str) -> Adapter:
    """Merges every library; adapters [M, ...].

    A merge that learns on the target task (CAT, LoraHub) learns for library m on the
    questions ``target[j]`` under the experts ``libraries[j]`` of all j other than m.

    Args:
      given: the libraries, and what a merge may see.
      name: one of ``merge.names()``.

    Raises:
      ValueError: if there is no such merge, it cannot combine E experts, data do not
        fit the libraries, an expert has no rows of its own, or a merge that learns has
        one library only.
    """
    how = merge.preset(name)
    _check(given, how.data, name)
    return merge_each(how, given.libraries, given.keys, _data(given, how, name))


def routed(given: Given, name: str) -> Routed:
    """Routes every library, and makes its gate.

    A gate that learns on the target task (linear, SMEAR, LoRA-Flow) learns for library
    m on the questions ``target[j]`` under the experts ``libraries[j]`` of all j other
    than m; its keys then serve the experts of m in the same roles.

    Args:
      given: the libraries, and what a gate may see.
      name: one of ``route.names()``, but not the oracle.

    Raises:
      ValueError: if there is no such route, it is the oracle, data do not fit the
        libraries, an expert has no rows of its own, or a gate that learns has one
        library only.
    """
    how = route.preset(name)
    if how.gate.data == "labels":
        raise ValueError(
            f"The route '{name}' has no gate to make: its weights are labels that come "
            f"with each call of the model."
        )
    _check(given, how.gate.data, name)
    libraries = library_gates.prepared(how, given.libraries)
    model = Decoder(given.model.config, how.fit(_sizes(given.libraries)[1]))
    given = given._replace(libraries=libraries)
    if how.gate.data == "own":
        states = library_gates.on_own_rows(name, *given[:5])
    elif how.gate.data == "target":
        training = Decoder(given.model.config, library_gates.training_of(name))
        states = left_out.gates(training, *given[1:4], given.target, given.keys)
    else:
        states = library_gates.drawn(model, libraries, given.keys)
    return Routed(model, libraries, states)


def obstacle(name: str, experts: int, layers: int) -> str:
    """Why a method cannot combine some experts, in a sentence; empty if it can.

    Args:
      name: of a merge or a route.
      experts: E.
      layers: L of the base.

    Raises:
      ValueError: if there is no such method.

    >>> obstacle("slerp", 3, 4)[:32]
    'slerp interpolates between two e'
    >>> obstacle("placed-sum", 3, 2)[:27]
    'Got 3 experts for 2 layers,'
    >>> obstacle("placed-sum", 3, 4), obstacle("arrow", 3, 4)
    ('', '')
    """
    if name in route.names():
        return ""
    how, lead = merge.preset(name), (experts, layers)
    shapes = (*lead, 2, 1), (*lead, 1, 2), lead
    tiny = {"kernel": lora.LoraWeight(*map(jnp.zeros, shapes))}
    try:
        how.reduction.check(np.ones(experts))
        if how.data == "free":  # else it is known only with the data
            jax.eval_shape(functools.partial(how, key=jax.random.key(0)), tiny)
    except ValueError as error:
        return str(error)
    return ""


@functools.partial(jax.jit, static_argnums=0)
def merge_each(
    how: merge.Merge, libraries: Library, keys: jax.Array, data: Tree | None = None
) -> Adapter:
    """Merges M libraries by one program; adapters [M, ...].

    Args:
      how: the merge.
      libraries: [M, E, ...].
      keys: [M].
      data: arrays [M, E, ...] by site, for a merge that sees data.
    """

    def adapter(library: Library, key: jax.Array, data: Tree | None) -> Adapter:
        return how(library, key=key, data=data)

    return jax.vmap(adapter)(libraries, keys, data)


def _data(given: Given, how: merge.Merge, name: str) -> Tree | None:
    """What a merge sees of each library, ``{site: [M, E, ...]}``."""
    if how.data == "free":
        return None
    if how.data == "own":
        experts = range(_sizes(given.libraries)[1])
        rows = (jax.tree.map(lambda x, e=e: x[:, e], given.rows) for e in experts)
        return own_statistics.measured(name, *given[:4], rows)
    learned.check(name)
    if name in learned.SCALED:
        return left_out.scales(*given[:4], given.target)
    weights = left_out.weights(how, *given[:4], given.target, given.keys)
    return jax.vmap(learned.scalars)(weights, given.libraries)


def _sizes(libraries: Library) -> tuple[int, int]:
    """M and E."""
    scale = next(iter(lora.sites(libraries).values())).scale
    return scale.shape[0], scale.shape[1]


def _check(given: Given, sees: str, name: str) -> None:
    """Refuses what does not fit, before anything is compiled."""
    count, experts = _sizes(given.libraries)
    shapes = {
        "keys": (given.keys.shape, (count,)),
        "rows": (given.rows.tokens.shape[:2], (count, experts)),
        "target": (given.target.tokens.shape[:1], (count,)),
    }
    for field, (got, expected) in shapes.items():
        if got != expected:
            raise ValueError(
                f"'{field}' has leading axes {list(got)}, expected {list(expected)}: "
                f"the libraries are {count} of {experts} experts each."
            )
    if sees == "target" and count < 2:
        raise ValueError(
            f"'{name}' learns for each library on the questions of all others, and got "
            f"1 library, expected at least 2: there is nothing to learn from."
        )
    if sees == "own":
        _check_rows(given.rows, name)


def _check_rows(rows: Batch, name: str) -> None:
    empty = np.argwhere(~np.any(np.asarray(rows.weights) > 0, axis=(-2, -1)))
    if empty.size:
        m, e = empty[0]
        raise ValueError(
            f"'{name}' sees the rows that each expert was trained on, and expert {e} "
            f"of library {m} has none of weight above 0, expected one at least."
        )
