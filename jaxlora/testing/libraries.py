"""Small libraries for the batteries, and what is compared with what."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Adapter, Library, LoraWeight
from jaxlora.merge import Merge, fisher, regmean, scaled_sum

MakeData = Callable[[Library], Any]

SIZES = {"k_proj": (6, 8), "q_proj": (7, 6)}
RANK = 2


def small_library(
    seed: int = 0, *, sites: int = 2, layers: int = 2, rank: int = RANK
) -> Library:
    """Three experts at two sites and two layers, of unequal scales and mixed ranks.

    Experts are partly alike, so that methods which look at angles have something to
    see. The last expert is of one rank less, padded.

    Args:
      seed: of the numbers.
      sites: 1 or 2.
      layers: L.
      rank: R of the first two experts, 2 or more.

    >>> {name: w.a.shape for name, w in lora.sites(small_library()).items()}
    {'k_proj/kernel': (3, 2, 6, 2), 'q_proj/kernel': (3, 2, 7, 2)}
    """
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        shared, apart = rng.standard_normal(shape), rng.standard_normal((3, *shape))
        return (0.7 * shared[None] + apart).astype(np.float32)

    def site(d: int, f: int) -> LoraWeight:
        a, b = draw(layers, d, rank), draw(layers, rank, f)
        # The last expert has one rank less, as stacked adapters of mixed ranks do.
        a[2, ..., -1], b[2, ..., -1, :] = 0, 0
        scale = rng.uniform(0.5, 2.0, (3, layers)).astype(np.float32)
        return LoraWeight(jnp.asarray(a), jnp.asarray(b), jnp.asarray(scale))

    names = sorted(SIZES)[:sites]
    return {name: {"kernel": site(*SIZES[name])} for name in names}


def regauge(library: Library, seed: int = 0) -> Library:
    """The same deltas in other factors: ``(a G, G^-1 b)``, G drawn for each expert.

    Args:
      library: leaves [E, ...].
      seed: of the gauges.

    >>> library = small_library()
    >>> round(distance(deltas(regauge(library)), deltas(library)), 5)
    0.0
    """
    rng = np.random.default_rng(seed)

    def turn(w: LoraWeight) -> LoraWeight:
        # Shifted from zero: G must be well away from singular.
        g = rng.standard_normal((*w.a.shape[:-2], w.rank, w.rank)) + 2 * np.eye(w.rank)
        a = np.asarray(w.a, np.float64) @ g
        b = np.linalg.solve(g, np.asarray(w.b, np.float64))
        a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
        return LoraWeight(a, b, w.scale)

    return lora.lora_map(turn, library)


def deltas(adapter: Adapter) -> dict[str, np.ndarray]:
    """Dense deltas by site, in NumPy's float64.

    Args:
      adapter: an adapter or a library.
    """

    def dense(w: LoraWeight) -> np.ndarray:
        a, b, scale = (np.asarray(x, np.float64) for x in (w.a, w.b, w.scale))
        return scale[..., None, None] * (a @ b)

    return {name: dense(w) for name, w in lora.sites(adapter).items()}


def distance(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> float:
    """``|got - want| / |want|`` at the worst site; inf where it is not finite.

    Args:
      got: arrays by site.
      want: arrays of the same sites and shapes.

    >>> distance({"q": np.ones(4)}, {"q": 2 * np.ones(4)})
    0.5
    """
    sizes = [
        np.linalg.norm(got[name] - want[name])
        / max(np.linalg.norm(want[name]), np.finfo(np.float32).tiny)
        for name in want
    ]
    worst = float(np.max(sizes))
    return worst if np.isfinite(worst) else float("inf")


def summed(x: Library, y: Library, rank: int) -> Library:
    """The library of the sums of deltas, in balanced factors of their own.

    Args:
      x: a library.
      y: a library of the same sites and shapes.
      rank: R of the result; the ranks of both together keep the sums exact.

    >>> x = small_library(0)
    >>> total = deltas(summed(x, x, 4))
    >>> round(distance(total, {n: 2 * d for n, d in deltas(x).items()}), 5)
    0.0
    """

    def add(x: LoraWeight, y: LoraWeight) -> LoraWeight:
        total = sum(deltas({"": w})[""] for w in (x, y))
        u, s, vt = np.linalg.svd(total, full_matrices=False)
        root = np.sqrt(s[..., :rank])
        a = u[..., :rank] * root[..., None, :]
        b = root[..., :, None] * vt[..., :rank, :]
        a, b = (jnp.asarray(x, jnp.float32) for x in (a, b))
        return lora.pad(LoraWeight(a, b, jnp.ones_like(x.scale)), rank)

    return lora.lora_map(add, x, y)


def data_for(merge: Merge, data: MakeData | None, library: Library) -> dict[str, Any]:
    """Data by site, the given or those of a method that is known; {} for none.

    Args:
      merge: whose data.
      data: a function ``library -> {site: array [E, ...]}``, or None.
      library: the data are for, leaves [E, ...].
    """
    if merge.data == "free":
        return {}
    sites = lora.sites(library)
    if data is not None:
        return {n: jnp.asarray(x) for n, x in named.flatten(data(library)).items()}
    rng = np.random.default_rng(0)
    for method, draw in _DRAWS.items():
        if isinstance(merge.reduction, method):
            return {
                name: jnp.asarray(draw(rng, sites[name]), jnp.float32)
                for name in sorted(sites)
            }
    raise ValueError(
        f"{merge.reduction!r} sees {merge.data} data, and what they look like is not "
        f"known here: pass data, a function library -> {{site: array [E, ...]}}."
    )


def _grams(rng: np.random.Generator, w: LoraWeight) -> np.ndarray:
    x = rng.standard_normal((*w.scale.shape, 4 * w.a.shape[-2], w.a.shape[-2]))
    return x.mT @ x / x.shape[-2]


def _importance(rng: np.random.Generator, w: LoraWeight) -> np.ndarray:
    return rng.exponential(size=(*w.a.shape[:-1], w.b.shape[-1]))


def _scalars(rng: np.random.Generator, w: LoraWeight) -> np.ndarray:
    return rng.uniform(0.2, 1.0, w.scale.shape)


_DRAWS = {
    type(regmean()): _grams,
    type(fisher()): _importance,
    type(scaled_sum()): _scalars,
}
