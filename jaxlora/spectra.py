"""What adapters are, whatever their gauge: norms, spectra, and cosines of deltas.

All of it is computed from factors, one group at a time; nothing depends on how a delta
is split into a and b, or on its scale and padding.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from jaxlora.lora import LoraWeight

Arrays: TypeAlias = Sequence[Any] | np.ndarray
"""Matrices one after the other, of NumPy or JAX."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Modules of one kind, in E adapters and L layers."""

    shape: tuple[int, int]
    """Features in and out."""
    ranks: np.ndarray
    """[E, L]; 0 where an adapter lacks the module."""
    scales: np.ndarray
    """[E, L], as they multiply a @ b."""
    singular: np.ndarray
    """Singular values [E, L, K], in falling order."""
    gram: np.ndarray
    """Inner products of deltas [E, E], of all layers together."""

    @property
    def energy(self) -> np.ndarray:
        """Squared Frobenius norms [E, L]."""
        return (self.singular**2).sum(-1)

    @property
    def norms(self) -> np.ndarray:
        """Frobenius norms [E], of all layers together."""
        return np.sqrt(self.energy.sum(-1))

    @property
    def stable_rank(self) -> np.ndarray:
        """``|delta|_F^2 / |delta|_2^2`` [E, L]; nan where the delta is 0."""
        return _ratio(self.energy, self.singular[..., 0] ** 2)

    @property
    def effective_rank(self) -> np.ndarray:
        """The exponential of the entropy of shares of energy [E, L]; nan at 0.

        K equal singular values give K (Roy and Vetterli, 2007, there of the singular
        values themselves).
        """
        shares = _ratio(self.singular**2, self.energy[..., None])
        logs = np.log(np.where(shares > 0, shares, 1.0))
        effective = np.exp(-np.nansum(shares * logs, -1))
        return np.where(self.energy > 0, effective, np.nan)

    @property
    def spectrum(self) -> np.ndarray:
        """Singular values [E, K], the root mean square over layers that have any."""
        there = np.maximum((self.ranks > 0).sum(-1), 1)[:, None]
        return np.sqrt((self.singular**2).sum(1) / there)


def measure(
    library: Mapping[str, LoraWeight],
    ranks: Mapping[str, np.ndarray],
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> dict[str, Group]:
    """Measures every group of a library.

    Args:
      library: by group, a [E, L, D, R].
      ranks: by group, without padding, int [E, L].
      progress: called with (group, groups measured, groups in all).
    """
    groups = {}
    for done, name in enumerate(library):
        progress(name, done, len(library))
        weight = library[name]
        singular, gram = _measured(weight)
        groups[name] = Group(
            shape=(weight.a.shape[-2], weight.b.shape[-1]),
            ranks=ranks[name],
            scales=np.asarray(weight.scale, np.float64),
            singular=singular,
            gram=gram,
        )
        del weight  # before the next group is read
    return groups


def cosines(gram: np.ndarray) -> np.ndarray:
    """Cosines [E, E] of inner products; nan beside a delta of 0.

    >>> cosines(np.asarray([[4.0, 1.0], [1.0, 1.0]])).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    norms = np.sqrt(np.diagonal(gram))
    ratios = np.clip(_ratio(gram, norms[:, None] * norms[None]), -1.0, 1.0)
    np.fill_diagonal(ratios, np.where(norms > 0, 1.0, np.nan))
    return ratios


def total(groups: Mapping[str, Group]) -> np.ndarray:
    """Inner products [E, E] of whole adapters."""
    return np.sum([group.gram for group in groups.values()], axis=0)


def parameters(groups: Mapping[str, Group], expert: int) -> int:
    """Numbers that one adapter trains."""
    return sum(int(g.ranks[expert].sum()) * sum(g.shape) for g in groups.values())


def _ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(y > 0, x / y, np.nan)


def inner_products(a: Arrays, b: Arrays, scales: np.ndarray) -> np.ndarray:
    """Inner products [N, N] of deltas ``scale a b`` of any ranks, in float64.

    Args:
      a: N of them, [D, R].
      b: [R, F].
      scales: [N].

    >>> a, b = np.ones((3, 1)), np.ones((1, 2))
    >>> inner_products([a, a], [b, b], np.asarray([1.0, 2.0])).tolist()
    [[6.0, 12.0], [12.0, 24.0]]
    """
    left, right = _grams(a, b)
    # tr(delta_x^T delta_y) sums the R_x x R_y block of x and y, see spectrum.inner.
    starts = np.cumsum([0, *(x.shape[1] for x in a[:-1])])
    blocks = np.add.reduceat(np.add.reduceat(left * right, starts, 0), starts, 1)
    return blocks * scales[:, None] * scales


def _grams(a: Arrays, b: Arrays):
    """``a^T a`` and ``b b^T`` of all deltas side by side, in float64."""
    left = np.concatenate(a, 1).astype(np.float64)
    right = np.concatenate(b, 0).astype(np.float64)
    return left.T @ left, right @ right.T


def _measured(weight: LoraWeight) -> tuple[np.ndarray, np.ndarray]:
    """Singular values [E, L, K] and inner products [E, E], a layer at a time.

    On the host, in float64: a program for each shape would take longer to compile than
    to run.
    """
    a, b, scale = (np.asarray(x) for x in (weight.a, weight.b, weight.scale))
    e, layers = scale.shape
    singular, products = [], np.zeros((e, e))
    for layer in range(layers):
        left, right = _grams(list(a[:, layer]), list(b[:, layer]))
        left, right = (x.reshape(e, -1, e, x.shape[0] // e) for x in (left, right))
        size = scale[:, layer].astype(np.float64)
        products += size[:, None] * size * np.einsum("erfs,erfs->ef", left, right)
        every = range(e)
        core = _root(left[every, :, every]) @ _root(right[every, :, every]).mT
        values = np.linalg.svd(core, compute_uv=False)
        singular.append(abs(size)[:, None] * values)
    # An R x R core has as many values, and no more than min(D, F) are not rounding.
    kept = min(a.shape[-2], b.shape[-1])
    return np.stack(singular, 1)[..., :kept], products


def _root(gram: np.ndarray) -> np.ndarray:
    """``r`` with ``r^T r = gram`` [..., R, R]: in float64 the squares lose no digit."""
    try:  # several times faster, of full rank only
        return np.linalg.cholesky(gram, upper=True)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(gram)
        return np.sqrt(np.maximum(values, 0))[..., :, None] * vectors.mT
