"""Sites of a library on disk: padded and stacked on reading, cut on writing."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.io import peft_out, tensors
from jaxlora.io.library_json import Entry
from jaxlora.io.tensors import Tensors
from jaxlora.lora import LoraWeight


def arrays(name: str, site: str, weight: LoraWeight) -> dict[str, np.ndarray]:
    """Returns the tensors of one site of one expert, without trailing zero ranks.

    Raises:
      ValueError: if shapes do not fit together, or a value is not finite.
    """
    a, b, scale = (np.asarray(x) for x in (weight.a, weight.b, weight.scale))
    expected = ((*scale.shape, a.shape[-2], a.shape[-1]), (a.shape[-1], b.shape[-1]))
    if a.shape != expected[0] or b.shape[-2:] != expected[1] or b.ndim != a.ndim:
        raise ValueError(
            f"Site {site!r} of {name!r} has a, b, scale of shapes {a.shape}, "
            f"{b.shape}, {scale.shape}, expected [..., D, R], [..., R, F], [...]."
        )
    flat = a.reshape(-1, a.shape[-1]), np.moveaxis(b, -2, 0).reshape(b.shape[-2], -1)
    rank = max(peft_out.used(*flat), 1)
    found = {"a": a[..., :rank], "b": b[..., :rank, :], "scale": scale}
    for part, values in found.items():
        if not np.isfinite(values.astype(np.float32, copy=False)).all():
            raise ValueError(f"{part} of {site!r} of {name!r} holds NaN or infinity.")
    return {f"{site}/{part}": values for part, values in found.items()}


def stack(
    folder: Path, site: str, experts: Sequence[Entry], files: Sequence[Tensors]
) -> LoraWeight:
    """Reads one site of all experts; beside it one tensor is in memory.

    Raises:
      ValueError: if experts differ in the features of the site, or a value is not
        finite.
    """
    have = {i: files[i].entries for i, e in enumerate(experts) if site in e.ranks}
    shapes = {i: (e[f"{site}/a"].shape, e[f"{site}/b"].shape) for i, e in have.items()}
    (first, (a, b)), *others = shapes.items()
    for i, (other_a, other_b) in others:
        if (*other_a[:-1], other_b[-1]) != (*a[:-1], b[-1]):
            raise ValueError(
                f"Site {site!r} of {experts[i].name!r} in {folder} is "
                f"{[*other_a[:-1], other_b[-1]]}, expected {[*a[:-1], b[-1]]}, as in "
                f"{experts[first].name!r}: their bases differ."
            )
    rank = max(experts[i].ranks[site] for i in have)
    kinds = {e[f"{site}/{part}"].dtype for e in have.values() for part in "ab"}
    dtype = tensors.DTYPES[kinds.pop() if len(kinds) == 1 else "F32"]
    lead = (len(experts), *a[:-2])
    out_a = np.zeros((*lead, a[-2], rank), dtype)
    out_b = np.zeros((*lead, rank, b[-1]), dtype)
    scale = np.ones(lead, np.float32)
    for i in have:
        r = experts[i].ranks[site]
        out_a[i, ..., :r] = files[i].read(f"{site}/a", finite=True)
        out_b[i, ..., :r, :] = files[i].read(f"{site}/b", finite=True)
        scale[i] = files[i].read(f"{site}/scale", finite=True)
    weight = LoraWeight(jnp.asarray(out_a), jnp.asarray(out_b), jnp.asarray(scale))
    return jax.block_until_ready(weight)  # else copies of many sites wait in a queue
