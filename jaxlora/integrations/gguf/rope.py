"""The stretch of rotary frequencies, which GGUF keeps as numbers and not as a rule."""

import math

import numpy as np

LOW, HIGH, LENGTH = 1.0, 4.0, 8192
"""Constants of Llama 3's rule, the same in every published model."""


def llama3(divisors: np.ndarray, theta: float, head_dim: int) -> dict[str, object]:
    """Returns the ``rope_scaling`` whose divisors of frequencies these are.

    Frequency i is theta ** (-2 i / H). Llama 3's rule divides slow ones by ``factor``,
    keeps fast ones, and goes smoothly between; the largest divisor is the factor.

    Args:
      divisors: [H / 2], as a file keeps them.
      theta: base of the frequencies.
      head_dim: H, channels of a head.

    Raises:
      ValueError: if Llama 3's rule gives other divisors.
    """
    factor = float(divisors.max())
    expected = _divisors(factor, theta, head_dim)
    if divisors.shape != expected.shape or not np.allclose(
        divisors, expected, rtol=1e-3
    ):
        raise ValueError(
            f"The file's rope_freqs {divisors.shape} are not those of Llama 3's rule "
            f"with the factor {factor:g}, expected {expected.shape}; other rules are "
            f"not supported."
        )
    return {
        "rope_type": "llama3",
        "factor": round(factor, 4),
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": LENGTH,
    }


def _divisors(factor: float, theta: float, head_dim: int) -> np.ndarray:
    lengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((LENGTH / lengths - LOW) / (HIGH - LOW), 0.0, 1.0)
    return 1 / ((1 - smooth) / factor + smooth)
