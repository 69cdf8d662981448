"""PEFT adapters as a library, and an adapter as a PEFT folder, without the base.

Nothing is known of the model, so sites are told by names: modules whose paths differ
only in their numbers and whose shapes are equal, such as
``model.layers.*.self_attn.q_proj``, stacked on L in the order of the numbers. Ranks are
padded with zeros to the largest of the site, and a module that an adapter lacks is zero
with scale 1. The values of one site are read at a time.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from jaxlora.io import collection_sites, peft, peft_out
from jaxlora.io.collection_sites import Module
from jaxlora.io.library_arrays import padded
from jaxlora.io.peft import PeftAdapter, PeftFile, PeftModule
from jaxlora.lora import Adapter, LoraWeight
from jaxlora.names import check_several

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (sites read, sites in all)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collection:
    """Adapters of one base, read from their folders."""

    library: dict[str, LoraWeight]
    """By site: a [E, L, D, R], b [E, L, R, F], scale [E, L]."""
    modules: dict[str, tuple[str, ...]]
    """By site: the module path of each of the L."""
    names: tuple[str, ...]
    """Of the E adapters, each once."""
    ranks: dict[str, np.ndarray]
    """By site: ranks without padding, int [E, L]; 0 where an adapter lacks one."""
    base_names: tuple[str | None, ...]
    """What each adapter says of its base. They may differ by the spelling of a folder;
    shapes that differ are an error, names that differ are for the caller to report."""
    targets: tuple[str, ...] | None
    """Short names that together mean exactly the modules of the collection, if the
    adapters list such names."""
    embeddings: frozenset[str]
    """Sites of embeddings; D is V there, and F is D."""
    copies: tuple[str, ...]
    """Modules whose base weight some adapter holds a copy of, which was not read."""

    @property
    def base_name(self) -> str | None:
        """The first that is given."""
        return next((name for name in self.base_names if name), None)

    def adapter(self, expert: int) -> Adapter:
        """Returns one adapter of the library, padding kept.

        Args:
          expert: its number, from 0.
        """
        return {
            site: LoraWeight(weight.a[expert], weight.b[expert], weight.scale[expert])
            for site, weight in self.library.items()
        }


def read(
    folders: Sequence[Path | str],
    *,
    names: Sequence[str] | None = None,
    progress: Progress = lambda *_: None,
) -> Collection:
    """Reads adapters into one library.

    Args:
      folders: each holds adapter_config.json and adapter_model.safetensors.
      names: of the adapters, by default those of their folders.
      progress: called with (sites read, sites in all).

    Returns:
      Factors in their stored type where all of a site have the same one, else float32.

    Raises:
      ValueError: if there is no folder, a name is there twice, one of them is no
        readable adapter, or they are of different bases: a module has other features
        in or out, or is an embedding in one and a linear layer in another.
    """
    check_several("folders", folders)
    check_several("names", names)
    paths = [Path(folder) for folder in folders]
    chosen = _names(paths, names)
    # Headers of all adapters first: what does not fit is refused before values are
    # read.
    files = [peft.open_folder(path) for path in paths]
    known = collection_sites.union(files)
    sites = collection_sites.sites(known)
    library = {}
    for done, (site, modules) in enumerate(sites.items()):
        progress(done, len(sites))
        library[site] = _read_site(files, modules, known[modules[0]])
    progress(len(sites), len(sites))
    return Collection(
        library=library,
        modules=sites,
        names=chosen,
        ranks={site: _ranks(files, modules) for site, modules in sites.items()},
        base_names=tuple(file.base_name for file in files),
        targets=_targets(files, known),
        embeddings=frozenset(
            site for site, paths in sites.items() if known[paths[0]].embedding
        ),
        copies=tuple(sorted({path for file in files for path in file.copies})),
    )


def write(folder: Path | str, adapter: Adapter, like: Collection) -> None:
    """Writes an adapter as a PEFT folder whose every scale is 1 (alpha = rank).

    Scales of the adapter are multiplied into ``b``. Trailing ranks that are zero in
    both factors are cut off, and a module in which nothing is left is not written;
    ranks that differ are named in ``rank_pattern``.

    Args:
      folder: new, or empty.
      adapter: LoraWeights [L, D, R] by site, of the sites of ``like``.
      like: says which module is which.

    Raises:
      ValueError: if the folder holds something, the adapter is zero everywhere or not
        finite, or its sites or shapes are not those of ``like``.
    """
    modules: dict[str, PeftModule] = {}
    for site, weight in adapter.items():
        modules |= _unstack(site, weight, like)
    every = {path for paths in like.modules.values() for path in paths}
    # Short names would also adapt the modules that are left out here.
    short = like.targets is not None and every == modules.keys()
    written = PeftAdapter(modules=modules, base_name=like.base_name)
    peft_out.write(Path(folder), written, targets=like.targets if short else None)


def _names(paths: Sequence[Path], names: Sequence[str] | None) -> tuple[str, ...]:
    if not paths:
        raise ValueError("There is no adapter to read, expected at least one folder.")
    chosen = [path.resolve().name for path in paths] if names is None else list(names)
    if len(chosen) != len(paths):
        raise ValueError(
            f"There are {len(chosen)} names for {len(paths)} adapters, expected one "
            f"for each."
        )
    for i, name in enumerate(chosen):
        # Names go into tables, file names and error messages.
        if not name or not name.isprintable():
            raise ValueError(f"The name {name!r} of {paths[i]} is no line of text.")
        if name in chosen[:i]:
            raise ValueError(
                f"Two adapters are called {name!r}: {paths[chosen.index(name)]} and "
                f"{paths[i]}; give each its own name, or leave one out."
            )
    return tuple(chosen)


def _ranks(files: Sequence[PeftFile], paths: Sequence[str]) -> np.ndarray:
    ranks = np.zeros((len(files), len(paths)), int)
    for e, file in enumerate(files):
        for i, path in enumerate(paths):
            ranks[e, i] = file.modules[path].rank if path in file.modules else 0
    return ranks


def _read_site(
    files: Sequence[PeftFile], paths: Sequence[str], known: Module
) -> LoraWeight:
    """Fills the arrays of one site; beside them one module is in memory."""
    places = [
        ((e, i), file, path)
        for e, file in enumerate(files)
        for i, path in enumerate(paths)
        if path in file.modules
    ]
    headers = [file.modules[path] for _, file, path in places]
    dtypes = {header.dtype for header in headers}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
    sizes = (known.d, max(header.rank for header in headers), known.f)
    modules = ((place, file.read(path)) for place, file, path in places)
    # PEFT stores factors as [out, in].
    parts = ((place, part.a.T, part.b.T, part.scale) for place, part in modules)
    return padded((len(files), len(paths)), sizes, dtype, parts)


def _targets(files: Sequence[PeftFile], known: Mapping[str, Module]):
    """The union of the adapters' lists, if each means the modules that it should."""
    lists = [file.targets for file in files]
    # One adapter without such a list, and nothing is known of what names mean.
    if any(targets is None for targets in lists):
        return None
    union = {name for targets in lists if targets is not None for name in targets}
    used = {name for name in union if any(_means(name, path) for path in known)}
    return tuple(sorted(used)) or None


def _means(name: str, path: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _unstack(site: str, weight: LoraWeight, like: Collection) -> dict[str, PeftModule]:
    _check_site(site, weight, like)
    a, b, scale = (np.asarray(x) for x in (weight.a, weight.b, weight.scale))
    modules = {}
    for i, path in enumerate(like.modules[site]):
        pair = _scaled(a[i], b[i], scale[i])
        if not all(np.isfinite(x.astype(np.float32)).all() for x in pair):
            raise ValueError(f"The adapter holds NaN or infinity in {path!r}.")
        # Padding of the library is no rank of the adapter.
        rank = peft_out.used(*pair)
        if rank:
            down, up = (
                np.ascontiguousarray(x) for x in (pair[0].T[:rank], pair[1].T[:, :rank])
            )
            modules[path] = PeftModule(down, up, 1.0, site in like.embeddings)
    return modules


def _check_site(site: str, weight: LoraWeight, like: Collection) -> None:
    if site not in like.modules:
        raise ValueError(
            f"The adapter has a site {site!r}, expected one of "
            f"{', '.join(map(repr, list(like.modules)[:8]))}."
        )
    layers, r = len(like.modules[site]), weight.rank
    d, f = like.library[site].a.shape[-2], like.library[site].b.shape[-1]
    shapes = weight.a.shape, weight.b.shape, weight.scale.shape
    expected = (layers, d, r), (layers, r, f), (layers,)
    if shapes != expected:
        raise ValueError(
            f"Site {site!r} has a, b, scale of shapes {shapes}, expected {expected}."
        )


def _scaled(a: np.ndarray, b: np.ndarray, scale: np.ndarray):
    # Multiplied by 1 the factors would still become float32.
    if scale == 1:
        return a, b
    with np.errstate(over="ignore"):  # infinity is an error later, with its module
        return a, b.astype(np.float32) * scale.astype(np.float32)
