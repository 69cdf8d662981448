"""Sites of a library on disk: padded and stacked on reading, cut on writing."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.io import peft_out, tensors
from jaxlora.io.library_entries import Entry
from jaxlora.io.tensors import Tensors
from jaxlora.lora import LoraWeight

Part: TypeAlias = tuple[int | tuple[int, ...], Any, Any, Any]
"""Where it goes; a, b and scale."""


def arrays(name: str, site: str, weight: LoraWeight) -> dict[str, np.ndarray]:
    """Returns the tensors of one site of one expert, without trailing zero ranks.

    Args:
      name: of the expert, for messages.
      site: path of the adapted leaf.
      weight: a [..., D, R], b [..., R, F], scale [...].

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
    # A rank may be cut only if it is zero in every layer.
    flat = a.reshape(-1, a.shape[-1]), np.moveaxis(b, -2, 0).reshape(b.shape[-2], -1)
    # An expert that changes nothing keeps one rank of zeros.
    rank = max(peft_out.used(*flat), 1)
    parts = {"a": a[..., :rank], "b": b[..., :rank, :], "scale": scale}
    for part, values in parts.items():
        if not np.isfinite(values.astype(np.float32, copy=False)).all():
            raise ValueError(f"{part} of {site!r} of {name!r} holds NaN or infinity.")
    return {f"{site}/{part}": values for part, values in parts.items()}


def stack(
    folder: Path, site: str, experts: Sequence[Entry], files: Sequence[Tensors]
) -> LoraWeight:
    """Reads one site of all experts; beside it one expert's part is in memory.

    Args:
      folder: of the library, for messages.
      site: path of the adapted leaf; some expert adapts it.
      experts: the E experts.
      files: the opened file of each.

    Returns:
      a [E, ..., D, R], b [E, ..., R, F], scale [E, ...].

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
    d, f = a[-2], b[-1]
    rank = max(experts[i].ranks[site] for i in have)
    # Experts in bfloat16 stay so; mixed types go to float32, which holds all of them.
    kinds = {e[f"{site}/{part}"].dtype for e in have.values() for part in "ab"}
    dtype = tensors.DTYPES[kinds.pop() if len(kinds) == 1 else "F32"]
    parts = (_part(i, files[i], site) for i in have)
    return padded((len(experts), *a[:-2]), (d, rank, f), dtype, parts)


def padded(
    lead: tuple[int, ...],
    sizes: tuple[int, int, int],
    dtype: np.dtype,
    parts: Iterable[Part],
) -> LoraWeight:
    """As :func:`filled`, as arrays of JAX.

    Args:
      lead: axes before those of a factor, such as [E, L].
      sizes: D, R (the largest rank) and F.
      dtype: of the factors.
      parts: where each goes among the first axes, its a, b and scale.

    Returns:
      a [*lead, D, R], b [*lead, R, F], scale [*lead].
    """
    weight = jax.tree.map(jnp.asarray, filled(lead, sizes, dtype, parts))
    return jax.block_until_ready(weight)  # else copies of many sites wait in a queue


def filled(
    lead: tuple[int, ...],
    sizes: tuple[int, int, int],
    dtype: np.dtype,
    parts: Iterable[Part],
) -> LoraWeight:
    """Fills a site's arrays with factors of any rank, padded with zeros.

    Args:
      lead: axes before those of a factor, such as [E, L].
      sizes: D, R (the largest rank) and F.
      dtype: of the factors.
      parts: where each goes among the first axes, its a [..., D, r], b [..., r, F] and
        scale [...]. They are taken one after the other, so that beside the result one
        of them is in memory. Where there is none, a and b are 0 and scale is 1.

    Returns:
      a [*lead, D, R], b [*lead, R, F], scale [*lead], of NumPy.
    """
    d, rank, f = sizes
    a, b = np.zeros((*lead, d, rank), dtype), np.zeros((*lead, rank, f), dtype)
    # Scale 1 where an expert has no factors, so that their product is exactly zero.
    scale = np.ones(lead, np.float32)
    for where, down, up, factor in parts:
        r = down.shape[-1]
        a[where][..., :r], b[where][..., :r, :], scale[where] = down, up, factor
    return LoraWeight(a, b, scale)  # pyrefly: ignore


def _part(i: int, file: Tensors, site: str) -> Part:
    parts = ("a", "b", "scale")
    a, b, scale = (file.read(f"{site}/{part}", finite=True) for part in parts)
    return i, a, b, scale
