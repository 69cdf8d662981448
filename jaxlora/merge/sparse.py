"""Steps that zero entries: by magnitude, at random, or by how experts differ.

Each is a frozen dataclass ``step(key, coordinates) -> coordinates``. Entries of padding
are no entries: they are neither counted nor kept. Which entries compete is the *scope*:
those of one expert's matrix at one site and layer (``leaf``, where in a factor space a
and b are two matrices), or all of one expert's entries (``model``).

Trimming: TIES (Yadav et al., arXiv 2306.01708). Dropping: DARE (Yu et al.,
arXiv 2311.03099). DELLA: Deep et al., arXiv 2406.11617. Breadcrumbs: Davari and
Belilovsky, arXiv 2312.06795. Selection by variance: SCE (arXiv 2408.07990).
"""

import dataclasses
from typing import ClassVar, Literal, TypeAlias

import jax
import jax.numpy as jnp

from jaxlora.merge.space import Coordinates, Leaves
from jaxlora.merge.threshold import Scope, as_bits, largest, share

Rescale: TypeAlias = Literal["density", "norm"] | None
"""Divide what is kept by its chance to be kept; or keep the sum of magnitudes."""


@dataclasses.dataclass(frozen=True)
class Trim:
    """Keeps each expert's largest entries, those after the very largest."""

    density: float
    scope: Scope = "leaf"
    outliers: float = 0.0

    def __call__(self, key: jax.Array | None, x: Coordinates) -> Coordinates:
        """Zeroes all entries but the share that is kept."""
        del key
        bits = {name: _bits(x, name) for name in x.values}
        size = {name: _size(x, name) for name in x.values}
        if self.scope == "model":
            each = [_per_expert(n, x.values[name]) for name, n in size.items()]
            size = dict.fromkeys(size, jnp.sum(jnp.stack(each), axis=0))
        # Of the few entries of a low rank a share may be none, and all would be lost.
        keep = {
            name: jnp.maximum(share(self.density, n), jnp.minimum(n, 1))
            for name, n in size.items()
        }
        skip = {
            name: jnp.minimum(share(self.outliers, n), n - keep[name])
            for name, n in size.items()
        }
        upper = {name: skip[name] + keep[name] for name in size}
        # The largest keep + skip, without the skip: no sorting is needed.
        mask = largest(bits, upper, self.scope)
        if self.outliers:
            top = largest(bits, skip, self.scope)
            mask = {name: mask[name] & ~top[name] for name in mask}
        return _masked(x, mask)


@dataclasses.dataclass(frozen=True)
class Drop:
    """Keeps each entry with a chance, drawn for each expert and leaf."""

    draws: ClassVar[bool] = True

    density: float
    rescale: Rescale = "density"
    spread: float = 0.0

    def __call__(self, key: jax.Array | None, x: Coordinates) -> Coordinates:
        """Zeroes entries, and rescales what is kept.

        Raises:
          ValueError: if there is no key.
        """
        chance = {name: self.chances(x, name) for name in x.values}
        mask = draw(key, chance, x)
        kept = _masked(x, mask)
        if self.rescale is None:
            return kept
        if self.rescale == "norm":
            values = {n: _same_norm(kept.values[n], x.values[n]) for n in x.values}
        else:
            values = {n: kept.values[n] / chance[n] for n in x.values}
        return dataclasses.replace(kept, values=values)

    def chances(self, x: Coordinates, name: str) -> jax.Array:
        """The chance of each entry to be kept, broadcast to the values."""
        values = x.values[name]
        if not self.spread:
            return jnp.full((1,) * values.ndim, self.density, jnp.float32)
        # Rank within a column: among the inputs of one output, 0 for the smallest.
        live = jnp.broadcast_to(x.live[name], values.shape)
        size = jnp.where(live, jnp.abs(values), -1.0)
        # argsort twice gives ranks; padding, at -1, ranks below all entries.
        order = jnp.argsort(jnp.argsort(size, axis=-2), axis=-2).astype(jnp.float32)
        count = jnp.sum(live, axis=-2, keepdims=True).astype(jnp.float32)
        rank = (order - (values.shape[-2] - count)) / jnp.maximum(count - 1.0, 1.0)
        low = self.density - self.spread
        return jnp.clip(low + 2.0 * self.spread * rank, low, self.density + self.spread)


@dataclasses.dataclass(frozen=True)
class SelectByVariance:
    """Keeps the entries in which the experts differ most, for all of them alike.

    A single expert differs from nobody and is kept as it is. mergekit gives zero there
    below density 1.
    """

    density: float

    def __call__(self, key: jax.Array | None, x: Coordinates) -> Coordinates:
        """Zeroes the entries of small variance over the experts that are present."""
        del key
        mask = {}
        for name, values in x.values.items():
            here = x.weights[name] != 0
            here = here.reshape(*here.shape, *[1] * (values.ndim - here.ndim))
            variance = _variance(values, here)[None]
            # The share is of entries that vary at all.
            differ = jnp.sum(variance > 0, axis=(-2, -1))
            bits = {name: as_bits(variance)}
            count = {name: share(self.density, differ)}
            alone = jnp.sum(here, axis=0, keepdims=True) <= 1
            varies = largest(bits, count, "leaf")[name] & (variance > 0)
            mask[name] = varies | alone
        return x if self.density >= 1 else _masked(x, mask)


def trim(density: float, scope: Scope = "leaf") -> Trim:
    """Keeps each expert's ``int(density N)`` entries of largest magnitude, 1 at least.

    Entries equal to the smallest that is kept are kept as well.

    Args:
      density: in (0, 1]; 1 keeps all.
      scope: ``leaf``, or ``model`` for one threshold over all sites.

    Raises:
      ValueError: if the density is not in (0, 1].

    >>> values = jnp.asarray([[[3.0, -1.0], [0.5, -2.0]]])
    >>> live = {"": jnp.ones((1, 1, 1), bool)}
    >>> x = Coordinates({"": values}, live, {"": jnp.ones(1)})
    >>> trim(0.5)(None, x).values[""].tolist()
    [[[3.0, 0.0], [0.0, -2.0]]]
    """
    _check("density", density, 0.0, 1.0)
    return Trim(density, scope)


def trim_outliers(
    density: float, outliers: float = 0.01, scope: Scope = "leaf"
) -> Trim:
    """Breadcrumbs: drops the largest ``outliers`` share, keeps ``density`` of the rest.

    Where both do not fit into 1, fewer of the largest are dropped.

    Args:
      density: share of entries that is kept, in (0, 1].
      outliers: share of the largest entries that is dropped, in [0, 1).
      scope: ``leaf``, or ``model`` for one threshold over all sites.

    Raises:
      ValueError: if the density is not in (0, 1], or outliers not in [0, 1).

    >>> trim_outliers(0.9).outliers
    0.01
    """
    _check("density", density, 0.0, 1.0)
    if not 0 <= outliers < 1:
        raise ValueError(f"outliers is {outliers}, expected a share in [0, 1).")
    return Trim(density, scope, outliers)


def drop(density: float, rescale: Rescale = "density") -> Drop:
    """DARE: keeps an entry with chance ``density``, and divides it by that chance.

    Args:
      density: in (0, 1]; DARE's drop rate p is 1 - density.
      rescale: ``density`` keeps the expectation; ``norm`` the sum of magnitudes of each
        matrix, as mergekit does; None leaves entries as they are.

    Raises:
      ValueError: if the density is not in (0, 1].

    >>> drop(0.5).rescale
    'density'
    """
    _check("density", density, 0.0, 1.0)
    return Drop(density, rescale)


def drop_by_rank(
    density: float, spread: float = 0.15, rescale: Rescale = "density"
) -> Drop:
    """DELLA: the chance grows with the magnitude's rank among one output's inputs.

    From ``density - spread`` for the smallest to ``density + spread`` for the largest.
    In the core and KnOTS spaces "outputs" are the joint coordinates.

    Args:
      density: the mean chance to be kept.
      spread: half the difference between the largest and the smallest chance.
      rescale: ``density`` keeps the expectation; ``norm`` the sum of magnitudes of each
        matrix, as mergekit does; None leaves entries as they are.

    Raises:
      ValueError: if a chance would leave (0, 1].

    >>> drop_by_rank(0.5).spread
    0.15
    """
    _check("density - spread", density - spread, 0.0, 1.0)
    _check("density + spread", density + spread, 0.0, 1.0)
    return Drop(density, rescale, spread)


def select_by_variance(density: float) -> SelectByVariance:
    """SCE: keeps the share of varying entries with the largest variance over experts.

    Args:
      density: the share, in (0, 1]; 1 keeps all entries.

    Raises:
      ValueError: if the density is not in (0, 1].

    >>> select_by_variance(0.1).density
    0.1
    """
    _check("density", density, 0.0, 1.0)
    return SelectByVariance(density)


def draw(key: jax.Array | None, chance: Leaves, x: Coordinates) -> Leaves:
    """Boolean masks: one draw for each expert, leaf and entry.

    Leaf i in the order of names gets ``fold_in(key, i)``, which is split into one key
    for each expert.

    Args:
      key: PRNG key.
      chance: of each entry to be True, by name; broadcasts to the values.
      x: coordinates with values [E, ..., M, N].

    Raises:
      ValueError: if there is no key.
    """
    if key is None:
        raise ValueError("The merge drops entries at random: it needs a PRNG key.")
    out = {}
    for i, name in enumerate(sorted(x.values)):
        values = x.values[name]
        keys = jax.random.split(jax.random.fold_in(key, i), values.shape[0])
        # Drawn expert by expert, so that two equal experts get different masks.
        uniform = jax.vmap(lambda k, v=values: jax.random.uniform(k, v.shape[1:]))
        out[name] = uniform(keys) < chance[name]
    return out


def _bits(x: Coordinates, name: str) -> jax.Array:
    """Magnitudes as ordered integers; below all others, -1, for what is no entry."""
    live = jnp.broadcast_to(x.live[name], x.values[name].shape)
    return jnp.where(live, as_bits(x.values[name]), -1)


def _size(x: Coordinates, name: str) -> jax.Array:
    """Number of entries of each matrix, [E, ...]."""
    values = x.values[name]
    live = jnp.broadcast_to(x.live[name], values.shape)
    return jnp.sum(live, axis=(-2, -1), dtype=jnp.int32)


def _per_expert(size: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.sum(size.reshape(values.shape[0], -1), axis=1)


def _variance(values: jax.Array, here: jax.Array) -> jax.Array:
    n = jnp.maximum(jnp.sum(here, axis=0), 1).astype(jnp.float32)
    mean = jnp.sum(values, axis=0) / n  # absent experts are zeros
    square = jnp.where(here, jnp.square(values - mean[None]), 0.0)
    return jnp.sum(square, axis=0) / n


def _same_norm(kept: jax.Array, before: jax.Array) -> jax.Array:
    """Rescales each matrix to the sum of magnitudes that it had."""
    # L1 norms, as mergekit compares them.
    have, had = (
        jnp.sum(jnp.abs(x), axis=(-2, -1), keepdims=True) for x in (kept, before)
    )
    return kept * jnp.where(have > 0, had / jnp.where(have > 0, have, 1.0), 1.0)


def _masked(x: Coordinates, mask: Leaves) -> Coordinates:
    values = {name: jnp.where(mask[name], v, 0.0) for name, v in x.values.items()}
    return dataclasses.replace(x, values=values)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low < value <= high:
        raise ValueError(
            f"{name} is {value:g}, expected a share in ({low:g}, {high:g}]."
        )
