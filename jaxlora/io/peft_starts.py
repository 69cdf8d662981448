"""Adapters whose training took their first factors out of the base: PiSSA and OLoRA.

The base became ``W - s B0 A0``, and training went on from ``A0`` and ``B0``: against W
the update is ``s (B A - B0 A0)``, of twice the rank. PiSSA (arXiv 2404.02948) begins
with the leading singular vectors of W, OLoRA (arXiv 2406.01775) with columns of its QR
factors, so that the base says what they were.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy.sparse import linalg

from jaxlora.io.peft_types import PeftModule

DENSE = 1024
"""Narrower weights are decomposed whole, wider ones by Lanczos' method."""


def without_start(module: PeftModule, kernel: Any) -> PeftModule:
    """Returns the update of a module against the base as it was before.

    Args:
      module: ``start`` says what it began with; if it took nothing out, it stays.
      kernel: of the base, [D, F].

    >>> a, b = np.ones((1, 2), np.float32), np.ones((3, 1), np.float32)
    >>> module = PeftModule(a, b, 2.0, start="pissa")
    >>> without_start(module, np.ones((2, 3))).a.shape  # 2 (1 - 1 / 2) W
    (2, 2)
    """
    if module.start is None:
        return module
    weight = np.asarray(kernel, np.float64).T
    rank, scale = module.a.shape[0], module.scale
    if module.start == "pissa":
        u, s, v = leading(weight, rank)
        down, up = v * (s / scale)[:, None], u
    else:
        q, r = np.linalg.qr(weight)
        down, up = r[:rank], q[:, :rank]
    a = np.concatenate([np.asarray(x, np.float32) for x in (module.a, down)])
    b = np.concatenate([np.asarray(x, np.float32) for x in (module.b, -up)], axis=1)
    return dataclasses.replace(module, a=a, b=b, start=None)


def leading(weight: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the leading singular vectors and values, [F, R], [R] and [R, D].

    Args:
      weight: [F, D].
      rank: R.
    """
    if min(weight.shape) <= max(DENSE, rank):
        u, s, v = np.linalg.svd(weight, full_matrices=False)
        return u[:, :rank], s[:rank], v[:rank]
    return linalg.svds(weight, k=rank, random_state=0)
