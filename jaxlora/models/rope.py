"""Rotary positions (arXiv 2104.09864), and how their frequencies are stretched.

Rules are those of transformers' ``ROPE_INIT_FUNCTIONS``, compared with them in tests.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.models.config import RopeScaling


def frequencies(
    width: int,
    theta: float,
    scaling: RopeScaling | None = None,
    length: jax.Array | int | None = None,
) -> Any:
    """Rotary angles per position, ``theta^(-2 i / K)``, stretched by ``scaling``.

    Args:
      width: K, rotated channels of a head, even.
      theta: base of the frequencies.
      scaling: the rule of the stretch, or None.
      length: tokens of the longest sequence, for rules that ask; None is a short one.
        It may be traced.

    Returns:
      [K / 2] radians per position, float32: a NumPy array, unless the length is traced
      and counts.

    >>> frequencies(4, 100.0).tolist()
    [1.0, 0.10000000149011612]
    """
    fast = theta ** (-np.arange(width // 2, dtype=np.float64) / (width // 2))
    if scaling is None:
        return fast.astype(np.float32)
    return _RULES[scaling.kind](fast, theta, scaling, length).astype(np.float32)


def _linear(fast: np.ndarray, theta: float, scaling: RopeScaling, _: Any) -> np.ndarray:
    del theta
    return fast / scaling.factor


def _llama3(fast: np.ndarray, theta: float, scaling: RopeScaling, _: Any) -> np.ndarray:
    """Divides by factor where the wavelength is long beside the trained length."""
    del theta
    slow = fast / scaling.factor
    turns = scaling.original_length * fast / (2 * np.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return share * fast + (1 - share) * slow


def _yarn(fast: np.ndarray, theta: float, scaling: RopeScaling, _: Any) -> np.ndarray:
    """Between two channels, those of beta_fast and beta_slow turns, a linear ramp."""

    def channel(turns: float) -> float:
        wavelengths = scaling.original_length / (turns * 2 * math.pi)
        return len(fast) * math.log(wavelengths) / math.log(theta)

    first, last = channel(scaling.beta_fast), channel(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * len(fast) - 1)
    width = last - first or 0.001
    share = np.clip((np.arange(len(fast)) - first) / width, 0.0, 1.0)
    return share * fast / scaling.factor + (1 - share) * fast


def _dynamic(fast: np.ndarray, theta: float, scaling: RopeScaling, length: Any) -> Any:
    """Theta grows with what a sequence has beyond the trained length (NTK-aware)."""
    del theta
    width, trained = 2 * len(fast), scaling.original_length
    if length is None:
        return fast
    # As fast is theta^(-2 i / K), growth is a power of i; it is 1 up to the trained.
    beyond = _library(length).maximum(length, trained) / trained
    growth = scaling.factor * beyond - (scaling.factor - 1)
    powers = -np.arange(len(fast)) * 2 / width * (width / (width - 2))
    if isinstance(length, int):
        return fast * growth**powers
    return jnp.asarray(fast, jnp.float32) * growth ** jnp.asarray(powers, jnp.float32)


def _longrope(fast: np.ndarray, theta: float, scaling: RopeScaling, length: Any) -> Any:
    del theta
    short, long = (
        fast / np.asarray(factors)
        for factors in (scaling.short_factors, scaling.long_factors)
    )
    if length is None:
        return short
    beyond = length > scaling.original_length
    if isinstance(length, int):
        return long if beyond else short
    short, long = jnp.asarray(short, jnp.float32), jnp.asarray(long, jnp.float32)
    return jnp.where(beyond, long, short)


def _library(length: jax.Array | int) -> Any:
    return np if isinstance(length, int) else jnp


_RULES: Mapping[str, Callable[..., Any]] = {
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "dynamic": _dynamic,
    "longrope": _longrope,
}


def rotate(
    x: jax.Array,
    positions: jax.Array,
    frequency: jax.Array,
    factor: jax.Array | float = 1.0,
) -> jax.Array:
    """Rotary positions in the half-split form of Llama (arXiv 2104.09864).

    Args:
      x: queries or keys [B, T, H, K].
      positions: [B, T] integers.
      frequency: [C / 2] radians per position; the first C <= K channels are rotated.
      factor: [], on what is rotated.
    """
    width = 2 * frequency.shape[-1]
    if width < x.shape[-1]:
        turned = rotate(x[..., :width], positions, frequency, factor)
        return jnp.concatenate([turned, x[..., width:]], axis=-1)
    angle = positions.astype(jnp.float32)[:, :, None, None] * frequency.reshape(
        1, 1, 1, -1
    )
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    if not isinstance(factor, float) or factor != 1.0:
        cos, sin = cos * factor, sin * factor
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
