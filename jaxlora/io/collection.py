"""PEFT adapters as a library, without the base.

Nothing is known of the model, so sites are told by names: modules whose paths differ
only in their numbers and whose shapes are equal, such as
``model.layers.*.self_attn.q_proj``, stacked on L in the order of the numbers. Ranks are
padded with zeros to the largest of the site, and a module that an adapter lacks is zero
with scale 1. The values of one site are read at a time; :mod:`collection_out` writes an
adapter back.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.io import collection_beside, collection_sites, peft
from jaxlora.io.collection_base import GAIN, Base, on_base
from jaxlora.io.collection_biases import BIAS, with_biases
from jaxlora.io.collection_sites import Module
from jaxlora.io.collection_stored import Stored
from jaxlora.io.peft import PeftFile
from jaxlora.lora import Adapter, LoraWeight
from jaxlora.names import check_several

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (sites read, sites in all)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collection:
    """Adapters of one base, read from their folders."""

    library: Mapping[str, LoraWeight]
    """By site: a [E, L, D, R], b [E, L, R, F], scale [E, L]; in memory, or read anew
    whenever a site is asked for."""
    shapes: Mapping[str, LoraWeight]
    """By site: shapes and types of these arrays."""
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
    files: tuple[PeftFile, ...]
    """The adapters as they were opened, with what they have beside updates."""
    parameters: frozenset[str] = frozenset()
    """Modules that are bare parameters of the model, or slices of one."""
    base: Base | None = None
    """That the adapters were trained on, if their updates are asked for on it."""
    spellings: tuple[str, ...] = ()
    """What the adapters put around the layers of the model; several, if they name its
    modules differently, which have one name each here."""

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
      ValueError: as :func:`open_folders`, or a value is NaN or infinite.
    """
    opened = open_folders(folders, names=names)
    library = {}
    for done, site in enumerate(opened.library):
        progress(done, len(opened.library))
        site_arrays = jax.tree.map(jnp.asarray, opened.library[site])
        library[site] = jax.block_until_ready(site_arrays)  # else copies wait
    progress(len(library), len(library))
    return dataclasses.replace(opened, library=library)


def open_folders(
    folders: Sequence[Path | str],
    *,
    names: Sequence[str] | None = None,
    base: Path | str | None = None,
) -> Collection:
    """As :func:`read`, but the values of a site are read when it is asked for.

    Args:
      folders: each holds adapter_config.json and adapter_model.safetensors.
      names: of the adapters, by default those of their folders.
      base: a checkpoint of their base, on which updates of DoRA, PiSSA and OLoRA are
        known (:mod:`jaxlora.io.collection_base`); by default there is none.

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
    opened = [peft.open_folder(path) for path in paths]
    on = None if base is None else Base(base)
    if on is None:
        collection_beside.check_starts(opened)
    else:
        opened = [on_base(file, on) for file in opened]
    files = collection_sites.alike([*map(with_biases, opened)])
    known = collection_sites.union(files)
    stored = Stored(files, collection_sites.sites(known))
    return Collection(
        library=stored,
        shapes=stored.shapes(),
        modules=dict(stored.modules),
        names=chosen,
        ranks={site: stored.ranks(site) for site in stored},
        base_names=tuple(file.base_name for file in files),
        targets=_targets(files, known),
        embeddings=frozenset(
            site for site, paths in stored.modules.items() if known[paths[0]].embedding
        ),
        copies=tuple(sorted({path for file in files for path in file.copies})),
        spellings=collection_sites.spellings(opened),
        files=files,
        parameters=collection_sites.parameters(files),
        base=on,
    )


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


def _targets(files: Sequence[PeftFile], known: Mapping[str, Module]):
    """The union of the adapters' lists, if each means the modules that it should."""
    lists = [file.targets for file in files]
    # One adapter without such a list, and nothing is known of what names mean.
    if any(targets is None for targets in lists):
        return None
    union = {name for targets in lists if targets is not None for name in targets}
    used = {name for name in union if any(_means(name, path) for path in known)}
    # Full names mean nothing once modules are named as in another adapter.
    if not all(any(_means(name, path) for name in used) for path in known):
        return None
    return tuple(sorted(used))


def _means(name: str, path: str) -> bool:
    path = path.removesuffix(BIAS).removesuffix(GAIN)
    return path == name or path.endswith(f".{name}")
