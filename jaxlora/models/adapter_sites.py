"""Modules of a PEFT adapter as sites of a decoder: where they go, and their values."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import periods
from jaxlora.io import peft_starts
from jaxlora.io.peft import Header, PeftModule
from jaxlora.lora import LoraWeight
from jaxlora.models import names, sites
from jaxlora.models.adapter_gains import folded, gain_of, scaled
from jaxlora.models.config import DecoderConfig
from jaxlora.models.sites import BIAS, EMBEDDING, GAIN, HEAD

_OUTSIDE = {
    "model.embed_tokens": EMBEDDING,
    "transformer.wte": EMBEDDING,
    "lm_head": HEAD,
}
_FUSED = re.compile(r"(.+\.experts\.\d+)\.gate_up_proj")


def outside_paths(config: DecoderConfig | None) -> dict[str, str]:
    """Returns the modules of the sites that lie in no layer.

    Args:
      config: of the decoder; None for the names of most families.
    """
    paths = names.table(config).outside
    return {EMBEDDING: paths["embed"], HEAD: paths["head"]}


def unfused(
    modules: Mapping[str, PeftModule | Header],
    read: Callable[[str], PeftModule],
    leaves: Mapping[str, Any],
) -> tuple[dict[str, PeftModule | Header], Callable[[str], PeftModule]]:
    """Takes apart what adapts the gates and ups of a mixture as one parameter.

    Both have the first factor, and half of the rows of the second.

    Args:
      modules: of an adapter, by path.
      read: gives a module by its path.
      leaves: of the base.
    """
    halves: dict[str, tuple[str, int]] = {}
    several = any(periods.split(x)[0] == "layers/moe/up/kernel" for x in leaves)
    out: dict[str, PeftModule | Header] = {}
    for path, module in modules.items():
        match = _FUSED.fullmatch(path)
        if match is None or not several:
            out[path] = module
            continue
        for half, name in enumerate(("gate_proj", "up_proj")):
            halves[f"{match[1]}.{name}"] = path, half
            out[f"{match[1]}.{name}"] = module
    return (
        out,
        lambda path: _half(read, *halves[path]) if path in halves else read(path),
    )


def _half(read: Callable[[str], PeftModule], path: str, half: int) -> PeftModule:
    module = read(path)
    width, odd = divmod(len(module.b), 2)
    if odd:
        raise ValueError(
            f"The adapter's update of {path!r} is to {len(module.b)} features, "
            f"expected as many of gates as of ups. The adapter is for another model."
        )
    return dataclasses.replace(module, b=module.b[half * width :][:width])


def place(
    path: str, module: PeftModule | Header, leaves: Mapping[str, Any]
) -> tuple[str, int | None]:
    """Returns the site and layer of a module; None is the layer of table and head.

    Of several MLPs in each layer, those of all layers are counted in a row.

    Args:
      path: of the module.
      module: its update.
      leaves: of the base.

    Raises:
      ValueError: if the base has no such module.
    """
    outside = _OUTSIDE.get(names.canonical(path))
    if module.embedding != (outside == EMBEDDING):
        kind = "an embedding" if module.embedding else "a linear layer"
        raise ValueError(
            f"The adapter adapts {path!r} as {kind}, which it is not in the base."
        )
    if outside is not None and EMBEDDING in leaves:
        return outside, None
    within = names.site(path)
    period = periods.length(leaves)
    name, layer = ("", 0)
    if within is not None:
        name, layer = periods.place(within.name, within.layer, period)
    if within is None or name not in leaves:
        have = [periods.split(x)[0] for x in leaves if x.endswith("_proj/kernel")]
        have = [x.removesuffix("/kernel") for x in dict.fromkeys(have)]
        theirs = [names.KERNELS.get(x, x) for x in have]
        raise ValueError(
            f"The adapter adapts {path!r}, which the base lacks; each layer of it has "
            f"{', '.join(theirs)}. The adapter is for another model."
        )
    layers, *mlps = leaves[name].shape[:-2]
    layers *= period or 1
    if within.layer >= layers:
        raise ValueError(
            f"The adapter adapts {path!r}, but the base has {layers} layers, 0 to "
            f"{layers - 1}. The adapter is for another model."
        )
    if within.mlp is None:
        return name, layer
    if within.mlp >= mlps[0]:
        raise ValueError(
            f"The adapter adapts {path!r}, but a layer of the base has {mlps[0]} MLPs, "
            f"0 to {mlps[0] - 1}. The adapter is for another model."
        )
    # The MLPs of all layers in a row; _stack gives them their axes back.
    return name, layer * mlps[0] + within.mlp


def weights(
    site: str,
    paths: Mapping[int | None, str],
    read: Callable[[str], PeftModule],
    leaves: Mapping[str, Any],
) -> dict[str, LoraWeight]:
    """Reads the modules of one site: its weight, and those of its gain and bias.

    Args:
      site: of the base.
      paths: the module of each layer that is adapted.
      read: gives a module by its path.
      leaves: of the base, values and all if a module has a magnitude.

    Raises:
      ValueError: if a module does not fit the base.
    """
    modules = {layer: read(path) for layer, path in paths.items()}
    shape = sites.shape_of(site, leaves)
    for layer, path in paths.items():
        _check_shapes(path, modules[layer], shape)
    if None in modules:
        return _outside(paths[None], modules[None], leaves)
    layered = {layer: x for layer, x in modules.items() if layer is not None}
    for layer, x in layered.items():
        if x.start is not None:
            layered[layer] = peft_starts.without_start(x, _kernel(leaves[site], layer))
    out: dict[str, LoraWeight] = {}
    biases = {i: x.scale * _wide(x.bias) for i, x in layered.items() if _has(x.bias)}
    if biases:
        out[sites.beside(site, BIAS)] = _rows(biases, shape)
    gains = {
        i: np.asarray(gain_of(_kernel(leaves[site], i), x.a, x.b, x.scale, x.magnitude))
        for i, x in layered.items()
        if _has(x.magnitude)
    }
    if gains:
        extra = {i: gain - 1.0 for i, gain in gains.items()}
        out[sites.beside(site, GAIN)] = _rows(extra, shape)
        layered |= {i: scaled(layered[i], gain) for i, gain in gains.items()}
    out[site] = jax.block_until_ready(_stack(layered, shape))  # else copies wait
    return out


def _kernel(leaf: Any, index: int) -> Any:
    """That of a layer, or of an MLP counted over all layers: [D, F]."""
    if leaf.ndim == 3:
        return leaf[index]
    return leaf[divmod(index, leaf.shape[1])]


def _wide(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def _has(values: Any) -> bool:
    return values is not None


def _rows(rows: Mapping[int, np.ndarray], shape: tuple[int, ...]) -> LoraWeight:
    """Vectors [F] of some layers as updates [L, 1, F] of rank 1."""
    *lead, _, f = shape
    b = np.zeros((math.prod(lead), 1, f), np.float32)
    for layer, row in rows.items():
        b[layer, 0] = row
    b = jnp.asarray(b.reshape(*lead, 1, f))
    return LoraWeight(jnp.ones((*lead, 1, 1)), b, jnp.ones(tuple(lead)))


def _outside(
    path: str, module: PeftModule, leaves: Mapping[str, Any]
) -> dict[str, LoraWeight]:
    """The sites of table or head, which have no layers."""
    if module.embedding and module.bias is not None and module.bias.any():
        raise ValueError(
            f"The adapter has a bias (lora_bias) of {path!r}, expected one of a linear "
            f"layer: an embedding has none."
        )
    tied = HEAD not in leaves
    if module.start is not None and tied:
        raise ValueError(
            f"The adapter has factors of {path!r} that were taken out of the base "
            f"({module.start}), which is its embedding as well: PEFT changes both."
        )
    kernel = leaves[EMBEDDING if module.embedding or tied else HEAD]
    kernel = kernel.T if tied and not module.embedding else kernel
    module = peft_starts.without_start(module, kernel)
    out, shape = {}, kernel.shape
    if module.embedding:
        module = folded(module, kernel)
    elif _has(module.bias):
        row = module.scale * _wide(module.bias)
        out[sites.beside(HEAD, BIAS)] = _rows({0: row}, shape)
    if _has(module.magnitude):
        parts = module.a, module.b, module.scale, module.magnitude
        gain = np.asarray(gain_of(kernel, *parts))
        out[sites.beside(HEAD, GAIN)] = _rows({0: gain - 1.0}, shape)
        module = scaled(module, gain)
    site = EMBEDDING if module.embedding else HEAD
    out[site] = jax.block_until_ready(_stack({0: module}, shape))
    return out


def _check_shapes(path: str, module: PeftModule, shape: tuple[int, ...]) -> None:
    got = (module.a.shape[1], module.b.shape[0])
    if got != shape[-2:]:
        raise ValueError(
            f"The adapter's update of {path!r} is from {got[0]} to {got[1]} features, "
            f"expected {shape[-2]} to {shape[-1]} by the base. The adapter is for "
            f"another model."
        )


def _stack(layers: Mapping[int, PeftModule], shape: tuple[int, ...]) -> LoraWeight:
    *lead, d, f = shape
    count = math.prod(lead)
    rank = max(module.a.shape[0] for module in layers.values())
    factors = [values for m in layers.values() for values in (m.a, m.b)]
    dtypes = {values.dtype for values in factors}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
    a, b = np.zeros((count, d, rank), dtype), np.zeros((count, rank, f), dtype)
    scale = np.ones(count, np.float32)
    for layer, module in layers.items():
        r = module.a.shape[0]
        a[layer, :, :r], b[layer, :r] = module.a.T, module.b.T
        scale[layer] = module.scale
    shaped = (x.reshape((*lead, *x.shape[1:])) for x in (a, b, scale))
    return LoraWeight(*map(jnp.asarray, shaped))
