"""Adapters from folders, merged group by group wherever that changes nothing.

The adapter is the one that the merge makes of the whole library: a method that draws,
or that looks at all sites at once, is given the whole; any other sees one group after
the other, so that memory is that of one, and groups of equal shapes share a program.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora.commands.bars import Move
from jaxlora.io import tensors
from jaxlora.io.collection import Collection
from jaxlora.lora import LoraWeight
from jaxlora.merge import Fidelity, Merge, fidelity
from jaxlora.tree import unflatten

Groups = dict[str, LoraWeight]

_SITE = "site"


def merged(
    merge: Merge,
    library: Groups,
    weights: Sequence[float],
    *,
    seed: int = 0,
    rank: int | None = None,
    data: Mapping[str, jax.Array] | None = None,
    tell: Move = lambda *_: None,
) -> Groups:
    """Returns ``merge(library, weights, ...)`` by group, [L, D, R].

    Args:
      merge: any.
      library: by group, a [E, L, D, R].
      weights: one for each expert.
      seed: of the key that a merge gets that draws.
      rank: of the result.
      data: by group, [E, L, ...].
      tell: called with (group, groups merged, groups in all).

    Raises:
      ValueError: as the merge, before anything is computed.
    """
    key = jax.random.key(seed)
    if traced(merge, library, weights, key, rank, data) or merge.scope == "model":
        tell(f"{len(library)} groups at once", 0, 1)
        run = jax.jit(merge, static_argnames="rank")
        given = None if data is None else unflatten(data)
        array = jnp.asarray(weights, jnp.float32)
        made = lora.sites(run(library, array, key=key, rank=rank, data=given))
        return jax.block_until_ready(made)
    if rank is None and merge.rank == "experts":
        rank = max(weight.rank for weight in library.values())
    out = {}
    for done, (name, group) in enumerate(library.items()):
        tell(name, done, len(library))
        most = None if rank is None else min(rank, len(weights) * group.rank)
        arrays = None if data is None else data[name]
        one = _one(group, jnp.asarray(weights, jnp.float32), arrays, merge, most)
        out[name] = jax.block_until_ready(one)
    return out


@functools.partial(jax.jit, static_argnums=(3, 4))
def _one(group, weights, data, merge: Merge, rank: int | None) -> LoraWeight:
    given = None if data is None else {_SITE: data}
    return merge({_SITE: group}, weights, rank=rank, data=given)[_SITE]


def traced(
    merge: Merge,
    library: Groups,
    weights: Sequence[float],
    key: jax.Array,
    rank: int | None = None,
    data: Mapping[str, jax.Array] | None = None,
) -> bool:
    """Traces a merge, which refuses what it cannot do; returns whether it draws.

    Of groups of equal shapes one stands for all.
    """

    def run(library, key, data):
        return merge(library, weights, key=key, rank=rank, data=data)

    shapes = {
        name: jax.tree.map(jnp.shape, (group, data and data[name]))
        for name, group in library.items()
    }
    chosen = {str(shape): name for name, shape in shapes.items()}.values()
    some = {name: library[name] for name in chosen}
    given = None if data is None else unflatten({name: data[name] for name in chosen})
    return "random_bits" in str(jax.make_jaxpr(run)(some, key, given))


class Totals(NamedTuple):
    """A merge beside its adapters, all groups and layers as one vector."""

    merged: float
    """``|merged|``."""
    exact: float
    """``|S|``, the exact weighted sum."""
    error: float
    """``|merged - S| / |S|``."""
    cosine: float
    """Between merged and S."""
    norms: np.ndarray
    """``|delta_e|``, [E]; 0 where an adapter is left out."""
    coefficients: np.ndarray
    """``<merged, delta_e> / |delta_e|^2``, [E]."""


def totals(adapter: Groups, library: Groups, weights: Sequence[float]) -> Totals:
    """Compares by inner products of factors alone, in float64.

    They are a small part of what :func:`measured` says, in a small part of its time.
    """
    present = np.asarray(weights, np.float64)
    gram = np.zeros((len(present) + 1,) * 2)
    for name in library:
        group, made = jax.tree.map(np.asarray, (library[name], adapter[name]))
        for layer in range(group.scale.shape[1]):
            experts = jax.tree.map(lambda x, i=layer: x[:, i], group)
            one = jax.tree.map(lambda x, i=layer: x[i], made)
            gram += _gram(one, experts, present != 0)
    products, inner = gram[0, 1:], gram[1:, 1:]
    merged, exact = np.sqrt(gram[0, 0]), np.sqrt(max(0.0, present @ inner @ present))
    w = np.concatenate([[1.0], -present])
    with np.errstate(divide="ignore", invalid="ignore"):
        return Totals(
            merged=float(merged),
            exact=float(exact),
            error=float(np.sqrt(max(0.0, w @ gram @ w)) / exact),
            cosine=float(np.clip(products @ present / (merged * exact), -1, 1)),
            norms=np.sqrt(np.diagonal(inner)),
            coefficients=products / np.diagonal(inner),
        )


def _gram(one: LoraWeight, experts: LoraWeight, present: np.ndarray) -> np.ndarray:
    """Inner products [1 + E, 1 + E] of a merged delta and of experts, at one layer."""
    keep = present[:, None, None]
    a = [one.a, *np.where(keep, experts.a, 0)]
    b = [one.b, *np.where(keep, experts.b, 0)]
    left = np.concatenate(a, 1).astype(np.float64)
    right = np.concatenate(b, 0).astype(np.float64)
    product = (left.T @ left) * (right @ right.T)
    starts = np.cumsum([0, *(x.shape[1] for x in a[:-1])])
    found = np.add.reduceat(np.add.reduceat(product, starts, 0), starts, 1)
    scales = np.concatenate([[one.scale], np.where(present, experts.scale, 0)])
    return found * scales[:, None] * scales


def measured(
    adapter: Groups,
    library: Groups,
    weights: Sequence[float],
    tell: Move = lambda *_: None,
) -> Fidelity:
    """As ``merge.fidelity``, and tells which group it is at."""
    found: dict[str, dict[str, jax.Array]] = {}
    for done, name in enumerate(library):
        tell(name, done, len(library))
        one = fidelity({name: adapter[name]}, {name: library[name]}, weights)
        for quantity, sites in vars(jax.block_until_ready(one)).items():
            found.setdefault(quantity, {}).update(sites)
    return Fidelity(**found)


def read_data(path: Path, found: Collection) -> dict[str, jax.Array]:
    """Reads what a method must see: arrays [E, L, ...] by group, in float32.

    A file names either groups, with arrays [E, L, ...], or modules, with [E, ...].

    Raises:
      ValueError: if it is no safetensors file, or lacks or exceeds what the adapters
        have, naming the file and the tensor.
    """
    file = tensors.open_file(path)
    left, data = set(file.entries), {}
    for group, modules in found.modules.items():
        names = (group,) if group in file.entries else modules
        missing = [name for name in names if name not in file.entries]
        if missing:
            raise ValueError(
                f"{path} has no data for {missing[0]!r}, expected an array for each "
                f"group (such as {group!r}, [adapters, layers, ...]) or for each of "
                f"its modules ([adapters, ...])."
            )
        arrays = [_array(file, name, path, len(found.names)) for name in names]
        data[group] = _joined(path, group, arrays, len(modules), names == (group,))
        left -= set(names)
    if left:
        raise ValueError(
            f"{path} has data for {min(left)!r}, which none of the adapters adapts."
        )
    return data


def _array(file: tensors.Tensors, name: str, path: Path, experts: int) -> np.ndarray:
    try:
        array = np.asarray(file.read(name, finite=True), np.float32)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if str(path) in text else f"{path}: {text}") from None
    if array.shape[:1] != (experts,):
        raise ValueError(
            f"{path}: {name!r} has shape {array.shape}, expected {experts} first, one "
            f"for each adapter, in the same order."
        )
    return array


def _joined(path, group, arrays, layers: int, whole: bool) -> jax.Array:
    if whole:
        if arrays[0].shape[1:2] != (layers,):
            raise ValueError(
                f"{path}: {group!r} has shape {arrays[0].shape}, expected {layers} in "
                f"second place, one for each of its modules."
            )
        return jnp.asarray(arrays[0])
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(
            f"{path}: modules of {group!r} have the shapes {sorted(shapes)}, expected "
            f"one."
        )
    return jnp.asarray(np.stack(arrays, 1))
