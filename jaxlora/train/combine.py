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
from jaxlora.train import learned, library_gates, own_statistics
from jaxlora.train.step import GATE, Batch
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
        states = _learned_states(given, name)
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
        others = _others(len(given.keys))
        return _scales(*given[:4], given.target, others)
    weights = _searched(given, how)
    return jax.vmap(learned.scalars)(weights, given.libraries)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scales(
    model: Decoder, pad: int, base: Tree, libraries: Library, rows: Batch, others
) -> dict[str, jax.Array]:
    """CAT's scalars for every library, ``{site: [M, E, ...]}``."""

    def left_out(others: jax.Array) -> dict[str, jax.Array]:
        theirs, asked = jax.tree.map(lambda x: x[others], (libraries, rows))
        return learned.scales(model, pad, base, theirs, asked)

    # One after another: the memory is that of M - 1 libraries, and not of M times that.
    return jax.lax.map(left_out, others)


def _searched(given: Given, how: merge.Merge) -> jax.Array:
    """LoraHub's weights [M, E]: a loop on the host around one program."""
    weights = []
    for key, others in zip(given.keys, _others(len(given.keys)), strict=True):
        theirs = jax.tree.map(lambda x, j=others: x[j], given.libraries)
        asked = jax.tree.map(lambda x, j=others: x[j], given.target)
        weights.append(learned.searched(how, *given[:3], theirs, asked, key))
    return jnp.stack(weights)


def _learned_states(given: Given, name: str) -> Tree:
    """Gates [M, ...] whose keys learned on all other libraries."""
    model = Decoder(given.model.config, library_gates.training_of(name))
    others = _others(len(given.keys))
    keys = _keys(model, *given[1:4], given.target, others, given.keys)
    _, rest = GATE.split(library_gates.drawn(model, given.libraries, given.keys))
    return GATE.join(keys, rest)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _keys(
    model: Decoder,
    pad: int,
    base: Tree,
    libraries: Library,
    rows: Batch,
    others: jax.Array,
    keys: jax.Array,
) -> Tree:
    """The keys of a gate for every library, [M, ...]; M PRNG keys start them."""

    def left_out(given: tuple[jax.Array, jax.Array]) -> Tree:
        others, key = given
        theirs, asked = jax.tree.map(lambda x: x[others], (libraries, rows))
        states = library_gates.fresh(model, theirs, key)
        return library_gates.fit_keys(model, pad, base, theirs, states, asked)

    return jax.lax.map(left_out, (others, keys))


def _others(count: int) -> jax.Array:
    """For each of M libraries the numbers of all others, [M, M - 1]."""
    numbers = np.arange(count)
    return jnp.asarray([np.delete(numbers, m) for m in numbers], jnp.int32)


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
