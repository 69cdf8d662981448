"""Headers of safetensors files, read as what a stranger wrote.

A file is a length N (8 bytes, little endian), N bytes of JSON that give each tensor a
dtype, a shape and where its bytes lie, and those bytes, without gaps. Each of these may
be a lie: nothing is allocated for what the file does not hold, and an error names file,
tensor, what was found and what was expected.

https://github.com/huggingface/safetensors#format
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxlora.io.errors import PathError
from jaxlora.strangers import data

DTYPES: Mapping[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
"""Types of weights, as they are in memory and are written."""
READ = frozenset((*DTYPES, "F64"))
"""Types of weights that are read; 64 bits become 32."""
_NUMPY = {
    **DTYPES,
    "F64": np.dtype(np.float64),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "BOOL": np.dtype(np.bool_),
}
_ALIGNED = 64

HEADER_BYTES = 2**23
"""A header larger than this is none: it would name 60,000 tensors."""

_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
_CONTAINERS = 2**18  # of which a tensor has three; each is an object in memory
_MAX_AXES = 8
_MAX_NAME = 1000
_PAGE = "a page of the web, as a failed download leaves it; fetch it again"
_OTHERS = {
    b"version https://git-lfs": "a placeholder of Git LFS, and not the file; `git lfs "
    "pull` fetches it",
    **dict.fromkeys((b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML"), _PAGE),
    b"GGUF": "a file of GGUF; `jaxlora import` reads models in that format",
    b"PK\x03\x04": "a zip file, as torch.save writes pickles; save it as safetensors",
}
"""What other files begin with, and what they are. Read as the length of a header, each
of these is longer than any header may be."""
_ADVICE = (
    "it is damaged or cut short, or the download left a placeholder; fetch it again"
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a header says of one tensor."""

    shape: tuple[int, ...]
    """Sizes."""
    dtype: str
    """As safetensors spells it: F32, BF16, ..."""
    start: int = dataclasses.field(default=0, compare=False)
    """Where its bytes begin in the file."""

    @property
    def nbytes(self) -> int:
        """Bytes of the values in the file."""
        return math.prod(self.shape) * _BITS[self.dtype] // 8

    @property
    def bits(self) -> int:
        """Of one value."""
        return _BITS[self.dtype]


def read(path: Path) -> dict[str, Entry]:
    """Reads and checks a header; no tensor is read.

    Args:
      path: a safetensors file.

    Returns:
      Shape, type and place of each tensor, by its name.

    Raises:
      ValueError: if the file is no safetensors file, or is not whole.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if not size:
            raise bad(path, "it is empty")
        first = file.read(32)
        for start, what in _OTHERS.items():
            if first.startswith(start):
                raise PathError(path, f"{path} is no safetensors file: it is {what}.")
        length = int.from_bytes(first[:8], "little")
        file.seek(8)
        # Before reading: a length of 2**60 would be allocated.
        most = min(HEADER_BYTES, size - 8)
        if not 2 <= length <= most:
            raise bad(
                path,
                f"its header says it has {length} bytes, expected 2 to {max(most, 2)} "
                f"in a file of {size} bytes",
            )
        text = file.read(length)
    entries = {
        name: _entry(path, name, fields, 8 + length)
        for name, fields in _tensors(path, text).items()
    }
    _check_places(path, entries, 8 + length, size)
    return entries


def _check_places(path: Path, entries: Mapping[str, Entry], end: int, size: int):
    """Tensors must follow each other without gap or overlap, up to the file's end."""
    # Sorted by place, each tensor must begin where the one before it ends.
    for name, entry in sorted(entries.items(), key=_place):
        if entry.start != end:
            raise bad(
                path,
                f"tensor {name!r} begins at byte {entry.start}, expected {end}, where "
                f"the one before it ends",
            )
        end += entry.nbytes
    if end != size:
        raise bad(path, f"its tensors end at byte {end}, but the file has {size} bytes")


def values(path: Path, entry: Entry) -> np.ndarray:
    """Reads one tensor, of a type that NumPy has.

    Args:
      path: a safetensors file.
      entry: of the tensor.

    Raises:
      ValueError: if the file changed since its header was read.
    """
    return raw(path, entry).view(_NUMPY[entry.dtype]).reshape(entry.shape)


def raw(path: Path, entry: Entry) -> np.ndarray:
    """Reads the bytes of one tensor of any type, uint8.

    Args:
      path: a safetensors file.
      entry: of the tensor.

    Raises:
      ValueError: if the file changed since its header was read.
    """
    # Read and not mapped: mapped pages would be in memory beside the copy of them.
    values = _aligned(entry.nbytes)
    with path.open("rb") as file:
        file.seek(entry.start)
        count = file.readinto(values.data)
    if count != entry.nbytes:
        raise bad(path, "it is shorter than its header says")
    return values


def _aligned(size: int) -> np.ndarray:
    """Bytes that begin where JAX takes an array over without a copy."""
    room = np.empty(size + _ALIGNED, np.uint8)
    start = -room.ctypes.data % _ALIGNED
    return room[start : start + size]


def bad(path: Path, what: str) -> ValueError:
    """Returns the error of a file that is no whole safetensors file.

    Args:
      path: the file.
      what: is wrong with it.
    """
    return PathError(
        path, f"{path} is not a readable safetensors file: {what}: {_ADVICE}."
    )


def _tensors(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = data.loads(text.decode("utf-8"), containers=_CONTAINERS)
    except ValueError as error:
        raise bad(path, f"its header is no JSON in UTF-8 ({error})") from None
    if not isinstance(header, dict):
        raise bad(path, f"its header is a {type(header).__name__}, expected an object")
    metadata = header.pop("__metadata__", {})
    texts = metadata.values() if isinstance(metadata, dict) else [None]
    if any(not isinstance(text, str) for text in texts):
        raise bad(path, "its __metadata__ is no object of strings")
    return header


def _entry(path: Path, name: str, fields: Any, begin: int) -> Entry:
    shown = f"tensor {name[:200]!r}"
    # Names are printed in errors, where control characters would act on a terminal.
    if not name.isprintable() or len(name) > _MAX_NAME:
        raise bad(
            path, f"{shown} has no name of up to {_MAX_NAME} printable characters"
        )
    keys = ("dtype", "shape", "data_offsets")
    if not isinstance(fields, dict) or fields.keys() != set(keys):
        raise bad(path, f"{shown} has no dtype, shape and data_offsets, and only these")
    dtype, shape, offsets = (fields[key] for key in keys)
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise bad(path, f"{shown} has the dtype {str(dtype)[:40]!r}, which is unknown")
    if not _is_sizes(shape) or len(shape) > _MAX_AXES:
        raise bad(path, f"{shown} has no shape of up to {_MAX_AXES} whole numbers")
    if not _is_sizes(offsets) or len(offsets) != 2:
        raise bad(path, f"{shown} has no data_offsets of two whole numbers")
    entry = Entry(tuple(shape), dtype, begin + offsets[0])
    if offsets[1] - offsets[0] != entry.nbytes:
        raise bad(
            path,
            f"{shown} has the shape {entry.shape} of {dtype}, which is "
            f"{entry.nbytes} bytes, but data_offsets {offsets}",
        )
    return entry


def _place(pair: tuple[str, Entry]) -> tuple[int, int]:
    return pair[1].start, pair[1].nbytes


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        # JSON has true and 1e30; both would pass as an int or overflow later.
        type(size) is int and 0 <= size < 2**48
        for size in value
    )
