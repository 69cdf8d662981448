"""The file of one expert in a library: written, opened, checked."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxlora import files
from jaxlora.io import library_arrays, library_json, shards, tensors
from jaxlora.io.library_entries import Entry, Origin, check_site
from jaxlora.io.library_json import INDEX
from jaxlora.io.tensors import Tensors
from jaxlora.io.trust import file_hash
from jaxlora.lora import LoraWeight


def write(
    folder: Path, sites: Mapping[str, LoraWeight], name: str, origin: Origin
) -> Entry:
    """Writes an expert's file, which nothing refers to yet.

    Args:
      folder: of the library.
      sites: LoraWeights [..., D, R] by site.
      name: of the expert.
      origin: where it comes from.

    Returns:
      What library.json shall say of it.

    Raises:
      ValueError: if shapes do not fit together, or a value is not finite.
    """
    arrays: dict[str, np.ndarray] = {}
    for site, weight in sites.items():
        check_site(site)
        arrays |= library_arrays.arrays(name, site, weight)
    headers = {key: shards.entry_of(values) for key, values in arrays.items()}
    # A folder of its own until the content is known, which gives the file its name.
    with files.scratch(folder) as scratch:
        shards.write_file(scratch / "expert", headers, arrays.__getitem__)
        sha256 = file_hash(scratch / "expert")
        # Named by content: a file that is there already is the same file.
        path = folder / f"expert-{sha256[:16]}.safetensors"
        (scratch / "expert").replace(path)
        files.sync(folder)
    ranks = {site: arrays[f"{site}/a"].shape[-1] for site in sites}
    return Entry(name=name, file=path.name, sha256=sha256, ranks=ranks, origin=origin)


def check_fit(folder: Path, sites: Mapping[str, LoraWeight], entry: Entry) -> None:
    """Refuses a new expert that does not fit beside another one.

    Args:
      folder: of the library.
      sites: LoraWeights of the new expert by site.
      entry: the other one.

    Raises:
      ValueError: naming the site whose layers or features differ.
    """
    stored = open_file(folder, entry, values=False)
    for site in entry.ranks.keys() & sites.keys():
        a, b = (stored.entries[f"{site}/{part}"].shape for part in "ab")
        got = (*sites[site].a.shape[:-1], sites[site].b.shape[-1])
        if got != (*a[:-1], b[-1]):
            raise ValueError(
                f"Site {site!r} is {list(got)}, expected {[*a[:-1], b[-1]]}, as in the "
                f"expert {entry.name!r} of {folder}: layers, features in, features out."
            )


def open_file(folder: Path, entry: Entry, *, values: bool = True) -> Tensors:
    """Opens and checks an expert's file.

    Args:
      folder: of the library.
      entry: what library.json says of it.
      values: check the hash of the whole file as well?

    Raises:
      ValueError: if the file is absent, a link, another one or damaged.
    """
    path = folder / entry.file
    # A link could point anywhere on the disk of whoever reads the library.
    if path.is_symlink() or not path.is_file():
        raise ValueError(
            f"Library {folder} lacks the file {entry.file!r} of the expert "
            f"{entry.name!r}, or it is a link; restore it, or remove the expert."
        )
    if values and (sha256 := file_hash(path)) != entry.sha256:
        raise ValueError(
            f"{path} of the expert {entry.name!r} has the SHA-256 {sha256}, expected "
            f"{entry.sha256} by {INDEX}: it was changed or damaged."
        )
    stored = tensors.open_file(path)
    library_json.check_tensors(path, entry, stored.entries)
    return stored
