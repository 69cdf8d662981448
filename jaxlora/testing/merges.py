"""One battery for any merge: the laws it declares, and what every merge must do.

A law is tested on small libraries that are made here, and its *violation* is a number:
the distance of two merged deltas that should be one, relative to their norm, at the
worst site. All libraries that a law compares are stacked and merged by one compiled
program, ``jit(vmap(merge))``; what they are compared with is computed step by step,
under ``jax.disable_jit``.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Adapter, Library, LoraWeight
from jaxlora.merge import LAWS, Merge, fisher, regmean, scaled_sum

RTOL = 1e-4
"""Default tolerance: some hundred roundings of float32, as decompositions make them."""

SIZES = {"k_proj": (6, 8), "q_proj": (7, 6)}
RANK = 2
WEIGHTS = ((0.5, -0.25, 1.5), (0.5, 0.25, 1.5), (0.5, 1.5, 0.0))
"""Of mixed sign; positive; of two experts: the first that the merge takes is used."""

MakeLibrary = Callable[[int], Library]
MakeData = Callable[[Library], Any]


def check_merge(
    merge: Merge,
    *,
    laws: Iterable[str] | None = None,
    key: jax.Array | None = None,
    data: MakeData | None = None,
    make_library: MakeLibrary | None = None,
    rtol: float = RTOL,
) -> None:
    """Asserts that a merge keeps its laws, and does what every merge must.

    Every merge must: return finite factors in float32 at scale 1, for the sites of the
    library; give the same under jit and without, under vmap over libraries and weights
    and in a loop; compute in float32 from a library in bfloat16; compile once; leave
    the library as it is; and be a value, hashable and equal to its copy.

    Args:
      merge: any :class:`~jaxlora.merge.Merge`.
      laws: those to test; by default the ones that the merge declares.
      key: for methods that draw; all libraries of a law get the same.
      data: for methods that see data, ``data(library) -> {site: array [E, ...]}``.
        ``regmean``, ``fisher`` and ``scaled_sum`` need none given here.
      make_library: ``make_library(seed) -> library`` of three experts, all of one shape
        and in float32; by default :func:`small_library`.
      rtol: the largest violation that is a rounding error.

    Raises:
      AssertionError: naming the law and the size of the violation.
      ValueError: if a law is unknown, or data are needed and not given.

    >>> from jaxlora import merge
    >>> check_merge(merge.preset("mean"))
    >>> half = merge.chain(merge.weighted_mean(), space="factor", laws={"gauge"})
    >>> check_merge(half)
    Traceback (most recent call last):
    AssertionError: ... breaks the law gauge ...
    """
    Battery(merge, key=key, data=data, make_library=make_library).check(laws, rtol)


def violations(
    merge: Merge,
    *,
    laws: Iterable[str] | None = None,
    key: jax.Array | None = None,
    data: MakeData | None = None,
    make_library: MakeLibrary | None = None,
) -> dict[str, float]:
    """How far a merge is from each law, declared or not: the size by name.

    0 is a law that is kept to the last bit, 1 a difference as large as the result, inf
    a result that is not finite. A law that a merge does not declare should have a size
    here that rounding does not explain; else it could be declared.

    Args:
      merge: any merge.
      laws: by default all of them.
      key: see :func:`check_merge`, as the others.
      data: see there.
      make_library: see there.

    >>> from jaxlora import merge
    >>> found = violations(merge.preset("factor-mean"), laws=["gauge", "padding"])
    >>> (found["gauge"] > 0.1, found["padding"] < 1e-5)
    (True, True)
    """
    battery = Battery(merge, key=key, data=data, make_library=make_library)
    return battery.violations(laws)


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
        shared, own = rng.standard_normal(shape), rng.standard_normal((3, *shape))
        return (0.7 * shared[None] + own).astype(np.float32)

    def one(d: int, f: int) -> LoraWeight:
        a, b = draw(layers, d, rank), draw(layers, rank, f)
        a[2, ..., -1], b[2, ..., -1, :] = 0, 0
        scale = rng.uniform(0.5, 2.0, (3, layers)).astype(np.float32)
        return LoraWeight(jnp.asarray(a), jnp.asarray(b), jnp.asarray(scale))

    names = sorted(SIZES)[:sites]
    return {name: {"kernel": one(*SIZES[name])} for name in names}


class Battery:
    """What :func:`check_merge` and :func:`violations` share: one compiled program."""

    def __init__(
        self,
        merge: Merge,
        *,
        key: jax.Array | None = None,
        data: MakeData | None = None,
        make_library: MakeLibrary | None = None,
    ):
        self.merge = merge
        self.key = jax.random.key(0) if key is None else key
        make = small_library if make_library is None else make_library
        self.unpadded: Library = make(0)
        self.experts = lora.num_experts(self.unpadded)
        if self.experts != 3:
            raise ValueError(f"The library has {self.experts} experts, expected 3.")
        rank = max(w.rank for w in lora.sites(self.unpadded).values())
        self.library = lora.pad(self.unpadded, 2 * rank)
        self.other = lora.pad(make(1), 2 * rank)
        self.data = _data(merge, data, self.unpadded)
        self.weights = self._accepted()
        self.traces = 0

    def check(self, laws: Iterable[str] | None = None, rtol: float = RTOL) -> None:
        """See :func:`check_merge`."""
        self._check_value()
        self._shape_of(self._plain)
        self._check_runs(rtol)
        declared = self.merge.laws if laws is None else laws
        for law, size in self.violations(declared).items():
            if not size <= rtol:
                raise AssertionError(
                    f"{self.merge!r} breaks the law {law} ({LAWS[law]}): a relative "
                    f"difference of {size:.3g}, at most {rtol:.3g} expected."
                )

    def violations(self, laws: Iterable[str] | None = None) -> dict[str, float]:
        """See :func:`violations`."""
        chosen = sorted(LAWS if laws is None else laws)
        for law in chosen:
            if law not in LAWS:
                known = ", ".join(sorted(LAWS))
                raise ValueError(f"Unknown law {law!r}; there are {known}.")
        return {law: getattr(self, f"_{law}")() for law in chosen}

    # One method for each law.

    def _identity(self) -> float:
        want = deltas(jax.tree.map(lambda x: x[1], self.library))
        return distance(deltas(self._eagerly(self._only(1), None, experts=[1])), want)

    def _permutation(self) -> float:
        return distance(self.merged["permuted"], self.merged["plain"])

    def _gauge(self) -> float:
        return distance(self.merged["regauged"], self.merged["plain"])

    def _linearity(self) -> float:
        x, y = self.merged["plain"], self.merged["other"]
        return distance(self.merged["sum"], {name: x[name] + y[name] for name in x})

    def _zero_weight(self) -> float:
        alone = self._eagerly(self._only(1), np.asarray([0.75]), experts=[1])
        return distance(self.merged["poisoned"], deltas(alone))

    def _padding(self) -> float:
        plain = self._eagerly(self.unpadded, self.weights)
        return distance(self.merged["plain"], deltas(plain))

    # What every merge must do.

    def _check_value(self) -> None:
        other = copy.deepcopy(self.merge)
        if hash(other) != hash(self.merge) or other != self.merge:
            raise AssertionError(
                f"{self.merge!r} is not equal to its copy: every jitted program would "
                f"compile it again. Steps are functions or frozen dataclasses."
            )

    def _shape_of(self, adapter: Adapter) -> None:
        got, library = lora.sites(adapter), lora.sites(self.library)
        if set(got) != set(library):
            raise AssertionError(f"The result has sites {set(got)} of {set(library)}.")
        for name, w in got.items():
            _, *lead, d, _ = library[name].a.shape
            f = library[name].b.shape[-1]
            shapes = [(*lead, d, w.rank), (*lead, w.rank, f), tuple(lead)]
            chex.assert_shape([w.a, w.b, w.scale], shapes)
            chex.assert_type([w.a, w.b, w.scale], jnp.float32)
            chex.assert_trees_all_equal(w.scale, jnp.ones_like(w.scale))
        chex.assert_tree_all_finite(adapter)

    def _check_runs(self, rtol: float) -> None:
        self._same("jit = eager", "plain", self._plain, rtol)
        # Other weights and rounded values at once; apart only to say what failed.
        half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), self.library)
        moved = self.weights[::-1]
        rounded = self._eagerly(half, moved)
        self._shape_of(rounded)
        if not self._distance("rounded", rounded) <= rtol:
            loop = self._eagerly(self.library, moved)
            self._same("vmap over weights = loop", "moved", loop, rtol)
            self._same("bfloat16 computed in float32", "rounded", rounded, rtol)
        if self.traces != 1:
            raise AssertionError(
                f"{self.merge!r} was compiled {self.traces} times for equal shapes."
            )

    def _same(self, what: str, variant: str, want: Adapter, rtol: float) -> None:
        size = self._distance(variant, want)
        if not size <= rtol:
            raise AssertionError(
                f"{self.merge!r} breaks {what}: a relative difference of {size:.3g}, "
                f"at most {rtol:.3g} expected."
            )

    def _distance(self, variant: str, want: Adapter) -> float:
        return distance(self.merged[variant], deltas(want))

    @functools.cached_property
    def _plain(self) -> Adapter:
        library = jax.tree.map(lambda x: x, self.library)  # its own containers
        merged = self._eagerly(library, self.weights)
        chex.assert_trees_all_equal_structs(library, self.library)
        same = jax.tree.map(lambda x, y: x is y, library, self.library)
        if not all(jax.tree.leaves(same)):
            raise AssertionError(f"{self.merge!r} changes the library.")
        return merged

    # Libraries, and how they are merged.

    @functools.cached_property
    def merged(self) -> dict[str, dict[str, np.ndarray]]:
        """Deltas by site for each of the libraries that laws compare."""
        variants = self._variants()
        names = list(variants)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *variants.values())

        @functools.partial(jax.jit, static_argnums=0)
        def run(merge: Merge, libraries, weights, data, key):
            self.traces += 1  # runs while tracing, and never again

            def one(library, weights, data):
                return _call(merge, library, weights, data, key)

            return jax.vmap(one)(libraries, weights, data)

        found = run(self.merge, *stacked, self.key)
        # An equal merge and other numbers: the program that there is must do.
        run(dataclasses.replace(self.merge), *stacked, jax.random.key(1))
        return {
            name: deltas(jax.tree.map(lambda x, i=i: x[i], found))
            for i, name in enumerate(names)
        }

    def _variants(self) -> dict[str, tuple[Library, jax.Array, Any]]:
        """Libraries, weights and data, all of one shape."""
        library, weights, data = self.library, self.weights, self.data
        order = np.asarray([2, 0, 1])
        absent = np.asarray([True, False, True])
        poison = jax.tree.map(lambda x: x.at[absent].set(jnp.nan), (library, data))
        near = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), library)
        gauge = lora.pad(regauge(self.unpadded), self._rank())
        moved = jax.tree.map(lambda x: x[order], (library, data))
        found = {
            "plain": (library, weights, data),
            "moved": (library, weights[::-1], data),
            "permuted": (moved[0], weights[order], moved[1]),
            "regauged": (gauge, weights, data),
            "other": (self.other, weights, data),
            "sum": (_sum(library, self.other, self._rank()), weights, data),
            "poisoned": (poison[0], np.asarray([0.0, 0.75, 0.0]), poison[1]),
            "rounded": (near, weights[::-1], data),
        }
        return {
            name: (library, jnp.asarray(weights, jnp.float32), data)
            for name, (library, weights, data) in found.items()
        }

    def _eagerly(self, library: Library, weights, experts=None) -> Adapter:
        data = self.data
        if experts is not None:
            data = jax.tree.map(lambda x: x[np.asarray(experts)], data)
        with jax.disable_jit():
            return _call(self.merge, library, weights, data, self.key)

    def _only(self, expert: int) -> Library:
        return jax.tree.map(lambda x: x[expert : expert + 1], self.library)

    def _rank(self) -> int:
        return max(w.rank for w in lora.sites(self.library).values())

    def _accepted(self) -> np.ndarray:
        refused = None
        for weights in WEIGHTS:
            try:
                self.merge.reduction.check(np.asarray(weights))
                return np.asarray(weights, np.float32)
            except ValueError as error:
                refused = error
        raise ValueError(f"The merge takes none of the weights {WEIGHTS}: {refused}")


def regauge(library: Library, seed: int = 0) -> Library:
    """The same deltas in other factors: ``(a G, G^-1 b)``, G drawn for each expert.

    >>> library = small_library()
    >>> round(distance(deltas(regauge(library)), deltas(library)), 5)
    0.0
    """
    rng = np.random.default_rng(seed)

    def one(w: LoraWeight) -> LoraWeight:
        g = rng.standard_normal((*w.a.shape[:-2], w.rank, w.rank)) + 2 * np.eye(w.rank)
        a = np.asarray(w.a, np.float64) @ g
        b = np.linalg.solve(g, np.asarray(w.b, np.float64))
        a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
        return LoraWeight(a, b, w.scale)

    return lora.lora_map(one, library)


def deltas(adapter: Adapter) -> dict[str, np.ndarray]:
    """Dense deltas by site, in NumPy's float64."""

    def one(w: LoraWeight) -> np.ndarray:
        a, b, scale = (np.asarray(x, np.float64) for x in (w.a, w.b, w.scale))
        return scale[..., None, None] * (a @ b)

    return {name: one(w) for name, w in lora.sites(adapter).items()}


def distance(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> float:
    """``|got - want| / |want|`` at the worst site; inf where it is not finite.

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


def _call(merge: Merge, library: Library, weights, data, key) -> Adapter:
    return merge(library, weights, key=key, data=data or None)


def _sum(x: Library, y: Library, rank: int) -> Library:
    """The library of the sums of deltas, in balanced factors of their own."""

    def one(x: LoraWeight, y: LoraWeight) -> LoraWeight:
        total = sum(deltas({"": w})[""] for w in (x, y))
        u, s, vt = np.linalg.svd(total, full_matrices=False)
        root = np.sqrt(s[..., :rank])
        a = u[..., :rank] * root[..., None, :]
        b = root[..., :, None] * vt[..., :rank, :]
        a, b = (jnp.asarray(x, jnp.float32) for x in (a, b))
        return lora.pad(LoraWeight(a, b, jnp.ones_like(x.scale)), rank)

    return lora.lora_map(one, x, y)


def _data(merge: Merge, data: MakeData | None, library: Library) -> dict[str, Any]:
    """Data by site, the given or those of a method that is known; {} for none."""
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
