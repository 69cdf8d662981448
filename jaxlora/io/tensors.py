"""Safetensors: a folder of named tensors, read one at a time.

A checkpoint in the Hugging Face layout is ``model.safetensors``, or several shards with
``model.safetensors.index.json`` that says which shard holds which tensor. Opening reads
headers only; a tensor is read when it is asked for, and the file is closed again.
Pickles (``.bin``, ``.pt``) are never opened: they can run code.
"""

import dataclasses
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlora.io import header
from jaxlora.io.errors import PathError
from jaxlora.io.header import DTYPES as DTYPES
from jaxlora.io.header import READ, Entry
from jaxlora.strangers import data

_QUANTISED = frozenset(
    (
        *("U8", "I8", "I32", "U32", "F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3"),
        *("F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
    )
)
"""Types that hold packed or scaled weights."""
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
INDEX_BYTES = 200 * 2**20
"""An index larger than this is no index."""


@dataclasses.dataclass(frozen=True)
class Tensors:
    """Named tensors in one or more files."""

    files: Mapping[str, Path]
    """The file of each tensor."""
    entries: Mapping[str, Entry]
    """Shape and type of each tensor."""

    def read(self, name: str, *, finite: bool = False) -> np.ndarray:
        """Returns one tensor, in its stored type; of 64 bits, in float32.

        Args:
          name: a key of ``entries``.
          finite: check the values as well.

        Raises:
          ValueError: if its type is no float of 16 to 64 bits, or ``finite`` and it
            holds NaN or infinity.
        """
        check_dtype(name, self.entries[name])
        values = header.values(self.files[name], self.entries[name])
        if values.dtype == np.float64:
            with np.errstate(over="ignore"):  # infinity is looked for where it matters
                values = values.astype(np.float32)
        # NumPy cannot test bfloat16 for NaN; float32 holds all its values.
        if finite and not np.isfinite(values.astype(np.float32, copy=False)).all():
            raise PathError(
                self.files[name],
                f"Tensor {name!r} of {self.files[name]} holds NaN or infinity: the "
                f"training that wrote it diverged, or overflowed in float16.",
            )
        return values


def check_dtype(name: str, entry: Entry) -> None:
    """Refuses a tensor that is not stored as plain floats.

    Args:
      name: of the tensor.
      entry: what its header says.

    Raises:
      ValueError: naming the tensor and its type.
    """
    if entry.dtype in READ:
        return
    why = "quantised checkpoints are not supported; take the unquantised one"
    if entry.dtype not in _QUANTISED:
        why = "that is no type of weights"
    raise ValueError(
        f"Tensor {name!r} is stored as {entry.dtype}, expected F32, BF16, F16 or F64: "
        f"{why}."
    )


def open_file(path: Path) -> Tensors:
    """Reads the header of one file.

    Args:
      path: a safetensors file.

    Raises:
      ValueError: if it is damaged, cut short, or no safetensors file.
    """
    entries = header.read(path)
    return Tensors(dict.fromkeys(entries, path), entries)


def open_folder(folder: Path) -> Tensors:
    """Reads the headers of a checkpoint, of one file or of many with an index.

    Args:
      folder: with model.safetensors, or its shards and their index; of both the single
        file counts, as in transformers, and :func:`notes` says so.

    Raises:
      ValueError: if there is no checkpoint of this kind, a shard is missing or damaged,
        or a shard lacks a tensor that the index promises.
    """
    if not folder.is_dir():
        raise ValueError(
            f"There is no folder {str(folder)!r}, expected a checkpoint: config.json "
            f"and {SINGLE}."
        )
    if (folder / SINGLE).is_file():
        return open_file(folder / SINGLE)
    if (folder / INDEX).is_file():
        return open_shards(folder / INDEX)
    shards = sorted(path.name for path in folder.glob("model-*-of-*.safetensors"))
    if shards:
        raise ValueError(
            f"{folder} has shards ({', '.join(shards[:3])}) but no {INDEX}, which says "
            f"what they hold; the download is incomplete."
        )
    raise ValueError(f"{folder} has no {SINGLE}" + _instead(folder))


def open_shards(index: Path) -> Tensors:
    """Reads the headers of several files.

    Args:
      index: says which tensor is in which of them.

    Raises:
      ValueError: if one is missing or damaged, or lacks a tensor that the index
        promises.
    """
    promised = _weight_map(index)
    shards = sorted(set(promised.values()))
    # Named all at once: a download that broke off often lacks several.
    missing = [name for name in shards if not (index.parent / name).is_file()]
    if missing:
        others = sorted(path.name for path in index.parent.glob("*.safetensors"))
        odd = [name for name in others if name not in shards]
        raise ValueError(
            f"{index.parent} lacks {len(missing)} of {len(shards)} shards that "
            f"{index.name} names: {', '.join(missing[:4])}; "
            + (
                f"there is {', '.join(odd[:4])}, which it does not name: it is the "
                f"index of other weights, or the folder was saved into twice."
                if odd
                else "the download is incomplete."
            )
        )
    opened = {name: open_file(index.parent / name) for name in shards}
    for tensor, shard in promised.items():
        if tensor not in opened[shard].entries:
            raise ValueError(
                f"{index.name} places tensor {tensor!r} in {shard}, which does not "
                f"hold it; index and shards are of different checkpoints."
            )
    return Tensors(
        {tensor: index.parent / shard for tensor, shard in promised.items()},
        {tensor: opened[shard].entries[tensor] for tensor, shard in promised.items()},
    )


def _weight_map(index: Path) -> dict[str, str]:
    read = read_json(index, limit=INDEX_BYTES)
    places = read.get("weight_map")
    plain = isinstance(places, dict) and all(
        # A shard must lie in the folder: "../x" is a path of somebody else.
        isinstance(shard, str) and Path(shard).name == shard and shard not in ("", "..")
        for shard in places.values()
    )
    if not plain or not places:
        raise ValueError(
            f"{index} has no weight_map from tensors to names of files in its folder; "
            f"it is damaged, or no index."
        )
    return places


def read_json(path: Path, *, limit: int = data.BYTES) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Args:
      path: the file.
      limit: bytes that it may have.

    Raises:
      ValueError: if there is no such file, or it does not hold one JSON object within
        the bounds of :mod:`jaxlora.strangers.data`.
    """
    if not path.is_file():
        raise PathError(path, f"There is no file {str(path)!r}.")
    try:
        read = data.read(path, most=limit, what=f"{path.name} as published")
    except ValueError as error:
        raise PathError(path, str(error)) from None
    if not isinstance(read, dict):
        raise PathError(
            path, f"{path} holds a {type(read).__name__}, expected an object."
        )
    return read


def short(value: Any) -> str:
    """What an error shows of a value that may be of any size.

    Args:
      value: anything, from a stranger's file say.

    >>> short([1] * 1000)
    '[1, 1, 1, 1, 1, 1, ...]'
    """
    cut = reprlib.Repr()
    # A value may be nested deeply, or be a megabyte of text.
    cut.maxlevel, cut.maxstring, cut.maxother = 3, 120, 120
    return cut.repr(value)


def _instead(folder: Path) -> str:
    files = sorted(file.name for file in folder.iterdir())
    if "adapter_config.json" in files:
        return ": it is an adapter, expected the model that it is for."
    pickles = [file for file in files if file.endswith((".bin", ".pt", ".pth"))]
    if pickles:
        return (
            f", only {', '.join(pickles[:3])}: pickles can run code and are not read; "
            f"save it as safetensors (save_pretrained does)."
        )
    return f"; it holds {', '.join(files[:6]) or 'nothing'}."
