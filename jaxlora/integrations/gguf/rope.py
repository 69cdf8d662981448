"""The stretch of rotary frequencies, which GGUF keeps as numbers and not as a rule."""

import math

import numpy as np

LOW, HIGH, LENGTH = 1.0, 4.0, 8192
"""Constants of Llama 3's rule; of the length, what stands for it if none is said."""


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
    factor, waves = float(divisors.max()), _waves(theta, head_dim)
    if divisors.shape != waves.shape or not 1 < factor < math.inf:
        raise ValueError(
            f"The file's rope_freqs have the shape {divisors.shape} and the factor "
            f"{factor:g}, expected {waves.shape} and more than 1."
        )
    length = _length(divisors, factor, waves)
    if not np.allclose(divisors, _divisors(factor, waves, length), rtol=1e-3):
        raise ValueError(
            f"The file's rope_freqs are not those of Llama 3's rule with the factor "
            f"{factor:g} from a length of {length}; other rules are not supported."
        )
    return {
        "rope_type": "llama3",
        "factor": round(factor, 4),
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": length,
    }


def _waves(theta: float, head_dim: int) -> np.ndarray:
    """Tokens after which each pair of channels has turned once."""
    return 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)


def _divisors(factor: float, waves: np.ndarray, length: int) -> np.ndarray:
    smooth = np.clip((length / waves - LOW) / (HIGH - LOW), 0.0, 1.0)
    return 1 / ((1 - smooth) / factor + smooth)


def _length(divisors: np.ndarray, factor: float, waves: np.ndarray) -> int:
    """Solves a divisor between 1 and the factor for the length it was computed from."""
    between = (divisors > 1.001) & (divisors < 0.999 * factor)
    if not between.any():
        return LENGTH
    d, wave = divisors[between][0], waves[between][0]
    smooth = (1 / d - 1 / factor) / (1 - 1 / factor)
    return max(1, round(float(wave * (LOW + smooth * (HIGH - LOW)))))
