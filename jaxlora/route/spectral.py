"""Gates that see the library alone: directions of the deltas, none, or at random.

Arrow: Ostapenko et al., Towards Modular LLMs by Building and Reusing a Library of LoRAs
(arXiv 2405.11157), section 4.2. SMILE: Tang et al. (arXiv 2408.10174). SpectR: Fleshman
and Van Durme (arXiv 2504.03454). Directions are exact singular vectors of each delta;
power iteration, as in PEFT, is wrong where two singular values are close.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxlora import spectrum
from jaxlora.lora import LoraWeight
from jaxlora.route.deltas import Per
from jaxlora.route.gate import LAWS, Gate

TINY = 1e-5
"""Share of the largest singular value below which a direction is rounding."""


@dataclasses.dataclass(frozen=True)
class Uniform(Gate):
    """Every live expert scores the same: the mean, in routed form."""

    def keys(self, weight: LoraWeight, key: jax.Array, data: Any) -> jax.Array:
        """Zeros [E, L]."""
        del key, data
        return jnp.zeros(weight.scale.shape, jnp.float32)

    def score(self, keys: Any, x: jax.Array) -> jax.Array:
        """Zeros [N, E]."""
        return jnp.zeros((x.shape[0], keys.shape[0]), jnp.float32)


@dataclasses.dataclass(frozen=True)
class Oracle(Uniform):
    """Weights are given with the call, as labels; cached steps take none."""

    data: ClassVar[str] = "labels"
    laws: ClassVar[frozenset[str]] = frozenset({"permutation", "gauge", "batch"})
    supports: ClassVar[tuple[Per, ...]] = ("site",)


@dataclasses.dataclass(frozen=True)
class Spectral(Gate):
    """``|V_e^T x|``, V_e the top singular directions of expert e on the input side.

    With one direction this is Arrow's ``|v_e . x|``; with several, SMILE's gate; with
    all of them, each times its singular value, SpectR's ``|delta_e x|``.
    """

    rank: int | None = 1
    """Directions of an expert, or None for all; fewer where the delta has fewer."""
    scaled: bool = False
    """Multiply each direction by its singular value."""
    supports: ClassVar[tuple[Per, ...]] = ("site",)

    def __post_init__(self):
        super().__post_init__()
        if self.rank is not None and self.rank < 1:
            raise ValueError(
                f"A spectral gate got {self.rank} directions, expected at least 1, or "
                f"None for all."
            )

    def keys(self, weight: LoraWeight, key: jax.Array, data: Any) -> jax.Array:
        """Directions [E, L, D, K], zero beyond the rank of a delta."""
        del key, data
        u, s, _ = spectrum.svd(weight, self.rank)
        top = s[..., :1] if s.shape[-1] else s
        # Directions of padding are arbitrary: as keys they would attract tokens.
        sound = s > TINY * top
        factor = s if self.scaled else jnp.ones_like(s)
        return u * jnp.where(sound, factor, 0.0)[..., None, :]

    def score(self, keys: Any, x: jax.Array) -> jax.Array:
        """Norms of the projections of x [N, D], [N, E]."""
        e, d, k = keys.shape
        flat = jnp.moveaxis(keys, 0, 1).reshape(d, e * k)
        along = spectrum.matmul(x, flat).reshape(-1, e, k)
        if k == 1:
            return jnp.abs(along[..., 0])
        square = jnp.sum(along * along, axis=-1)
        # The slope of a root at zero is infinite: a router's gradient must not be.
        none = square == 0  # NaN is not: it must be seen
        return jnp.where(none, 0.0, jnp.sqrt(jnp.where(none, 1.0, square)))

    def width(self, keys: Any) -> int | None:
        """D."""
        return keys.shape[-2]


@dataclasses.dataclass(frozen=True)
class Random(Spectral):
    """Arrow with directions drawn at random: what a gate does that knows nothing."""

    laws: ClassVar[frozenset[str]] = frozenset(LAWS) - {"permutation"}

    def keys(self, weight: LoraWeight, key: jax.Array, data: Any) -> jax.Array:
        """Unit directions [E, L, D, K], uniform on the sphere."""
        del data
        shape = (*weight.a.shape[:-1], self.rank or weight.rank)
        drawn = jax.random.normal(key, shape)
        return drawn / jnp.linalg.norm(drawn, axis=-2, keepdims=True)


uniform = Uniform()
"""Every expert with the same weight."""
oracle = Oracle()
"""Weights come as labels of the call."""
arrow = Spectral()
"""Scores ``|v_e . x|``, v_e the exact top singular direction of delta_e."""
random = Random()
"""Scores ``|v_e . x|``, v_e at random."""
