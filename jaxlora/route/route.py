"""A route: how a model uses a library, expert by expert and token by token.

From an input x at a site: normalise x, score the experts by the gate, keep the best
``top_k``, weigh them, mix their updates. All of it is one frozen, hashable
:class:`Route`, a static field of the model; the gate's state is an argument.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxlora.lora import Library, LoraWeight
from jaxlora.route import chosen
from jaxlora.route.gate import Gate, Per, State
from jaxlora.route.general import Form, subtract_general
from jaxlora.route.learned import standard
from jaxlora.route.mixing import Mixing, mix
from jaxlora.route.spectral import Uniform
from jaxlora.tree import Tree

Normalize = Literal["none", "unit", "width", "layer"]
Granularity = Literal["token", "sequence"]
Weighting = Literal["softmax", "unit", "sigmoid"]


class Weighed(NamedTuple):
    """What a gate says of N inputs."""

    weights: jax.Array
    """[N, E] float32, finite; zero for experts that are not live or not kept."""
    nonfinite: jax.Array
    """[N], true where a live expert's score was no number: it was passed over."""


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
    """What is weighted: updates, or factors (see :func:`jaxlora.route.mix`)."""
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
        few = self.top_k is not None and self.top_k >= experts
        return dataclasses.replace(self, top_k=None) if few else self

    def init(self, library: Library, **given: Any) -> Tree:
        """Returns the gate's state of a library.

        Args:
          library: [E, ...].
          **given: ``key``, ``data`` and ``width`` of :meth:`Gate.init`.
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

    def mix(self, weight: LoraWeight, x: jax.Array, weights: jax.Array) -> jax.Array:
        """The update of weighted experts, as :func:`jaxlora.route.mix`.

        Of many experts of which few are kept, only those are multiplied.

        Args:
          weight: one site of the library; a [E, D, R], b [E, R, F], scale [E].
          x: inputs [N, D].
          weights: [N, E], as :meth:`weights` gives them.

        Returns:
          [N, F] in the dtype of x.
        """
        k = self.top_k
        if k is None or self.gate.data == "labels" or self.mixing == "factors":
            return mix(weight, x, weights, self.mixing)
        if weights.shape[-1] < chosen.SPARSE * k:
            return mix(weight, x, weights)
        return chosen.mix_chosen(weight, x, weights, k)


def _given(labels: jax.Array | None) -> Weighed:
    if labels is None:
        raise ValueError("The oracle gate needs labels [L, B, T, E]; got none.")
    fine = jnp.isfinite(labels)
    weights = jnp.where(fine, labels.astype(jnp.float32), 0.0)
    return Weighed(weights, ~jnp.all(fine, axis=-1))


def normalized(x: jax.Array, how: Normalize) -> jax.Array:
    """An input as a gate sees it, [N, D] float32.

    Args:
      x: [N, D].
      how: ``unit`` divides by the norm, ``width`` by the root of D, ``layer`` is layer
        norm without weights over the root of D, ``none`` nothing.

    >>> normalized(jnp.array([[0.0, 4.0]]), "unit").tolist()
    [[0.0, 1.0]]
    """
    x = x.astype(jnp.float32)
    root = float(x.shape[-1]) ** -0.5
    if how == "width":
        return x * root
    if how == "layer":
        return standard(x) * root
    if how == "unit":
        square = jnp.sum(x * x, axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
    return x


def weigh(
    scores: jax.Array,
    live: jax.Array,
    top_k: int | None = None,
    temperature: float = 1.0,
    weighting: Weighting = "softmax",
) -> Weighed:
    """From scores to weights: the best ``top_k`` of the live experts.

    A score that is no number is passed over; where none is left, all live experts
    count as equal. Of equal scores, the first is kept.

    Args:
      scores: [N, E]; higher is better.
      live: [E] bool, experts that may be chosen.
      top_k: how many are kept, 1 to E; None keeps all.
      temperature: divides the scores; positive.
      weighting: softmax of the kept; ``unit``, each with weight 1; or ``sigmoid`` of
        each score by itself.

    >>> weigh(jnp.array([[0.0, 1.0, 1.0]]), jnp.ones(3, bool), 2).weights.tolist()
    [[0.0, 0.5, 0.5]]
    """
    live = jnp.broadcast_to(live[None], scores.shape)
    sound = live & jnp.isfinite(scores)
    lost = ~jnp.any(sound, axis=-1, keepdims=True)
    able = jnp.where(lost, live, sound)
    scores = jnp.where(sound, scores.astype(jnp.float32), 0.0) / temperature
    kept = able & _best(jnp.where(able, scores, -jnp.inf), top_k)
    strayed = jnp.any(live & ~sound, axis=-1)
    if weighting == "unit":
        return Weighed(kept.astype(jnp.float32), strayed)
    if weighting == "sigmoid":
        return Weighed(jnp.where(kept, jax.nn.sigmoid(scores), 0.0), strayed)
    # The peak is taken off by hand: it must carry no gradient, and be finite.
    peak = jnp.max(jnp.where(kept, scores, -jnp.inf), axis=-1, keepdims=True)
    peak = jax.lax.stop_gradient(jnp.where(jnp.isfinite(peak), peak, 0.0))
    # Experts that are not kept stand at the peak: exp must not overflow behind a where.
    share = jnp.where(kept, jnp.exp(jnp.where(kept, scores, peak) - peak), 0.0)
    total = jnp.sum(share, axis=-1, keepdims=True)
    return Weighed(share / jnp.where(total > 0, total, 1.0), strayed)


def _best(scores: jax.Array, top_k: int | None) -> jax.Array:
    experts = scores.shape[-1]
    if top_k is None or top_k >= experts:
        return jnp.ones_like(scores, bool)
    if top_k == 1:
        best = jnp.argmax(scores, axis=-1)[:, None]
        return best == jnp.arange(experts)[None]
    _, best = jax.lax.top_k(scores, top_k)
    return jax.nn.one_hot(best, experts, dtype=bool).any(axis=-2)


_CHOICES: dict[str, tuple[Any, ...]] = {
    "normalize": ("none", "unit", "width", "layer"),
    "granularity": ("token", "sequence"),
    "weighting": ("softmax", "unit", "sigmoid"),
    "mixing": ("outputs", "factors"),
    "prepare": (None, "delta", "factor"),
}


def one_hot(chosen: Any, experts: int) -> jax.Array:
    """Labels for the oracle from expert numbers; -1 is no expert.

    Args:
      chosen: integers of any shape, -1 to E - 1.
      experts: E.

    Returns:
      [..., E] float32.

    Raises:
      ValueError: if a number names no expert.

    >>> one_hot([0, -1], 2).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    chosen = jnp.asarray(chosen)
    odd = chosen[(chosen < -1) | (chosen >= experts)]
    if odd.size:
        raise ValueError(
            f"An oracle label is {int(odd.ravel()[0])}, which names no expert; "
            f"expected -1 (none) or 0 to {experts - 1}."
        )
    return jax.nn.one_hot(chosen, experts)
