"""A route: how a model uses a library, expert by expert and token by token.

From an input x at a site: normalise x, score the experts by the gate, keep the best
``top_k``, weigh them, mix their updates. All of it is one frozen, hashable
:class:`Route`, a static field of the model; the gate's state is an argument.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxlora.lora import Library, LoraWeight
from jaxlora.route import chosen
from jaxlora.route.deltas import Per
from jaxlora.route.gate import Gate, State
from jaxlora.route.general import Form, subtract_general
from jaxlora.route.mixing import Mixing, mix
from jaxlora.route.spectral import Uniform
from jaxlora.route.weighing import Normalize, Weighed, Weighting, normalized, weigh
from jaxlora.tree import Tree

Granularity = Literal["token", "sequence"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route:
    """Which gate weighs the experts, and what is done with its scores."""

    gate: Gate
    """Scores the experts; its ``per`` says whether sites share weights."""
    top_k: int | None = None
    """Experts kept per token and place, 1 to E; None keeps all."""
    temperature: float = 1.0
    """Divides the scores; positive, unitless."""
    normalize: Normalize = "none"
    """Of the input before it is scored: ``unit`` divides by its norm, ``width`` by the
    root of its width D, ``layer`` is layer norm without weights, over the root of D."""
    granularity: Granularity = "token"
    """A token is routed by itself, or by the mean of its ``sequence`` so far."""
    weighting: Weighting = "softmax"
    """Over the kept experts; or each with weight 1; or each by itself, by a sigmoid."""
    mixing: Mixing = "outputs"
    """What is weighted: updates of experts (``outputs``), or their ``factors``."""
    prepare: Form | None = None
    """Take a general expert out of the library first, in delta or factor space."""

    def __post_init__(self):
        if not isinstance(self.gate, Gate):
            raise ValueError(
                f"gate is {self.gate!r}, expected a Gate, such as route.arrow; "
                f"route.preset(name) makes whole routes by name."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(
                f"top_k is {self.top_k}, expected 1 or more, or None for all experts."
            )
        if not 0 < self.temperature < float("inf"):
            raise ValueError(
                f"temperature is {self.temperature}, expected a positive number."
            )
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, expected one of "
                    f"{', '.join(map(repr, known))}."
                )

    @property
    def per(self) -> Per:
        """One decision per site, layer or model."""
        return self.gate.per

    @property
    def laws(self) -> frozenset[str]:
        """The laws of ``LAWS`` that the route keeps."""
        broken = set()
        if self.top_k is not None and isinstance(self.gate, Uniform):
            broken |= {"permutation"}  # of equal scores, the first experts are kept
        if self.mixing == "factors" or self.prepare == "factor":
            broken |= {"gauge"}
        if self.weighting == "sigmoid" or self.prepare is not None:
            broken |= {"identity"}
        return self.gate.laws - broken

    def fit(self, experts: int) -> "Route":
        """The same route for a library of few experts: at most all are kept.

        Args:
          experts: E.
        """
        # None and E keep the same experts; None also compiles no selection.
        few = self.top_k is not None and self.top_k >= experts
        return dataclasses.replace(self, top_k=None) if few else self

    def init(self, library: Library, **given: Any) -> Tree:
        """Returns the gate's state of a library.

        Args:
          library: [E, ...].
          **given: ``key``, ``data``, ``width`` and ``period`` of :meth:`Gate.init`.
        """
        return self.gate.init(library, **given)

    def library(self, library: Library, general: Library | None = None) -> Library:
        """The library as this route uses it, without a general expert if so prepared.

        Args:
          library: [E, ...].
          general: general experts [G, ...], whose mean is taken out; by default the
            library itself.
        """
        if self.prepare is None:
            return library
        return subtract_general(library, general, form=self.prepare)

    def weigh(
        self, state: State | None, x: jax.Array, labels: jax.Array | None = None
    ) -> Weighed:
        """Weighs the experts of one place for N inputs.

        Args:
          state: of one layer, arrays [E, ...]; the oracle needs none.
          x: inputs [N, D], or means of them.
          labels: [N, E], for the oracle.

        Raises:
          ValueError: if top_k is above the number of experts, the state is made for
            another width, or the oracle has no labels.
        """
        if self.gate.data == "labels":
            return _given(labels)
        if state is None:
            raise ValueError(f"The gate {self.gate!r} has no state; init() makes it.")
        experts = state.live.shape[0]
        if self.top_k is not None and self.top_k > experts:
            raise ValueError(
                f"top_k is {self.top_k}, but the library has {experts} experts."
            )
        wide = self.gate.width(state.keys)
        if wide not in (None, x.shape[-1]):
            raise ValueError(
                f"The gate's state is for inputs of width {wide}, got {x.shape[-1]}: "
                f"was it made for another base, or another site?"
            )
        scores = self.gate.score(state.keys, normalized(x, self.normalize))
        out = weigh(scores, state.live, self.top_k, self.temperature, self.weighting)
        return out._replace(weights=self.gate.finish(state.keys, out.weights))

    def weights(
        self, state: State | None, x: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """The weights [N, E] alone, of :meth:`weigh`.

        Args:
          state: of one layer, arrays [E, ...]; the oracle needs none.
          x: inputs [N, D], or means of them.
          labels: [N, E], for the oracle.
        """
        return self.weigh(state, x, labels).weights

    def mix(
        self,
        weight: LoraWeight,
        x: jax.Array,
        weights: jax.Array,
        *,
        dense: bool = False,
    ) -> jax.Array:
        """The update of weighted experts, as :func:`jaxlora.route.mix`.

        Of many experts of which few are kept, only those are multiplied.

        Args:
          weight: one site of the library; a [E, D, R], b [E, R, F], scale [E].
          x: inputs [N, D].
          weights: [N, E], as :meth:`weights` gives them.
          dense: multiply all experts in any case, as where they lie on many devices.

        Returns:
          [N, F] in the dtype of x.
        """
        k = self.top_k
        if k is None or self.gate.data == "labels" or self.mixing == "factors":
            return mix(weight, x, weights, self.mixing)
        # Below this many experts two dense products are faster than gathering.
        if dense or weights.shape[-1] < chosen.SPARSE * k:
            return mix(weight, x, weights)
        return chosen.mix_chosen(weight, x, weights, k)


def _given(labels: jax.Array | None) -> Weighed:
    if labels is None:
        raise ValueError("The oracle gate needs labels [L, B, T, E]; got none.")
    fine = jnp.isfinite(labels)
    weights = jnp.where(fine, labels.astype(jnp.float32), 0.0)
    return Weighed(weights, ~jnp.all(fine, axis=-1))


_CHOICES: dict[str, tuple[Any, ...]] = {
    "normalize": ("none", "unit", "width", "layer"),
    "granularity": ("token", "sequence"),
    "weighting": ("softmax", "unit", "sigmoid"),
    "mixing": ("outputs", "factors"),
    "prepare": (None, "delta", "factor"),
}
