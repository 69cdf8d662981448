"""``library.json``: which experts a library has, and where they come from.

What is read is a stranger's: every field is checked (:mod:`.library_entries`), and so
are the tensors of each file that is opened.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlora.io import tensors, trust
from jaxlora.io.errors import naming
from jaxlora.io.header import Entry as Shape
from jaxlora.io.library_entries import Entries, Entry, Origin

INDEX = "library.json"
"""The name of the file."""

VERSION = 2
"""Of the format, with a hash of what it says; the first, without, is read as well."""


def dumps(entries: Entries) -> str:
    """Returns the text of library.json.

    Args:
      entries: the experts, in order.
    """
    experts = [dataclasses.asdict(entry) for entry in entries.experts]
    fields = {"version": VERSION, "base": entries.base, "experts": experts}
    sealed = fields | {"sha256": trust.json_hash(fields)}
    return json.dumps(sealed, indent=2, allow_nan=False) + "\n"


def read(folder: Path) -> Entries:
    """Reads and checks library.json.

    Args:
      folder: of the library.

    Raises:
      ValueError: naming the file, the field, what it holds and what was expected.
    """
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {INDEX}, expected a library; jaxlora.io.library writes "
            f"one, and adapters of PEFT are read by jaxlora.io.collection."
        )
    raw = tensors.read_json(path)
    with naming(path):
        return _entries(raw)


def check_tensors(path: Path, entry: Entry, stored: Mapping[str, Shape]) -> None:
    """Refuses a file whose tensors are not those of the entry.

    Args:
      path: the file.
      entry: what library.json says of it.
      stored: what its header says.

    Raises:
      ValueError: naming file, tensor, what was found and what was expected.
    """
    expected = {
        f"{site}/{part}" for site in entry.ranks for part in ("a", "b", "scale")
    }
    # Neither may be missing: a tensor too many could be what another reader uses.
    if odd := sorted(expected ^ stored.keys()):
        state = "lacks" if odd[0] in expected else "has"
        raise ValueError(
            f"{path} {state} the tensor {odd[0]!r}, unlike what {INDEX} says of "
            f"{entry.name!r}."
        )
    for site, rank in entry.ranks.items():
        a, b, scale = (stored[f"{site}/{part}"].shape for part in ("a", "b", "scale"))
        fits = len(a) == len(b) >= 2 and a[:-2] == b[:-2] == scale
        if not fits or a[-1] != rank or b[-2] != rank or not all(a + b):
            raise ValueError(
                f"{path} has a, b, scale of {site!r} with the shapes {a}, {b}, "
                f"{scale}, expected [..., D, {rank}], [..., {rank}, F], [...]: {INDEX} "
                f"gives it the rank {rank}."
            )
        for part in ("a", "b", "scale"):
            tensors.check_dtype(f"{site}/{part}", stored[f"{site}/{part}"])


def _entries(raw: Mapping[str, Any]) -> Entries:
    # True == 1 in Python.
    if type(raw.get("version")) is not int or not 1 <= raw["version"] <= VERSION:
        raise ValueError(
            f"it has the version {str(raw.get('version'))[:40]}, expected {VERSION}; "
            f"it is no library, or of another release of jaxlora."
        )
    experts = raw.get("experts")
    if not isinstance(experts, list) or any(not isinstance(e, dict) for e in experts):
        raise ValueError("experts is no list of objects.")
    empty = Entries(base=raw.get("base"), experts=())
    entries: dict[str, Entry] = {}
    for i, fields in enumerate(experts):
        try:
            entry = _entry(fields)
        except ValueError as error:
            raise ValueError(f"expert {i}: {error}") from None
        name = entry.name
        if entries.setdefault(name, entry) is not entry:
            raise ValueError(f"it lists the expert {name!r} twice, expected once.")
    _check_hash(raw)
    return dataclasses.replace(empty, experts=tuple(entries.values()))


def _check_hash(raw: Mapping[str, Any]) -> None:
    fields = {name: value for name, value in raw.items() if name != "sha256"}
    sealed = raw["version"] > 1 or "sha256" in raw
    if sealed and raw.get("sha256") != trust.json_hash(fields):
        raise ValueError(
            "its sha256 is not that of what it says: it was changed or damaged since "
            "it was written."
        )


def _entry(fields: Mapping[str, Any]) -> Entry:
    origin = fields.get("origin")
    if origin is not None and not isinstance(origin, dict):
        raise ValueError(f"origin is {tensors.short(origin)}, expected an object.")
    known = {field.name for field in dataclasses.fields(Origin)}
    parts = {key: origin[key] for key in known & origin.keys()} if origin else {}
    given: dict[str, Any] = {
        key: fields.get(key) for key in ("name", "file", "sha256", "ranks")
    }
    return Entry(**given, origin=Origin(**parts))
