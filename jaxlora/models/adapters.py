"""PEFT adapters as :class:`LoraWeight` trees, and back.

PEFT keeps one pair of factors for each layer; a tree keeps one site for all layers,
stacked on L. Ranks that differ over the layers are padded with zeros to the largest. A
layer that has no factors while others of its site have gets zeros, with scale 1. On the
way back trailing ranks that are zero in both factors are cut off again, and a layer in
which nothing is left is not written.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.io import module_names, peft, peft_out
from jaxlora.io.peft import Header, PeftAdapter, PeftFile, PeftModule
from jaxlora.lora import Adapter, LoraWeight
from jaxlora.models import adapter_modules, adapter_sites, names, sites
from jaxlora.models.config import DecoderConfig
from jaxlora.models.sites import EMBEDDING, HEAD
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
    _check_alone([*file.replaced, *file.rows])
    return from_file(file, base)


def from_file(file: PeftFile, base: Tree) -> Adapter:
    """Reads the updates of an opened adapter, and nothing that it replaces.

    Args:
      file: the adapter.
      base: params tree of a decoder, with what the adapter replaces replaced.

    Raises:
      ValueError: as :func:`load`.
    """
    adapter = _stacked(file.modules, file.read, base)
    return _with_tied_head(adapter) if file.tied and HEAD not in base else adapter


def from_peft(adapter: PeftAdapter, base: Tree) -> Adapter:
    """Stacks the modules of each site.

    Raises:
      ValueError: naming a module that the base lacks, or whose shapes do not fit.
    """
    _check_alone([*adapter.replaced, *adapter.rows])
    return _stacked(adapter.modules, adapter.modules.__getitem__, base)


def _with_tied_head(adapter: Adapter) -> Adapter:
    """Updates a tied head as the table, which it is."""
    flat = lora.sites(adapter)
    table = flat.get(EMBEDDING)
    if table is None or HEAD in flat:
        return adapter
    head = LoraWeight(table.b.T, table.a.T, table.scale)
    return named.unflatten(dict(sorted((flat | {HEAD: head}).items())))


def _check_alone(replaced: list[str]) -> None:
    if replaced:
        raise ValueError(
            f"The adapter replaces {replaced[0]!r} of its base, which is no update of "
            f"it; jaxlora.reuse.load reads base and adapter together."
        )


def _stacked(
    modules: Mapping[str, PeftModule | Header],
    read: Callable[[str], PeftModule],
    base: Tree,
) -> Adapter:
    leaves = named.flatten(base)
    text = {path: module for path, module in modules.items() if not _is_seen(path)}
    if not text:
        raise ValueError(
            f"The adapter adapts {min(modules)!r} and nothing else than parts that see "
            f"or hear, expected a module of the language model."
        )
    text, read = adapter_sites.unfused(text, read, leaves)
    layers: dict[str, dict[int | None, str]] = {}
    for path, module in text.items():
        site, layer = adapter_sites.place(path, module, leaves)
        if layer in layers.setdefault(site, {}):
            raise ValueError(f"The adapter holds layer {layer} of {site!r} twice.")
        layers[site][layer] = path
    weights: dict[str, LoraWeight] = {}
    for site in sorted(layers):  # the modules of one site are read at a time
        weights |= adapter_sites.weights(site, layers[site], read, leaves)
    return named.unflatten(dict(sorted(weights.items())))


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


def save(
    folder: Path | str,
    adapter: Adapter,
    *,
    base_name: str | None = None,
    config: DecoderConfig | None = None,
    base: Tree | None = None,
) -> None:
    """Writes an adapter that PEFT loads to the same update.

    Args:
      folder: new, or empty.
      adapter: one adapter of a decoder; sites are [L, ...].
      base_name: name or folder of the model that it is for, as PEFT will look for it.
      config: of the decoder; by default modules have the names of most families.
      base: params of that model, for an adapter with gains (DoRA).

    Raises:
      ValueError: if the folder holds something, the adapter is zero everywhere, it is a
        library, or a site of it has no place in a Hugging Face model.
    """
    written = to_peft(adapter, base_name=base_name, config=config, base=base)
    targets = _targets(adapter, written, config)
    peft_out.write(Path(folder), written, targets=targets)


def check(
    folder: Path | str,
    adapter: Adapter,
    config: DecoderConfig | None = None,
    base: Tree | None = None,
) -> None:
    """Reads an adapter that was written, and compares it: factors bit by bit.

    Args:
      folder: that :func:`save` wrote.
      adapter: what must be in it.
      config: as it was given to :func:`save`.
      base: as it was given to :func:`save`.

    Raises:
      ValueError: if it cannot be read, or is another one.
    """
    stored = peft.read(Path(folder)).modules
    wanted = to_peft(adapter, config=config, base=base).modules
    same = stored.keys() == wanted.keys() and all(
        np.array_equal(stored[path].a, module.a)
        and np.array_equal(stored[path].b, module.b)
        and np.isclose(stored[path].scale, module.scale, rtol=1e-6)
        and _close(stored[path].magnitude, module.magnitude)
        and _close(stored[path].bias, module.bias)
        for path, module in wanted.items()
    )
    if not same:
        raise ValueError(
            f"{folder} holds another adapter than the one that was trained, which is "
            f"not written over it; remove the folder, and run the same command again."
        )


def _close(stored: np.ndarray | None, wanted: np.ndarray | None) -> bool:
    if stored is None or wanted is None:
        return stored is wanted
    return np.allclose(stored, wanted, rtol=1e-5, atol=1e-7)


def to_peft(
    adapter: Adapter,
    *,
    base_name: str | None = None,
    config: DecoderConfig | None = None,
    base: Tree | None = None,
) -> PeftAdapter:
    """Unstacks the layers of each site.

    Args:
      adapter: one adapter of a decoder.
      base_name: of the model that it is for.
      config: of the decoder; by default modules have the names of most families.
      base: its params, which a gain (DoRA) needs: PEFT stores norms, not factors.

    Raises:
      ValueError: if a site is not [L, ...] or has no place in a Hugging Face model,
        there is a gain and no base, or some modules have a magnitude and others none.
    """
    flat, paths = lora.sites(adapter), adapter_sites.outside_paths(config)
    modules: dict[str, PeftModule] = {}
    for site, weight in flat.items():
        if sites.is_beside(site):
            continue
        parts = (sites.beside(site, part) for part in (sites.GAIN, sites.BIAS))
        least = int(any(x in flat for x in parts))
        if site in paths:
            given = site, weight, paths[site], least
            modules |= adapter_modules.outside_module(*given)
        else:
            modules |= _layers(site, weight, config, least)
    for site, weight in flat.items():
        if sites.is_beside(site):
            adapter_modules.add_beside(modules, site, weight, (config, base))
    modules = adapter_modules.everywhere(modules)
    return PeftAdapter(modules=dict(sorted(modules.items())), base_name=base_name)


def _layers(
    site: str, weight: LoraWeight, config: DecoderConfig | None, least: int
) -> dict[str, PeftModule]:
    """The module of each layer, without ranks that are zero in both factors.

    Those of which fewer than ``least`` are left keep so many.
    """
    if weight.a.ndim != 3 and not (config and weight.a.ndim == 4):
        raise ValueError(
            f"Site {site!r} has a of shape {tuple(weight.a.shape)}, expected "
            f"[L, D, R]; write the adapters of a library one by one, with "
            f"lora.unstack."
        )
    modules = {}
    a, b, scale = (np.asarray(x) for x in (weight.a, weight.b, weight.scale))
    for index in np.ndindex(a.shape[:-2]):
        rank = max(least, peft_out.used(a[index], b[index]))
        if rank:
            modules[names.module(site, index, config)] = PeftModule(
                np.ascontiguousarray(a[index][:, :rank].T),
                np.ascontiguousarray(b[index][:rank].T),
                float(scale[index]),
            )
    return modules


def _targets(
    adapter: Adapter, written: PeftAdapter, config: DecoderConfig | None
) -> set[str]:
    """Ends of the names of modules adapted in every layer, full names of all others."""
    targets: set[str] = set()
    outside = adapter_sites.outside_paths(config)
    for site, weight in lora.sites(adapter).items():
        if sites.is_beside(site):
            continue
        if site in outside:
            targets |= {outside[site]} & set(written.modules)
            continue
        places, end = [*np.ndindex(weight.a.shape[:-2])], names.short(site, config)
        paths = {
            names.module(other, index, config)
            for other in names.alike(site, config)
            for index in places
        }
        here, ends = paths & set(written.modules), {end.format(*x[1:]) for x in places}
        targets |= ends if here == paths else here
    return targets
