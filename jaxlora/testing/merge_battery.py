"""The battery of merges: libraries that laws compare, merged by one program.

A law's *violation* is a number: the distance of two merged deltas that should be equal,
relative to their norm, at the worst site. All libraries are stacked and merged by
``jit(vmap(merge))``; what they are compared with is computed step by step, under
``jax.disable_jit``.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora.lora import Adapter, Library
from jaxlora.merge import LAWS, Merge
from jaxlora.testing import laws as common
from jaxlora.testing.libraries import (
    MakeData,
    data_for,
    deltas,
    distance,
    regauge,
    small_library,
    summed,
)

RTOL = 1e-4
"""Default tolerance: some hundred roundings of float32, as decompositions make them."""


WEIGHTS = ((0.5, -0.25, 1.5), (0.5, 0.25, 1.5), (0.5, 1.5, 0.0))
"""Of mixed sign; positive; of two experts: the first that the merge takes is used."""


MakeLibrary = Callable[[int], Library]


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
        make = make_library or functools.partial(small_library, **_sizes(merge))
        self.unpadded: Library = make(0)
        self.experts = lora.num_experts(self.unpadded)
        if self.experts != 3:
            raise ValueError(f"The library has {self.experts} experts, expected 3.")
        rank = max(w.rank for w in lora.sites(self.unpadded).values())
        # Padded, so that padding is in every law, and sums of two libraries fit.
        self.library = lora.pad(self.unpadded, 2 * rank)
        self.other = lora.pad(make(1), 2 * rank)
        self.data = data_for(merge, data, self.unpadded)
        self.weights = self._accepted()
        self.traces = 0

    def check(self, laws: Iterable[str] | None = None, rtol: float = RTOL) -> None:
        """Asserts what :func:`check_merge` does.

        Args:
          laws: those to test; by default the ones that the merge declares.
          rtol: the largest violation that is a rounding error.
        """
        made_of = "Steps are functions or frozen dataclasses."
        common.assert_value(self.merge, made_of)
        self._shape_of(self._plain)
        self._check_runs(rtol)
        sizes = self.violations(self.merge.laws if laws is None else laws)
        common.assert_kept(self.merge, sizes, LAWS, rtol)

    def violations(self, laws: Iterable[str] | None = None) -> dict[str, float]:
        """Returns the size of each law's violation, by name.

        Args:
          laws: by default all of them.
        """
        return common.sizes(laws, LAWS, lambda law: getattr(self, f"_{law}")())

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
        common.assert_compiled_once(self.merge, self.traces)

    def _check_draws(self, adapters: Adapter, other: Adapter) -> None:
        """A merge that does not say that it draws gives the same for any key."""
        same = jax.tree.map(lambda x, y: jnp.array_equal(x, y, True), adapters, other)
        if not self.merge.draws and not jax.tree.all(same):
            raise AssertionError(
                f"{self.merge!r} gives another result for another key and does not "
                f"say so: the step that draws needs an attribute `draws` that is True."
            )

    def _same(self, what: str, variant: str, want: Adapter, rtol: float) -> None:
        size = self._distance(variant, want)
        common.assert_small(f"{self.merge!r} breaks {what}", size, rtol)

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

            def merged(library, weights, data):
                return _call(merge, library, weights, data, key)

            return jax.vmap(merged)(libraries, weights, data)

        adapters = run(self.merge, *stacked, self.key)
        # An equal merge and other numbers: the program that there is must do.
        other = run(dataclasses.replace(self.merge), *stacked, jax.random.key(1))
        self._check_draws(adapters, other)
        return {
            name: deltas(jax.tree.map(lambda x, i=i: x[i], adapters))
            for i, name in enumerate(names)
        }

    def _variants(self) -> dict[str, tuple[Library, jax.Array, Any]]:
        """Libraries, weights and data, all of one shape."""
        library, weights, data = self.library, self.weights, self.data
        order = np.asarray([2, 0, 1])
        absent = np.asarray([True, False, True])
        # NaN in absent experts: multiplied by weight 0 it would still show.
        poison = jax.tree.map(lambda x: x.at[absent].set(jnp.nan), (library, data))
        near = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), library)
        gauge = lora.pad(regauge(self.unpadded), self._rank())
        moved = jax.tree.map(lambda x: x[order], (library, data))
        variants = {
            "plain": (library, weights, data),
            "moved": (library, weights[::-1], data),
            "permuted": (moved[0], weights[order], moved[1]),
            "regauged": (gauge, weights, data),
            "other": (self.other, weights, data),
            "sum": (summed(library, self.other, self._rank()), weights, data),
            "poisoned": (poison[0], np.asarray([0.0, 0.75, 0.0]), poison[1]),
            "rounded": (near, weights[::-1], data),
        }
        return {
            name: (library, jnp.asarray(weights, jnp.float32), data)
            for name, (library, weights, data) in variants.items()
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
        # Mixed signs show most; a mean direction, say, takes none below 0.
        for weights in WEIGHTS:
            try:
                self.merge.reduction.check(np.asarray(weights))
                return np.asarray(weights, np.float32)
            except ValueError as error:
                refused = error
        raise ValueError(f"The merge takes none of the weights {WEIGHTS}: {refused}")


def _sizes(merge: Merge) -> dict[str, int]:
    """One site is enough where sites do not see each other.

    Experts that are told apart by layers need one each.
    """
    sites = 2 if merge.scope == "model" or merge.prepare else 1
    return {"sites": sites, "layers": 3 if merge.by_layer else 2}


def _call(merge: Merge, library: Library, weights, data, key) -> Adapter:
    return merge(library, weights, key=key, data=data or None)
