"""Routing: a gate weighs the experts of a library for every token.

A gate is a pair of pure functions, ``init(library) -> state`` (a tree that mirrors
the adapter, one array a site) and ``weigh(state, x, labels, ...) -> weights``. The
model maps it over its sites; :func:`mix` applies the weights on the rank axis, so
that E experts cost two matrix products, not E.

Arrow: Ostapenko et al., Towards Modular LLMs by Building and Reusing a Library of
LoRAs (arXiv 2405.11157), section 4.2; mixing of outputs as in PEFT.
"""

import dataclasses
import difflib
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxlora import lora, spectrum
from jaxlora.lora import Library, LoraWeight
from jaxlora.tree import Tree


class Init(Protocol):
    """Makes the gate state of a library: a tree with one [E, ...] array a site."""

    def __call__(self, library: Library) -> Tree:
        """Returns the state, without looking at any data."""
        ...


class Weigh(Protocol):
    """Weighs E experts for N tokens at one site."""

    def __call__(
        self,
        state: jax.Array,
        x: jax.Array,
        labels: jax.Array | None,
        *,
        top_k: int,
        temperature: float,
    ) -> jax.Array:
        """Returns weights [N, E], float32, from the site's input x [N, D]."""
        ...


class Gate(NamedTuple):
    """A named pair of pure functions, hashable and so a field of :class:`Route`."""

    name: str
    init: Init
    weigh: Weigh


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route:
    """How a model uses a library: hashable, so a static field of the model."""

    gate: Gate
    """Which function weighs the experts."""
    top_k: int = 0
    """Experts kept per token and site; 0 keeps all."""
    temperature: float = 1.0
    """Divides the scores before the softmax; positive, unitless."""

    def __post_init__(self):
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}, expected 0 (all) or more.")
        if not self.temperature > 0:
            raise ValueError(
                f"temperature is {self.temperature}, expected a positive number."
            )

    def weights(
        self, state: jax.Array, x: jax.Array, labels: jax.Array | None
    ) -> jax.Array:
        """Returns the gate's weights [N, E] for one site's input x [N, D].

        Raises:
          ValueError: if top_k is above the number of experts.
        """
        experts = state.shape[0]
        if self.top_k > experts:
            raise ValueError(
                f"top_k is {self.top_k}, but the library has {experts} experts."
            )
        return self.gate.weigh(
            state,
            x,
            labels,
            top_k=self.top_k or experts,
            temperature=self.temperature,
        )


def mix(weight: LoraWeight, x: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns ``sum_e g_e * scale_e * x a_e b_e``, weighted on the rank axis.

    Args:
      weight: one site of a library; a [E, D, R], b [E, R, F], scale [E].
      x: inputs [N, D].
      weights: gate weights g [N, E].

    Returns:
      [N, F] in the dtype of x.

    >>> w = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 4)), jnp.ones(2))
    >>> mix(w, jnp.ones((1, 3)), jnp.array([[1.0, 0.5]])).tolist()
    [[4.5, 4.5, 4.5, 4.5]]
    """
    experts, d, rank = weight.a.shape
    a = jnp.moveaxis(weight.a, 0, 1).reshape(d, experts * rank)
    b = weight.b.reshape(experts * rank, -1)
    g = weights.astype(jnp.float32) * weight.scale.astype(jnp.float32)[None, :]
    low = (x.astype(a.dtype) @ a).reshape(-1, experts, rank)
    low = low * g.astype(a.dtype)[:, :, None]
    return (low.reshape(-1, experts * rank) @ b).astype(x.dtype)


def top_k_softmax(scores: jax.Array, top_k: int, temperature: float) -> jax.Array:
    """Softmax over the ``top_k`` highest scores, zero elsewhere; [N, E] to [N, E].

    >>> top_k_softmax(jnp.array([[0.0, 1.0, 1.0]]), 2, 1.0).tolist()
    [[0.0, 0.5, 0.5]]
    """
    scores = scores.astype(jnp.float32) / temperature
    if top_k < scores.shape[-1]:
        _, best = jax.lax.top_k(scores, top_k)
        kept = jax.nn.one_hot(best, scores.shape[-1], dtype=bool).any(axis=-2)
        scores = jnp.where(kept, scores, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1)


def _ones(library: Library) -> Tree:
    return lora.lora_map(lambda w: jnp.ones_like(w.scale), library)


def _prototypes(library: Library) -> Tree:
    return lora.lora_map(lambda w: spectrum.svd(w)[0][..., 0], library)


def _weigh_uniform(state, x, labels, *, top_k, temperature):
    del labels, top_k, temperature
    experts = state.shape[0]
    return jnp.full((x.shape[0], experts), 1.0 / experts, jnp.float32)


def _weigh_arrow(state, x, labels, *, top_k, temperature):
    del labels
    scores = jnp.abs(x.astype(jnp.float32) @ state.astype(jnp.float32).T)
    return top_k_softmax(scores, top_k, temperature)


def _weigh_oracle(state, x, labels, *, top_k, temperature):
    del state, x, top_k, temperature
    if labels is None:
        raise ValueError("The oracle gate needs labels [L, B, T, E]; got none.")
    return labels.astype(jnp.float32)


uniform = Gate("uniform", _ones, _weigh_uniform)
"""Every expert with weight 1/E: the exact mean, in routed form."""

arrow = Gate("arrow", _prototypes, _weigh_arrow)
"""Scores ``|x . v_e|``, where v_e is the exact top singular direction of delta_e."""

oracle = Gate("oracle", _ones, _weigh_oracle)
"""Weights are given with the call, as labels per layer, sequence and token."""

_GATES = {gate.name: gate for gate in (uniform, arrow, oracle)}


def names() -> tuple[str, ...]:
    """Names that :func:`gate` knows."""
    return tuple(_GATES)


def gate(name: str) -> Gate:
    """Returns a gate by name.

    Raises:
      ValueError: naming what exists and the nearest name.
    """
    if name not in _GATES:
        near = difflib.get_close_matches(name, _GATES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"No gate {name!r}; there are {', '.join(_GATES)}{hint}")
    return _GATES[name]
