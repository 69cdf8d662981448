"""Merging group by group, wherever that changes nothing; and measuring what came out.

A *group* is a site [E, L, ...] of a library by name, as :mod:`jaxlora.io.collection`
reads it. The adapter is the one that the merge makes of all groups together: a merge
that draws, or that looks at all sites at once, is given all of them; any other sees one
group after the other, so that memory is that of one, and groups of equal shapes share a
program.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora.lora import LoraWeight
from jaxlora.merge import magnitude
from jaxlora.merge.compose import Merge
from jaxlora.merge.fidelity import Fidelity, fidelity
from jaxlora.merge.totals import Groups as Groups
from jaxlora.merge.totals import Totals as Totals
from jaxlora.merge.totals import products as products
from jaxlora.merge.totals import sum_up as sum_up
from jaxlora.merge.totals import totals as totals
from jaxlora.tree import unflatten

Progress: TypeAlias = Callable[[str, int, int], None]
"""``progress(group, groups done, groups in all)``."""

Run: TypeAlias = Callable[..., Groups]
"""``run(merge, library, weights, *, key, rank, data)``: the merge, by group, or the
same on other devices; a library that has equal shapes compiles nothing anew."""

_SITE = "site"


def here(
    merge: Merge,
    library: Mapping[str, LoraWeight],
    weights: jax.Array,
    *,
    key: jax.Array | None = None,
    rank: int | None = None,
    data: Mapping[str, jax.Array] | None = None,
) -> Groups:
    """Runs a merge on one device.

    Args:
      merge: any.
      library: by group, a [E, L, D, R].
      weights: [E].
      key: for merges that draw.
      rank: of the result, or None.
      data: by group, [E, L, ...], for merges that see data.
    """
    return _merged(dict(library), weights, key, data, merge, rank)


def merge_groups(
    merge: Merge,
    library: Mapping[str, LoraWeight],
    weights: Sequence[float],
    *,
    seed: int = 0,
    rank: int | None = None,
    data: Mapping[str, jax.Array] | None = None,
    progress: Progress = lambda *_: None,
) -> Groups:
    """Returns ``merge(library, weights, ...)``, group by group where that is the same.

    Args:
      merge: any.
      library: by group, a [E, L, D, R].
      weights: one for each of the E experts.
      seed: of the key, for merges that draw.
      rank: of the result; None keeps what the merge gives.
      data: by group, [E, L, ...], for merges that see data.
      progress: called before each group.

    Returns:
      By group, a [L, D, R], float32.

    Raises:
      ValueError: as the merge, before anything is computed.
    """
    shapes = jax.eval_shape(lambda x: x, dict(library))
    source = Source(library, shapes, data)
    merges = each(merge, source, weights, seed=seed, rank=rank, progress=progress)
    return {name: merged for name, _, merged in merges}


class Source(NamedTuple):
    """Where the groups of a library come from."""

    library: Mapping[str, LoraWeight]
    """By group, a [E, L, D, R]; a group may be read whenever it is asked for."""
    shapes: Mapping[str, LoraWeight]
    """By group: shapes and types of these arrays."""
    data: Mapping[str, jax.Array] | None = None
    """By group, [E, L, ...], for merges that see data."""


def each(
    merge: Merge,
    source: Source,
    weights: Sequence[float],
    *,
    seed: int = 0,
    rank: int | None = None,
    progress: Progress = lambda *_: None,
    run: Run = here,
) -> Iterator[tuple[str, LoraWeight, LoraWeight]]:
    """As :func:`merge_groups`: gives one group after the other, and keeps none.

    Args:
      merge: any; where it is :func:`joint`, all groups are in memory.
      source: the library.
      weights: one for each of the E experts.
      seed: of the key, for merges that draw.
      rank: of the result; None keeps what the merge gives.
      progress: called before each group.
      run: on which devices; by default on one.

    Returns:
      An iterator over (group, its experts a [E, L, D, R], their merge a [L, D, R]).

    Raises:
      ValueError: as the merge, before anything is read or computed; and on the way, if
        adapters differ in size beyond float32.
    """
    key = jax.random.key(seed)
    _check(merge, source, weights, key, rank)
    array = jnp.asarray(weights, jnp.float32)
    if joint(merge):
        progress(f"{len(source.shapes)} groups at once", 0, 1)
        return _at_once(run, merge, source, array, key, rank)
    return _in_turn(run, merge, source, array, rank, progress)


def joint(merge: Merge) -> bool:
    """Whether a merge must be given all groups at once.

    Args:
      merge: any.
    """
    # A key is folded by the position of a site among all, so none may be left out.
    return merge.draws or merge.scope == "model"


def _at_once(run: Run, merge: Merge, source: Source, weights, key, rank: int | None):
    library, _, data = source
    library = {name: library[name] for name in library}
    powers = magnitude.exponents(merge, library, weights)
    small = magnitude.divided(library, powers)
    adapter = run(merge, small, weights, key=key, rank=rank, data=data)
    merged = jax.block_until_ready(adapter)
    for name in list(library):
        result = magnitude.restored(merged.pop(name), powers)
        yield name, library.pop(name), result


def _in_turn(
    run: Run, merge: Merge, source: Source, weights, rank: int | None, progress
):
    library, shapes, data = source
    rank = merge.result_rank(rank, shapes, len(weights))
    for done, name in enumerate(shapes):
        progress(name, done, len(shapes))
        # A group of small ranks may have less than the rank of the others.
        most = None if rank is None else min(rank, len(weights) * shapes[name].rank)
        arrays = None if data is None else {_SITE: data[name]}
        group = library[name]
        powers = magnitude.exponents(merge, {name: group}, weights)
        small = {_SITE: magnitude.divided(group, powers)}
        where = merge.places and merge.places.only(name, _SITE)
        merged = jax.block_until_ready(
            run(merge.at(where), small, weights, rank=most, data=arrays)
        )
        yield name, group, magnitude.restored(merged[_SITE], powers)
        del group, small, merged  # before the next group is read


@functools.partial(jax.jit, static_argnums=(4, 5))
def _merged(library, weights, key, data, merge: Merge, rank: int | None) -> Groups:
    tree = None if data is None else unflatten(data)
    return lora.sites(merge(library, weights, key=key, rank=rank, data=tree))


def _check(merge: Merge, source: Source, weights, key, rank) -> None:
    """Traces a merge, which refuses what it cannot do.

    Of groups of equal shapes one stands for all.
    """
    _, shapes, data = source
    kinds = {
        name: jax.tree.map(lambda x: x.shape, (group, data and data[name]))
        for name, group in shapes.items()
    }
    chosen = {str(kind): name for name, kind in kinds.items()}.values()
    some = {name: shapes[name] for name in chosen}
    tree = None if data is None else unflatten({name: data[name] for name in chosen})
    # Weights stay values, which are checked only if they are known.
    run = functools.partial(merge, weights=weights, rank=rank)
    jax.eval_shape(lambda *x: run(x[0], key=x[1], data=x[2]), some, key, tree)


def check_weights(merge: Merge, weights: Sequence[float], adapters: int) -> None:
    """Refuses weights that a merge cannot use, before any adapter is read.

    Args:
      merge: any.
      weights: one for each adapter.
      adapters: how many there are.

    Raises:
      ValueError: if there are too few or too many, one is not finite, all are 0, or
        the merge takes no such weights.
    """
    if len(weights) != adapters:
        raise ValueError(
            f"Got {len(weights)} weights for {adapters} adapters, expected one for "
            f"each, in the same order."
        )
    if not all(map(math.isfinite, weights)):
        raise ValueError(
            f"Weights are {list(weights)}, expected finite numbers; the weight 0 "
            f"leaves an adapter out."
        )
    if not any(weights):
        raise ValueError(
            f"All {adapters} weights are 0, which leaves every adapter out; expected "
            f"at least one other number."
        )
    merge.reduction.check(np.asarray(weights))


def measure(
    adapter: Groups,
    library: Groups,
    weights: Sequence[float],
    progress: Progress = lambda *_: None,
) -> Fidelity:
    """As ``merge.fidelity``, a group at a time.

    Args:
      adapter: the merge, by group, a [L, D, R'].
      library: what was merged, by group, a [E, L, D, R].
      weights: one for each of the E experts.
      progress: called before each group.
    """
    parts = []
    for done, name in enumerate(library):
        progress(name, done, len(library))
        parts.append(fidelity({name: adapter[name]}, {name: library[name]}, weights))
    return together(jax.block_until_ready(parts))


def together(parts: Sequence[Fidelity]) -> Fidelity:
    """The fidelity of all groups, of what was measured group by group.

    Args:
      parts: each of other groups.
    """
    quantities: dict[str, dict[str, jax.Array]] = {}
    for part in parts:
        for quantity, sites in vars(part).items():
            quantities.setdefault(quantity, {}).update(sites)
    return Fidelity(**quantities)
