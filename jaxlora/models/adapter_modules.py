"""Sites of a decoder's adapter as modules of a PEFT adapter.

The other way round than :mod:`jaxlora.models.adapter_sites`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.io import peft_out
from jaxlora.io.peft import PeftModule
from jaxlora.lora import LoraWeight
from jaxlora.models import names, sites
from jaxlora.models.adapter_gains import gain_of, scaled
from jaxlora.models.config import DecoderConfig
from jaxlora.models.sites import EMBEDDING, HEAD, KERNEL
from jaxlora.tree import Tree


def outside_module(
    site: str, weight: LoraWeight, path: str, least: int = 0
) -> dict[str, PeftModule]:
    """Returns the module of table or head, by its path; nothing if it is zero.

    Args:
      site: of table or head.
      weight: a [V, R] and b [R, D], or a [D, R] and b [R, V].
      path: of the module.
      least: ranks that are kept, zero or not.
    """
    a, b = np.asarray(weight.a), np.asarray(weight.b)
    rank = max(least, peft_out.used(a, b))
    if not rank:
        return {}
    down, up = np.ascontiguousarray(a[:, :rank].T), np.ascontiguousarray(b[:rank].T)
    module = PeftModule(down, up, float(weight.scale), embedding=site == EMBEDDING)
    return {path: module}


def add_beside(
    modules: dict[str, PeftModule],
    site: str,
    weight: LoraWeight,
    of: tuple[DecoderConfig | None, Tree | None],
) -> None:
    """Adds the magnitudes or biases of a site to the modules of its layers.

    Args:
      modules: of the kernels, by path; changed.
      site: of a gain or bias.
      weight: [L, 1, F], or [L, X, 1, F] of the MLPs of a mixture, or [1, V].
      of: config of the decoder, and its params, for a gain.

    Raises:
      ValueError: if the site has other axes, or there is a gain and no base, or one
        that is not above -1: DoRA has positive magnitudes.
    """
    config, base = of
    kernel = sites.beside(site, KERNEL)
    axes = (2,) if kernel == HEAD else (3, 4) if config else (3,)
    if weight.a.ndim not in axes:
        raise ValueError(
            f"Site {site!r} has a of shape {tuple(weight.a.shape)}, expected "
            f"[L, 1, R]; write the adapters of a library one by one, with "
            f"lora.unstack."
        )
    rows = np.asarray(lora.delta(weight))[..., 0, :]
    if not sites.is_bias(site) and base is None:
        raise ValueError(
            f"The adapter has a site {site!r} (DoRA), whose magnitudes are norms of "
            f"the base's kernel; give the base as well."
        )
    for index in np.ndindex(rows.shape[:-1]):
        row, path = rows[index], names.table(config).outside["head"]
        if kernel != HEAD:
            path = names.module(kernel, index, config)
        old = modules[path]
        if sites.is_bias(site):
            modules[path] = dataclasses.replace(old, bias=row / np.float32(old.scale))
            continue
        if (row <= -1).any():
            raise ValueError(
                f"The adapter multiplies outputs of {path!r} by {1 + row.min():.3g}, "
                f"which no magnitude of DoRA does; fuse it instead."
            )
        low = scaled(old, 1.0 / (1.0 + row))
        leaves = named.flatten(base)
        leaf = leaves[kernel][index] if kernel in leaves else leaves[EMBEDDING].T
        norm = 1.0 / gain_of(leaf, low.a, low.b, low.scale, np.ones_like(row))
        magnitude = np.asarray((1.0 + row) * norm)
        modules[path] = dataclasses.replace(low, magnitude=magnitude)


def everywhere(modules: Mapping[str, PeftModule]) -> dict[str, PeftModule]:
    """Returns modules of which all have a bias or none, with zeros where it lacked.

    Args:
      modules: by path.

    Raises:
      ValueError: if some have a magnitude and others none, or some have a bias and one
        is an embedding: PEFT has them everywhere or nowhere.
    """
    out = dict(modules)
    if any(_has(x.bias) for x in out.values()):
        for path, x in out.items():
            if not _has(x.bias) and not x.embedding:
                zeros = np.zeros(x.b.shape[0], np.float32)
                out[path] = dataclasses.replace(x, bias=zeros)
    for part, kind in (("magnitude", "magnitude (DoRA)"), ("bias", "bias (lora_bias)")):
        there = [path for path, x in out.items() if _has(getattr(x, part))]
        lacks = [path for path in out if path not in {*there}]
        if there and lacks:
            raise ValueError(
                f"The adapter has a {kind} of {there[0]!r} and none of {lacks[0]!r}, "
                f"but an adapter of PEFT has one of every module or of none; fuse it "
                f"instead."
            )
    return out


def _has(values: Any) -> bool:
    return values is not None
