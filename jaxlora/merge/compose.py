"""A merge is data: transforms over the expert axis, a space, and a reduction.

``merge(library, weights=None, *, key=None, rank=None)`` makes one adapter of a library.
Merges are frozen and hashable; they jit, and vmap over libraries, weights and keys.

*Spaces* say what is combined:

- ``delta``: the updates themselves, exactly, held as concatenated factors.
- ``factor``: a and b apart. Depends on the gauge, so it is no function of the deltas.

*Laws* say what a merge promises; the test battery holds each merge to its own.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import jax

from jaxlora import lora, spectrum
from jaxlora.lora import Adapter, Library
from jaxlora.merge import linear
from jaxlora.merge.linear import Reduction, Weights

Transform: TypeAlias = Callable[[jax.Array | None, Library], Library]
"""``transform(key, library) -> library`` of the same sites and number of experts."""

LAWS: Mapping[str, str] = {
    "identity": "one expert, with no weights given, gives back its delta",
    "permutation": "reordering experts and weights together changes nothing",
    "gauge": "(a G, G^-1 b) for (a, b) of any expert changes nothing",
    "linearity": "merging the sums of two libraries' deltas is summing their merges",
    "zero_weight": "an expert of weight 0 is absent, even if it is not finite",
    "padding": "zero columns of a and zero rows of b change nothing",
}
"""What a merge can promise about the delta it returns."""

_SPACES: dict[str, Callable[[lora.LoraWeight, jax.Array], lora.LoraWeight]] = {
    "delta": linear.in_delta,
    "factor": linear.in_factor,
}


@dataclasses.dataclass(frozen=True)
class Merge:
    """Makes one adapter of a library; made by :func:`chain` or ``preset``."""

    transforms: tuple[Transform, ...]
    reduction: Reduction
    space: str
    laws: frozenset[str]
    """The names in ``LAWS`` that hold for this merge."""

    def __call__(
        self,
        library: Library,
        weights: Weights | None = None,
        *,
        key: jax.Array | None = None,
        rank: int | None = None,
    ) -> Adapter:
        """Returns one adapter, float32, scale 1.

        Args:
          library: :class:`LoraWeight` leaves [E, ...], ranks padded to one.
          weights: [E], of any sign; None is a weight of 1 for every expert.
          key: for transforms that draw.
          rank: replace each merged delta by its best approximation of this rank. None
            keeps what the space gives: E * R for ``delta``, R for ``factor``.

        Raises:
          ValueError: if ``library`` is no library, if the weights do not fit it (their
            values are checked outside jit), or the rank is below 1.
        """
        experts = _num_experts(library)
        coefficients = self.reduction.coefficients(weights, experts)
        for i, transform in enumerate(self.transforms):
            library = transform(_fold(key, i), library)
        combine = _SPACES[self.space]
        merged = lora.lora_map(lambda w: combine(w, coefficients), library)
        return merged if rank is None else spectrum.canonical(merged, rank)


def chain(*steps: Transform | Reduction, space: str, laws: Iterable[str] = ()) -> Merge:
    """Composes transforms, in order, and a final reduction into a :class:`Merge`.

    Args:
      *steps: functions ``(key, library) -> library``, then one reduction. Transform i
        is given its own fold of the key.
      space: ``delta`` or ``factor``, see the module.
      laws: what the merge promises; by default nothing.

    Raises:
      ValueError: if the last step, and it alone, is not a reduction, or a space or law
        is unknown.

    >>> import jax.numpy as jnp
    >>> half = chain(linear.weighted_mean(), space="delta")
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
    transforms = tuple(step for step in steps if not isinstance(step, Reduction))
    if space not in _SPACES:
        raise ValueError(unknown("space", space, _SPACES))
    declared = frozenset(laws)
    for law in sorted(declared - set(LAWS)):
        raise ValueError(unknown("law", law, LAWS))
    return Merge(transforms, reduction, space, declared)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that does not exist: the nearest, and what does.

    >>> unknown("merge", "maen", ["mean", "sum"])
    "Unknown merge 'maen'; did you mean 'mean'? There are 'mean', 'sum'."
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"Unknown {kind} {name!r}{hint} There are {', '.join(map(repr, known))}."


def _fold(key: jax.Array | None, i: int) -> jax.Array | None:
    return None if key is None else jax.random.fold_in(key, i)


def _num_experts(library: Library) -> int:
    if isinstance(library, list | tuple):
        raise ValueError(
            f"Got a {type(library).__name__} of {len(library)} adapters, expected a "
            f"library; lora.stack() makes one of them."
        )
    return lora.num_experts(library)
