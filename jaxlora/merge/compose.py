"""A merge is data: transforms over the expert axis, a space, and a reduction.

``merge(library, weights=None, *, key=None, rank=None, data=None)`` makes one adapter of
a library. Merges are frozen and hashable; they jit, and vmap over libraries, weights
and keys. *Spaces* say in which coordinates experts are compared, see
:mod:`jaxlora.merge.space`. *Laws* say what a merge promises; the battery
``jaxlora.testing.check_merge`` holds each merge to its own.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora, spectrum
from jaxlora import tree as named
from jaxlora.lora import Adapter, Library, LoraWeight
from jaxlora.merge import apply, places
from jaxlora.merge.linear import Data, Reduction, Weights
from jaxlora.merge.loop import ALONE, Loop, over_parts
from jaxlora.merge.places import Places
from jaxlora.merge.space import SPACES, Coordinates
from jaxlora.names import unknown
from jaxlora.tree import Tree

Transform: TypeAlias = Callable[[jax.Array | None, Library], Library]
"""``transform(key, library) -> library`` of the same sites and number of experts. One
that uses the key says so by an attribute ``draws`` that is True."""

Step: TypeAlias = Callable[[jax.Array | None, Coordinates], Coordinates]
"""``step(key, coordinates) -> coordinates``; sees the whole library at once only if it
has an attribute ``scope`` that is ``"model"``, else one site and layer at a time. One
that uses the key says so by an attribute ``draws`` that is True."""

LAWS: Mapping[str, str] = {
    "identity": "one expert, with no weights given, gives back its delta",
    "permutation": "reordering experts and weights together changes nothing",
    "gauge": "(a G, G^-1 b) for (a, b) of any expert changes nothing",
    "linearity": "merging the sums of two libraries' deltas is summing their merges",
    "zero_weight": "an expert of weight 0 is absent, even if it is not finite",
    "padding": "zero columns of a and zero rows of b change nothing",
}
"""What a merge can promise about the delta it returns."""


@dataclasses.dataclass(frozen=True)
class Merge:
    """Makes one adapter of a library; made by :func:`chain` or ``preset``."""

    steps: tuple[Step, ...]
    reduction: Reduction
    space: str
    laws: frozenset[str]
    """The names in ``LAWS`` that hold for this merge."""
    prepare: tuple[Transform, ...] = ()
    """Applied to the library before it enters the space."""
    rank: Literal["experts"] | None = None
    """Rank of the result where none is asked for: the experts', or all there is."""
    places: Places | None = None
    """Of sites that are of some layers only, for a merge that tells layers apart."""

    @property
    def data(self) -> Data:
        """What the merge must see: ``free``, ``own`` or ``target``."""
        return self.reduction.data

    @property
    def scope(self) -> Literal["leaf", "model"]:
        """Whether a step looks at all sites at once: ``model``, else ``leaf``."""
        scopes = {getattr(step, "scope", "leaf") for step in self.steps}
        return "model" if "model" in scopes else "leaf"

    @property
    def draws(self) -> bool:
        """Whether the result depends on the key: some part declares that it draws."""
        parts = *self.prepare, *self.steps, self.reduction
        return any(getattr(part, "draws", False) for part in parts)

    @property
    def needs_key(self) -> bool:
        """Whether some part that draws refuses to run without a key."""
        parts = *self.prepare, *self.steps, self.reduction
        drawing = [part for part in parts if getattr(part, "draws", False)]
        return any(getattr(part, "needs_key", True) for part in drawing)

    @property
    def by_layer(self) -> bool:
        """Whether layers are told apart by their numbers: some part says so."""
        parts = *self.prepare, *self.steps, self.reduction
        return any(getattr(part, "by_layer", False) for part in parts)

    @property
    def homogeneous(self) -> bool:
        """Whether twice the deltas give twice the merge: no part denies it."""
        if self.space.startswith("factor") and self.scope == "model":
            return False  # entries of a and of b compete: their ratio counts
        parts = *self.prepare, *self.steps, self.reduction
        return all(getattr(part, "homogeneous", True) for part in parts)

    def at(self, where: Places | None) -> "Merge":
        """Returns the merge for sites that are of some layers of a model only.

        Args:
          where: of every site that is merged; or None for sites of all layers.
        """
        return dataclasses.replace(self, places=where) if self.by_layer else self

    def __call__(
        self,
        library: Library,
        weights: Weights | None = None,
        *,
        key: jax.Array | None = None,
        rank: int | None = None,
        data: Tree | None = None,
        loop: Loop = ALONE,
    ) -> Adapter:
        """Returns one adapter, float32, scale 1.

        Args:
          library: :class:`LoraWeight` leaves [E, ...], ranks padded to one.
          weights: [E], of any sign; None is a weight of 1 for every expert.
          key: for methods that draw.
          rank: replace each merged delta by its best approximation of this rank. None
            keeps what the space gives, or the experts' rank for a merge that says so.
          data: for methods that see data: arrays [E, ...] for each site, in a tree like
            the library or by site name.
          loop: over layers; by default on one device.

        Raises:
          ValueError: if ``library`` is no library, if weights or data do not fit it
            (values of weights are checked outside jit), or the rank is below 1 or above
            the sum of the experts'.
        """
        experts = _num_experts(library)
        if self.by_layer and self.places is None:
            places.alike(library)
        given = self._weights(weights, experts)
        for i, transform in enumerate(self.prepare):
            ready = places.placed(transform, self.places)
            library = ready(apply.fold(key, i), library)
        key = apply.fold(key, len(self.prepare))
        sites = lora.sites(library)
        arrays = self._data(data, sites)
        rank = self.result_rank(rank, sites, experts)
        # A linear reduction of deltas is exact in factors: no dense delta is formed.
        if not self.steps and self.space == "delta":
            exact = self._factors(sites, given, arrays, rank, loop)
            if len(exact) == len(sites):
                return named.unflatten(exact)
        chain = apply.Chain(SPACES[self.space], self.steps, self.reduction, rank, loop)
        run = apply.jointly if self.scope == "model" else apply.separately
        return named.unflatten(run(chain, sites, given, key, arrays))

    def _factors(self, sites, weights, data, rank, loop) -> dict[str, LoraWeight]:
        """The sites whose merge is known in factors; all of them, or none."""
        reduction = self.reduction

        def exact(weights: jax.Array, args: tuple[LoraWeight, Any]) -> Any:
            site, data = args
            return reduction.factors(site, weights, data)

        def ranked(merged: LoraWeight) -> LoraWeight:
            return spectrum.canonical({"": merged}, rank)[""] if rank else merged

        out = {}
        for name, site in sites.items():
            args = site, data.get(name)
            if self.by_layer and self.places is not None:
                self.places.of(name, site)
                reduction = places.placed(self.reduction, self.places.only(name))
            if jax.eval_shape(exact, weights, args) is None:
                continue
            if site.scale.ndim == 1:
                out[name] = ranked(exact(weights, args))
            elif self.by_layer:  # a part of the layers does not know their numbers
                single = jax.tree.map(lambda x: x[None], exact(weights, args))
                moved = over_parts(loop, lambda _, x: ranked(_only(x)), None, single)
                out[name] = moved if rank else _only(single)
            else:
                out[name] = over_parts(
                    loop, lambda *x: ranked(exact(*x)), weights, args
                )
        return out

    def _weights(self, weights: Weights | None, experts: int) -> jax.Array:
        if weights is None:
            weights = np.ones(experts)
        leaves = jax.tree.leaves(weights)
        # Under jit weights have no values yet, and only their shape can be refused.
        known = not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        array = jnp.asarray(weights, jnp.float32)
        if array.shape != (experts,):
            raise ValueError(
                f"Weights have shape {array.shape}, expected ({experts},): one weight "
                f"for each of the {experts} experts of the library."
            )
        if known:
            values = np.asarray(weights, np.float64)
            if not np.isfinite(values).all():
                raise ValueError(
                    f"Weights are {values.tolist()}, expected finite numbers; give an "
                    f"expert the weight 0 to leave it out."
                )
            self.reduction.check(values)
        return array

    def result_rank(
        self, rank: int | None, sites: Mapping[str, LoraWeight], experts: int
    ) -> int | None:
        """The rank of the result, checked; None keeps what the space gives.

        Args:
          rank: what is asked for, or None.
          sites: a library by site name.
          experts: E.
        """
        largest = max(site.rank for site in sites.values())
        if rank is None:
            return largest if self.rank == "experts" else None
        if not 1 <= rank <= experts * largest:
            raise ValueError(
                f"The rank of a merged adapter is {rank}, expected at least 1 and at "
                f"most {experts * largest}, the sum of {experts} experts' ranks of "
                f"{largest}; leave rank out to keep every singular value."
            )
        return rank

    def _data(
        self, data: Tree | None, sites: dict[str, LoraWeight]
    ) -> dict[str, jax.Array]:
        if self.data == "free":
            if data is not None:
                raise ValueError(f"{self.reduction!r} sees no data, but got some.")
            return {}
        arrays: dict[str, Any] = {} if data is None else named.flatten(data)
        if set(arrays) != set(sites):
            odd = sorted(set(arrays) ^ set(sites))
            raise ValueError(
                f"{self.reduction!r} needs data, one array [E, ...] for each site, but "
                f"got {'none' if data is None else 'other sites'}; without data, or "
                f"in excess: {', '.join(odd[:4])}."
            )
        return arrays


def chain(
    *steps: Step | Reduction,
    space: str,
    prepare: Iterable[Transform] = (),
    laws: Iterable[str] = (),
    rank: Literal["experts"] | None = None,
) -> Merge:
    """Composes steps, in order, and a final reduction into a :class:`Merge`.

    Args:
      *steps: functions ``(key, coordinates) -> coordinates``, then one reduction. Step
        i is given its own fold of the key.
      space: the coordinates: ``core``, ``delta``, ``knots``, ``factor``, ...
      prepare: functions ``(key, library) -> library``, such as ``random_like``.
      laws: what the merge promises; by default nothing.
      rank: ``experts`` gives the result their rank unless another one is asked for.

    Raises:
      ValueError: if the last step, and it alone, is not a reduction, or a space or law
        is unknown.

    >>> from jaxlora.merge.linear import weighted_mean
    >>> half = chain(weighted_mean(), space="delta")
    >>> w = lora.LoraWeight(jnp.ones((2, 4, 1)), jnp.ones((2, 1, 3)), jnp.ones(2))
    >>> half({"kernel": w}, [1.0, 3.0])["kernel"].b[:, 0].tolist()
    [0.25, 0.75]
    """
    if not steps or not isinstance(reduction := steps[-1], Reduction):
        last = repr(steps[-1]) if steps else "nothing"
        raise ValueError(
            f"The chain ends in {last}, expected a reduction such as weighted_mean(), "
            f"which makes one expert of E."
        )
    early = [step for step in steps[:-1] if isinstance(step, Reduction)]
    if early:
        raise ValueError(
            f"The chain has the reduction {early[0]!r} before its end; only its last "
            f"step reduces, as nothing is left to merge after it."
        )
    before = tuple(step for step in steps if not isinstance(step, Reduction))
    if space not in SPACES:
        raise ValueError(unknown("space", space, SPACES))
    declared = frozenset(laws)
    for law in sorted(declared - set(LAWS)):
        raise ValueError(unknown("law", law, LAWS))
    return Merge(before, reduction, space, declared, tuple(prepare), rank)


def _only(library: Any) -> Any:
    return jax.tree.map(lambda x: x[0], library)


def _num_experts(library: Any) -> int:
    if isinstance(library, list | tuple):
        raise ValueError(
            f"Got a {type(library).__name__} of {len(library)} adapters, expected a "
            f"library; lora.stack() makes one of them."
        )
    return lora.num_experts(library)
