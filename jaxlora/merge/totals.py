"""A merge beside its adapters, in a few numbers of inner products of factors."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

from jaxlora import spectra
from jaxlora.lora import LoraWeight

Groups: TypeAlias = dict[str, LoraWeight]
"""``{name: LoraWeight}``, a [E, L, D, R] in a library, [L, D, R] in an adapter."""


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

    They are a small part of what :func:`~jaxlora.merge.fidelity.fidelity` says, in a
    small part of its time.

    Args:
      adapter: the merge, by group, a [L, D, R'].
      library: what was merged, by group, a [E, L, D, R].
      weights: one for each of the E experts.
    """
    grams = [products(adapter[name], library[name], weights) for name in library]
    return sum_up(grams, weights)


def products(
    merged: LoraWeight, group: LoraWeight, weights: Sequence[float]
) -> np.ndarray:
    """Inner products of a merged delta and of experts, by layer, in float64.

    Args:
      merged: the merge of one group, a [L, D, R'].
      group: its experts, a [E, L, D, R].
      weights: one for each of the E experts; 0 is a delta of zero.

    Returns:
      [L, 1 + E, 1 + E], the merge first.
    """
    present = np.asarray(weights) != 0
    merged, group = jax.tree.map(np.asarray, (merged, group))
    return np.stack(
        [
            _gram(
                jax.tree.map(lambda x, i=layer: x[i], merged),
                jax.tree.map(lambda x, i=layer: x[:, i], group),
                present,
            )
            for layer in range(group.scale.shape[1])
        ]
    )


def sum_up(grams: Iterable[np.ndarray], weights: Sequence[float]) -> Totals:
    """What the inner products of a merge and its adapters say.

    Args:
      grams: :func:`products` of each group.
      weights: one for each of the E experts.
    """
    gram = np.concatenate(list(grams)).sum(0)
    present = np.asarray(weights, np.float64)
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
    return spectra.inner_products(
        [np.asarray(merged.a), *np.where(keep, experts.a, 0)],
        [np.asarray(merged.b), *np.where(keep, experts.b, 0)],
        np.concatenate([[merged.scale], np.where(present, experts.scale, 0)]),
    )
