"""Magnitudes of DoRA as gains: what multiplies each output feature of a layer.

Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation (arXiv 2402.09353).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.io.peft import PeftModule


def folded(module: PeftModule, kernel: Any) -> PeftModule:
    """Returns the update of DoRA with its gain among its factors: rank R + min(D, F).

    For the table, whose rows are looked up, and have no place for a gain.

    Args:
      module: of D to F features; without a magnitude it stays as it is.
      kernel: that it updates, [D, F].

    >>> a, b = np.zeros((1, 2), np.float32), np.zeros((3, 1), np.float32)
    >>> module = PeftModule(a, b, 1.0, magnitude=np.full(3, 2.0, np.float32))
    >>> out = folded(module, np.asarray([[1.0, 0, 3], [0, 4, 4]], np.float32))
    >>> (10 * out.b @ out.a).T.round().tolist()  # columns get the norm 2
    [[10.0, 0.0, -18.0], [0.0, -20.0, -24.0]]
    """
    if module.magnitude is None:
        return module
    kernel = _wide(kernel)
    parts = module.a, module.b, module.scale, module.magnitude
    gain = np.asarray(gain_of(kernel, *parts))
    down, up = np.eye(len(kernel), dtype=np.float32), (kernel * (gain - 1.0)).T
    if kernel.shape[0] > kernel.shape[1]:
        down, up = kernel.T, np.diag(gain - 1.0)
    low = module.scale * _wide(module.b) * gain[:, None]
    a = np.concatenate([_wide(module.a), down])
    b = np.concatenate([low, up], axis=1)
    return dataclasses.replace(module, a=a, b=b, scale=1.0, magnitude=None)


@jax.jit
def gain_of(kernel, a, b, scale, magnitude) -> jax.Array:
    """Returns m / |W + s b a| of each output feature, [F].

    Args:
      kernel: W, [D, F].
      a: [R, D].
      b: [F, R].
      scale: s.
      magnitude: m, [F].
    """
    wide = (x.astype(jnp.float32) for x in (kernel, a, b, magnitude))
    kernel, a, b, magnitude = wide
    total = kernel + scale * jnp.matmul(a.T, b.T, precision="highest")
    return magnitude / jnp.linalg.norm(total, axis=0)


def scaled(module: PeftModule, gain: np.ndarray) -> PeftModule:
    """Returns a module whose output features are multiplied by a gain.

    Args:
      module: of F features.
      gain: [F].
    """
    return dataclasses.replace(module, b=_wide(module.b) * gain[:, None])


def _wide(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)
