"""PEFT adapters as :class:`LoraWeight` trees, and back.

PEFT keeps one pair of factors for each layer; a tree keeps one site for all layers,
stacked on L. Ranks that differ over the layers are padded with zeros to the largest. A
layer that has no factors while others of its site have gets zeros, with scale 1. On the
way back trailing ranks that are zero in both factors are cut off again, and a layer in
which nothing is left is not written.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.io import module_names, peft, peft_out
from jaxlora.io.peft import Header, PeftAdapter, PeftModule
from jaxlora.lora import Adapter, LoraWeight
from jaxlora.models import names
from jaxlora.models.config import DecoderConfig
from jaxlora.tree import Tree


def load(folder: Path | str, base: Tree, *, name: str | None = None) -> Adapter:
    """Reads a PEFT adapter for ``base``.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      base: params tree of a decoder; kernels are [L, D, F].
      name: of an adapter that PEFT put into a folder of its name within ``folder``.

    Returns:
      An adapter with factors in their stored types; float16 becomes float32. Factors
      of parts that see or hear are left out; :func:`left_out` says so.

    Raises:
      ValueError: if the files are damaged, the adapter is more than low-rank updates,
        or it does not fit the base.
    """
    file = peft.open_folder(Path(folder), name=name)
    return _stacked(file.modules, file.read, base)


def from_peft(adapter: PeftAdapter, base: Tree) -> Adapter:
    """Stacks the modules of each site.

    Raises:
      ValueError: naming a module that the base lacks, or whose shapes do not fit.
    """
    return _stacked(adapter.modules, adapter.modules.__getitem__, base)


def _stacked(
    modules: Mapping[str, PeftModule | Header],
    read: Callable[[str], PeftModule],
    base: Tree,
) -> Adapter:
    kernels = named.flatten(base)
    layers: dict[str, dict[int, str]] = {}
    text = {path: module for path, module in modules.items() if not _is_seen(path)}
    if not text:
        raise ValueError(
            f"The adapter adapts {min(modules)!r} and nothing else than parts that see "
            f"or hear, expected a module of the language model."
        )
    for path, module in text.items():
        if module.embedding:
            raise _outside(path)
        site, layer = _place(path, kernels)
        if layer in layers.setdefault(site, {}):
            raise ValueError(f"The adapter holds layer {layer} of {site!r} twice.")
        layers[site][layer] = path
    # The modules of one site are read at a time.
    return named.unflatten(
        {
            site: _site(layers[site], read, kernels[site].shape)
            for site in sorted(layers)
        }
    )


def left_out(folder: Path | str) -> Iterator[str]:
    """Says which modules of an adapter :func:`load` leaves out.

    Args:
      folder: of an adapter that can be loaded.
    """
    paths = [path for path in peft.open_folder(Path(folder)).modules if _is_seen(path)]
    if paths:
        yield (
            f"{folder} adapts {len(paths)} modules of parts that see or hear, such as "
            f"{paths[0]}; they are left out, as only the language model runs here."
        )


def _is_seen(path: str) -> bool:
    return module_names.is_seen(module_names.canonical(path))


def _site(paths: Mapping[int, str], read: Callable[[str], PeftModule], kernel):
    modules = {layer: read(path) for layer, path in paths.items()}
    for layer, path in paths.items():
        _check_shapes(path, modules[layer], kernel)
    return jax.block_until_ready(_stack(modules, kernel))  # else copies wait


def _place(path: str, kernels: Mapping[str, Any]) -> tuple[str, int]:
    last = path.rpartition(".")[2]
    if last in ("lm_head", "embed_tokens"):
        raise _outside(path)
    place = names.site(path)
    if place is None or place.name not in kernels:
        have = [name for name in kernels if name.endswith("_proj/kernel")]
        theirs = [
            names.KERNELS.get(name.removesuffix("/kernel"), name) for name in have
        ]
        raise ValueError(
            f"The adapter adapts {path!r}, which the base lacks; each layer of it has "
            f"{', '.join(theirs)}. The adapter is for another model."
        )
    layers, *mlps = kernels[place.name].shape[:-2]
    if place.layer >= layers:
        raise ValueError(
            f"The adapter adapts {path!r}, but the base has {layers} layers, 0 to "
            f"{layers - 1}. The adapter is for another model."
        )
    if place.mlp is None:
        return place.name, place.layer
    if place.mlp >= mlps[0]:
        raise ValueError(
            f"The adapter adapts {path!r}, but a layer of the base has {mlps[0]} MLPs, "
            f"0 to {mlps[0] - 1}. The adapter is for another model."
        )
    # The MLPs of all layers in a row; _stack gives them their axes back.
    return place.name, place.layer * mlps[0] + place.mlp


def _outside(path: str) -> ValueError:
    return ValueError(
        f"The adapter adapts {path!r}; adapters of the embedding or the head are not "
        f"supported in a decoder, only of linear layers within its layers."
    )


def _check_shapes(path: str, module: PeftModule, kernel: tuple[int, ...]) -> None:
    got = (module.a.shape[1], module.b.shape[0])
    if got != kernel[-2:]:
        raise ValueError(
            f"The adapter's update of {path!r} is from {got[0]} to {got[1]} features, "
            f"expected {kernel[-2]} to {kernel[-1]} by the base. The adapter is for "
            f"another model."
        )


def _stack(layers: Mapping[int, PeftModule], kernel: tuple[int, ...]) -> LoraWeight:
    *lead, d, f = kernel
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
    shaped = (x.reshape(*lead, *x.shape[1:]) for x in (a, b, scale))
    return LoraWeight(*map(jnp.asarray, shaped))


def save(
    folder: Path | str,
    adapter: Adapter,
    *,
    base_name: str | None = None,
    config: DecoderConfig | None = None,
) -> None:
    """Writes an adapter that PEFT loads to the same update.

    Args:
      folder: new, or empty.
      adapter: one adapter of a decoder; sites are [L, ...].
      base_name: name or folder of the model that it is for, as PEFT will look for it.
      config: of the decoder; by default modules have the names of most families.

    Raises:
      ValueError: if the folder holds something, the adapter is zero everywhere, it is a
        library, or a site of it has no place in a Hugging Face model.
    """
    written = to_peft(adapter, base_name=base_name, config=config)
    targets = _targets(adapter, written, config)
    peft_out.write(Path(folder), written, targets=targets)


def check(
    folder: Path | str, adapter: Adapter, config: DecoderConfig | None = None
) -> None:
    """Reads an adapter that was written, and compares it bit by bit.

    Args:
      folder: that :func:`save` wrote.
      adapter: what must be in it.
      config: as it was given to :func:`save`.

    Raises:
      ValueError: if it cannot be read, or is another one.
    """
    stored = peft.read(Path(folder)).modules
    wanted = to_peft(adapter, config=config).modules
    same = stored.keys() == wanted.keys() and all(
        np.array_equal(stored[path].a, module.a)
        and np.array_equal(stored[path].b, module.b)
        and np.isclose(stored[path].scale, module.scale, rtol=1e-6)
        for path, module in wanted.items()
    )
    if not same:
        raise ValueError(
            f"{folder} holds another adapter than the one that was trained, which is "
            f"not written over it; remove the folder, and run the same command again."
        )


def to_peft(
    adapter: Adapter,
    *,
    base_name: str | None = None,
    config: DecoderConfig | None = None,
) -> PeftAdapter:
    """Unstacks the layers of each site.

    Raises:
      ValueError: if a site is not [L, ...] or has no place in a Hugging Face model.
    """
    modules = {}
    for site, weight in lora.sites(adapter).items():
        if weight.a.ndim != 3 and not (config and weight.a.ndim == 4):
            raise ValueError(
                f"Site {site!r} has a of shape {tuple(weight.a.shape)}, expected "
                f"[L, D, R]; write the adapters of a library one by one, with "
                f"lora.unstack."
            )
        a, b, scale = (np.asarray(x) for x in (weight.a, weight.b, weight.scale))
        for index in np.ndindex(a.shape[:-2]):
            rank = peft_out.used(a[index], b[index])
            if rank:
                modules[names.module(site, index, config)] = PeftModule(
                    np.ascontiguousarray(a[index][:, :rank].T),
                    np.ascontiguousarray(b[index][:rank].T),
                    float(scale[index]),
                )
    return PeftAdapter(modules=modules, base_name=base_name)


def _targets(
    adapter: Adapter, written: PeftAdapter, config: DecoderConfig | None
) -> set[str]:
    """Short names of modules adapted in every layer, full names of all others."""
    targets = set()
    for site, weight in lora.sites(adapter).items():
        every = np.ndindex(weight.a.shape[:-2])
        paths = {names.module(site, index, config) for index in every}
        here = paths & set(written.modules)
        targets |= {names.short(site, config)} if here == paths else here
    return targets
