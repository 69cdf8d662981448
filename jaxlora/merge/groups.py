"""Merging group by group, wherever that changes nothing; and measuring what came out.

A *group* is a site [E, L, ...] of a library by name, as :mod:`jaxlora.io.collection`
reads it. The adapter is the one that the merge makes of all groups together: a merge
that draws, or that looks at all sites at once, is given all of them; any other sees one
group after the other, so that memory is that of one, and groups of equal shapes share a
program.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora.lora import LoraWeight
from jaxlora.merge.compose import Merge
from jaxlora.merge.fidelity import Fidelity, fidelity
from jaxlora.tree import unflatten

Groups: TypeAlias = dict[str, LoraWeight]
"""``{name: LoraWeight}``, a [E, L, D, R] in a library, [L, D, R] in an adapter."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""``progress(group, groups done, groups in all)``."""

_SITE = "site"


def merge_groups(
    merge: Merge,
    library: Groups,
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
    key = jax.random.key(seed)
    _check(merge, library, weights, key, rank, data)
    array = jnp.asarray(weights, jnp.float32)
    if merge.draws or merge.scope == "model":
        # A key is folded by the position of a site among all, so none may be left out.
        progress(f"{len(library)} groups at once", 0, 1)
        run = jax.jit(merge, static_argnames="rank")
        tree = None if data is None else unflatten(data)
        adapter = run(library, array, key=key, rank=rank, data=tree)
        return jax.block_until_ready(lora.sites(adapter))
    rank = merge.result_rank(rank, library, len(weights))
    out = {}
    for done, (name, group) in enumerate(library.items()):
        progress(name, done, len(library))
        # A group of small ranks may have less than the rank of the others.
        most = None if rank is None else min(rank, len(weights) * group.rank)
        arrays = None if data is None else data[name]
        out[name] = jax.block_until_ready(_merged(group, array, arrays, merge, most))
    return out


@functools.partial(jax.jit, static_argnums=(3, 4))
def _merged(group, weights, data, merge: Merge, rank: int | None) -> LoraWeight:
    tree = None if data is None else {_SITE: data}
    return merge({_SITE: group}, weights, rank=rank, data=tree)[_SITE]


def _check(merge, library: Groups, weights, key, rank, data) -> None:
    """Traces a merge, which refuses what it cannot do.

    Of groups of equal shapes one stands for all.
    """
    shapes = {
        name: jax.tree.map(jnp.shape, (group, data and data[name]))
        for name, group in library.items()
    }
    chosen = {str(shape): name for name, shape in shapes.items()}.values()
    some = {name: library[name] for name in chosen}
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
    overlap: float
    """Largest absolute cosine of two adapters; nan of fewer than two that are not 0."""


def totals(adapter: Groups, library: Groups, weights: Sequence[float]) -> Totals:
    """Compares a merge with its adapters by inner products of factors, in float64.

    They are a small part of what :func:`measure` says, in a small part of its time.

    Args:
      adapter: the merge, by group, a [L, D, R'].
      library: what was merged, by group, a [E, L, D, R].
      weights: one for each of the E experts.
    """
    present = np.asarray(weights, np.float64)
    gram = np.zeros((len(present) + 1,) * 2)
    for name in library:
        group, merged = jax.tree.map(np.asarray, (library[name], adapter[name]))
        for layer in range(group.scale.shape[1]):
            experts = jax.tree.map(lambda x, i=layer: x[:, i], group)
            result = jax.tree.map(lambda x, i=layer: x[i], merged)
            gram += _gram(result, experts, present != 0)
    products, inner = gram[0, 1:], gram[1:, 1:]
    norm, exact = np.sqrt(gram[0, 0]), np.sqrt(max(0.0, present @ inner @ present))
    w = np.concatenate([[1.0], -present])
    with np.errstate(divide="ignore", invalid="ignore"):
        return Totals(
            merged=float(norm),
            exact=float(exact),
            error=float(np.sqrt(max(0.0, w @ gram @ w)) / exact),
            cosine=float(np.clip(products @ present / (norm * exact), -1, 1)),
            norms=np.sqrt(np.diagonal(inner)),
            coefficients=products / np.diagonal(inner),
            overlap=_overlap(inner),
        )


def _overlap(inner: np.ndarray) -> float:
    """The largest absolute cosine, of inner products [E, E].

    >>> _overlap(np.array([[4.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    0.5
    """
    norms = np.sqrt(np.diagonal(inner))
    present = norms > 0
    cosines = abs(
        inner / np.where(present, norms, 1) / np.where(present, norms, 1)[:, None]
    )
    pairs = cosines[np.ix_(present, present)][np.triu_indices(present.sum(), 1)]
    return float(pairs.max()) if pairs.size else math.nan


def _gram(merged: LoraWeight, experts: LoraWeight, present: np.ndarray) -> np.ndarray:
    """Inner products [1 + E, 1 + E] of a merged delta and of experts, at one layer."""
    keep = present[:, None, None]
    a = [merged.a, *np.where(keep, experts.a, 0)]
    b = [merged.b, *np.where(keep, experts.b, 0)]
    left = np.concatenate(a, 1).astype(np.float64)
    right = np.concatenate(b, 0).astype(np.float64)
    product = (left.T @ left) * (right @ right.T)
    # tr(delta_x^T delta_y) sums the R_x x R_y block of x and y, see spectrum.inner.
    starts = np.cumsum([0, *(x.shape[1] for x in a[:-1])])
    blocks = np.add.reduceat(np.add.reduceat(product, starts, 0), starts, 1)
    scales = np.concatenate([[merged.scale], np.where(present, experts.scale, 0)])
    return blocks * scales[:, None] * scales


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
    quantities: dict[str, dict[str, jax.Array]] = {}
    for done, name in enumerate(library):
        progress(name, done, len(library))
        group = fidelity({name: adapter[name]}, {name: library[name]}, weights)
        for quantity, sites in vars(jax.block_until_ready(group)).items():
            quantities.setdefault(quantity, {}).update(sites)
    return Fidelity(**quantities)
