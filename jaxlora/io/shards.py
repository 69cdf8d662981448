"""Safetensors written: one tensor in memory at a time, a folder whole or not at all.

The other half of :mod:`jaxlora.io.tensors`.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jaxlora import files as storage
from jaxlora.io.header import DTYPES, Entry

Read: TypeAlias = Callable[[str], np.ndarray]

MAX_SHARD_BYTES = 5 * 10**9
"""Bytes of one file, unless a caller wants smaller ones."""


def shards(sizes: Mapping[str, int], max_bytes: int) -> list[tuple[str, list[str]]]:
    """Returns (file name, tensors) of each shard, filled in the given order.

    Args:
      sizes: bytes of each tensor.
      max_bytes: of one file; a larger tensor has a file of its own.

    >>> shards({"a": 6, "b": 3, "c": 3}, 7)[1]
    ('model-00002-of-00002.safetensors', ['b', 'c'])
    """
    files: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        # In the given order, so that layers stay together and a reader can stream them.
        if not files or size > room:
            files.append([])
            room = max_bytes
        files[-1].append(name)
        room -= size
    if len(files) == 1:
        return [("model.safetensors", files[0])]
    n = len(files)
    return [
        (f"model-{i:05d}-of-{n:05d}.safetensors", names)
        for i, names in enumerate(files, 1)
    ]


def write_folder(
    folder: Path,
    entries: Mapping[str, Entry],
    read: Read,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a checkpoint into ``folder``, one tensor in memory at a time.

    Args:
      folder: exists; :func:`new_folder` gives one that appears when it is complete.
      entries: what will be written, in this order.
      read: gives the values of a tensor when its turn comes.
      max_shard_bytes: values per file at most; a larger tensor has a file of its own.
    """
    sizes = {name: entry.nbytes for name, entry in entries.items()}
    files = shards(sizes, max_shard_bytes)
    for file, names in files:
        write_file(folder / file, {name: entries[name] for name in names}, read)
    if len(files) > 1:
        places = {name: file for file, names in files for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        storage.write_text(folder / "model.safetensors.index.json", text)


def order(entries: Mapping[str, Entry], max_shard_bytes: int) -> Iterator[str]:
    """The names of tensors in the order in which :func:`write_folder` asks for them.

    Args:
      entries: what is written.
      max_shard_bytes: as there.
    """
    sizes = {name: entry.nbytes for name, entry in entries.items()}
    for _, names in shards(sizes, max_shard_bytes):
        yield from _order({name: entries[name] for name in names})


def _order(entries: Mapping[str, Entry]) -> list[str]:
    # Readers map the file into memory, where a value must lie at a multiple of its
    # size.
    return sorted(entries, key=lambda name: -entries[name].bits)


def write_file(path: Path, entries: Mapping[str, Entry], read: Read) -> None:
    """Writes one safetensors file, tensor by tensor.

    The layout is a length (8 bytes, little endian), a JSON header padded with spaces to
    a multiple of 8, and the values; wider types come first, so that all are aligned.

    Args:
      path: the file.
      entries: shape and type of each tensor.
      read: gives the values of a tensor when its turn comes; of a type that is none
        of weights, its bytes as uint8.
    """
    names = _order(entries)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in names:
        entry, end = entries[name], at + entries[name].nbytes
        header[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    # Padded, so that the values after the header are aligned as well.
    text += b" " * (-len(text) % 8)
    with storage.opened(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(_bytes(name, read(name), entries[name]).data)


def _bytes(name: str, values: np.ndarray, entry: Entry) -> np.ndarray:
    """What is written of a tensor, uint8."""
    if entry.dtype not in DTYPES:
        assert (values.dtype, values.size) == (np.uint8, entry.nbytes), name
        return values
    values = np.asarray(values, DTYPES[entry.dtype], order="C")
    assert values.shape == entry.shape, name
    return values.reshape(-1).view(np.uint8)


def entry_of(values: Any) -> Entry:
    """Returns what a header says of an array.

    Args:
      values: of NumPy or JAX, or anything with a shape and a dtype.

    Raises:
      ValueError: if its type is not in :data:`DTYPES`.
    """
    for name, dtype in DTYPES.items():
        if values.dtype == dtype:
            return Entry(tuple(values.shape), name)
    raise ValueError(
        f"Cannot write weights of type {values.dtype}, expected float32, bfloat16 or "
        f"float16."
    )


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder beside ``folder`` that becomes it if all goes well.

    Args:
      folder: absent, or empty.

    Raises:
      ValueError: if ``folder`` is a file or holds something already.
    """
    # Nothing of the user is overwritten, whatever the name.
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder} exists already and is not overwritten; give the name of a new "
            f"folder, or remove it first."
        )
    with storage.new_folder(folder) as new:
        yield new
