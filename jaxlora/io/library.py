"""Our own library on disk: ``library.json`` and a safetensors file for each expert.

``library.json`` lists the experts in order, with the hash of each file and what made
it. An expert's file holds ``<site>/a`` [..., D, R], ``<site>/b`` [..., R, F] and
``<site>/scale`` [...]; ranks may differ between sites and experts and are padded with
zeros on reading, and a site that an expert lacks is zero with scale 1.

A file is named by its hash and never changed, and ``library.json`` is renamed into
place last: a killed process leaves the library as it was, and perhaps a file that
nothing refers to, which the next writer removes. Writers wait for each other.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from jaxlora import files, locks, lora, tree
from jaxlora.files import write_text
from jaxlora.io import library_arrays, library_files, library_json, shards
from jaxlora.io.library_entries import Entries as Entries
from jaxlora.io.library_entries import Entry as Entry
from jaxlora.io.library_entries import Origin as Origin
from jaxlora.io.library_json import INDEX as INDEX
from jaxlora.lora import Adapter, Library, LoraWeight
from jaxlora.names import check_several
from jaxlora.parallel import processes
from jaxlora.tree import Tree


def save(
    folder: Path | str,
    library: Library,
    names: Sequence[str],
    *,
    base: str | None = None,
    origins: Sequence[Origin] | None = None,
) -> Entries:
    """Writes a library.

    Args:
      folder: new, or empty.
      library: LoraWeights [E, ..., D, R]; padding of ranks is cut off.
      names: of the E experts, each once.
      base: identity of the base, for example :func:`base_identity`.
      origins: where each expert comes from.

    Raises:
      ValueError: if the folder holds something, the names do not fit, or a factor is
        not finite or no float of 16 or 32 bits.
    """
    check_several("names", names)
    experts = lora.num_experts(library)
    chosen = [Origin()] * experts if origins is None else list(origins)
    if len(names) != experts or len(chosen) != experts:
        raise ValueError(
            f"The library has {experts} experts, but {len(names)} names and "
            f"{len(chosen)} origins, expected as many of each."
        )
    saved = Entries(base=base, experts=())
    # The folder appears under its name only when every expert is in it.
    with shards.new_folder(Path(folder)) as new:
        for i, (name, origin) in enumerate(zip(names, chosen, strict=True)):
            adapter = {
                site: LoraWeight(weight.a[i], weight.b[i], weight.scale[i])
                for site, weight in lora.sites(library).items()
            }
            saved = saved.added(library_files.write(new, adapter, name, origin))
        write_text(new / INDEX, library_json.dumps(saved))
    return saved


def load(
    folder: Path | str,
    names: Sequence[str] | None = None,
    *,
    base: str | None = None,
) -> tuple[Library, Entries]:
    """Reads a library, or some experts of it in the order of ``names``.

    Args:
      folder: written by :func:`save`.
      names: of the experts to read, by default all.
      base: identity of the base that the library must be for.

    Returns:
      LoraWeights [E, ..., D, R] and what is known of the E experts. Factors have their
      stored type where the experts agree on it, else float32.

    Raises:
      ValueError: if the library is damaged, a file of it is not the one that was
        written, a name is unknown, or it is of another base.
    """
    folder = Path(folder)
    known = entries(folder).chosen(names)
    if base is not None and known.base != base:
        raise ValueError(
            f"Library {folder} is of the base {known.base!r}, expected {base!r}: its "
            f"experts were made on other weights."
        )
    if not known.experts:
        raise ValueError(f"Library {folder} has no expert to read.")
    # All files are opened and hashed before the first value is used.
    opened = [library_files.open_file(folder, entry) for entry in known.experts]
    sites = sorted({site for entry in known.experts for site in entry.ranks})
    experts = known.experts
    library = {x: library_arrays.stack(folder, x, experts, opened) for x in sites}
    return tree.unflatten(library), known


def entries(folder: Path | str) -> Entries:
    """Lists a library, without reading an expert.

    Args:
      folder: written by :func:`save`.

    Raises:
      ValueError: if there is no library, or its library.json is damaged.
    """
    return library_json.read(Path(folder))


def append(
    folder: Path | str,
    adapter: Adapter,
    name: str,
    *,
    base: str | None = None,
    origin: Origin | None = None,
) -> Entries:
    """Adds an expert to the end of a library.

    Args:
      folder: written by :func:`save`.
      adapter: LoraWeights [..., D, R]; trailing zero ranks are cut off.
      name: of the expert; a line of text that no other expert has.
      base: identity of the base it was made on; None is not compared.
      origin: where it comes from.

    Returns:
      All experts of the library, the new one last.

    Raises:
      ValueError: if the name is taken, the base is another one, or a site has other
        features in or out than in the library.
    """
    folder = Path(folder)
    with _alone(folder):
        return _append(folder, adapter, name, base, origin)


def _append(folder: Path, adapter: Adapter, name: str, base, origin) -> Entries:
    before = entries(folder)
    if base is not None and before.base != base:
        raise ValueError(
            f"Library {folder} is of the base {before.base!r}, but the expert {name!r} "
            f"of {base!r}; a library is of one base."
        )
    # The new expert must fit each of the others, since they may have different sites.
    for entry in before.experts:
        library_files.check_fit(folder, lora.sites(adapter), entry)
    before.check_new(name)
    entry = library_files.write(folder, lora.sites(adapter), name, origin or Origin())
    after = before.added(entry)
    _commit(folder, after)
    return after


def remove(folder: Path | str, name: str) -> Entries:
    """Takes an expert out of a library; the last one may go as well.

    Args:
      folder: written by :func:`save`.
      name: of the expert.

    Returns:
      The experts that are left.

    Raises:
      ValueError: if there is none of this name.
    """
    folder = Path(folder)
    with _alone(folder):
        after = entries(folder).without(name)
        _commit(folder, after)
    return after


def base_identity(params: Tree) -> str:
    """Returns a hash of names, shapes, types and values of a base.

    Args:
      params: the tree.

    >>> base_identity({"head": np.zeros((2, 2), np.float32)})[:8]
    'daa16806'
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(tree.flatten(params).items()):
        values = np.ascontiguousarray(processes.host(leaf))
        head = json.dumps([name, list(values.shape), values.dtype.name])
        # Name, shape and type are hashed too: equal bytes may be another parameter.
        digest.update(head.encode() + b"\n")
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _commit(folder: Path, after: Entries) -> None:
    # The index first: a file may be removed only once nothing refers to it.
    write_text(folder / INDEX, library_json.dumps(after))
    kept = {entry.file for entry in after.experts}
    files.sweep(folder)
    for path in folder.glob("expert-*.safetensors"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _alone(folder: Path) -> AbstractContextManager[None]:
    entries(folder)  # refused if it is no library, before a lock is left there
    return locks.held(folder / locks.NAME, folder, wait=True)
