"""Headers of GGUF files, read as what a stranger wrote.

A file is a magic word, a version, counts, metadata (typed keys and values), a table of
tensors, and their bytes, each at a multiple of an alignment. Each of these may be a
lie: nothing is allocated for what the file does not hold. (The ``gguf`` library's own
reader trusts the counts; it is used for values, in :mod:`.values`.)

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import dataclasses
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jaxlora.io.errors import PathError

MAGIC = b"GGUF"
SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4",
    7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
"""NumPy's types of the scalar types, by their numbers."""
STRING, ARRAY = 8, 9
MOST = {"keys": 4096, "tensors": 100_000, "entries": 4_000_000, "text": 2**24}
"""What no model has more of: metadata, tensors, entries of arrays, bytes of a text."""
_MAX_AXES = 4

Metadata: TypeAlias = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Block:
    """What a header says of one tensor."""

    shape: tuple[int, ...]
    """Sizes, the slowest first, as NumPy and PyTorch say them."""
    kind: int
    """Number of its type of quantisation."""
    start: int
    """Where its bytes begin in the file."""


@dataclasses.dataclass(frozen=True)
class Header:
    """Metadata and tensors of one file."""

    path: Path
    """The file."""
    metadata: Metadata
    """Values by key: numbers, texts, arrays (lists of texts, or NumPy)."""
    blocks: Mapping[str, Block]
    """Tensors by name."""


class _Cursor:
    """A place in a file's bytes, which only moves on, and never beyond their end."""

    def __init__(self, data: mmap.mmap, path: Path):
        self.data, self.path, self.at = data, path, 0
        self.entries = 0

    def take(self, size: int, what: str) -> bytes:
        """Returns the next bytes."""
        left = len(self.data) - self.at
        if size > left:
            raise bad(self.path, f"{what} takes {size} bytes, where {left} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str, what: str) -> Any:
        """Returns the next scalar, by struct's code."""
        return struct.unpack(f"<{code}", self.take(struct.calcsize(code), what))[0]

    def count(self, what: str) -> int:
        """Returns the next count, if a file can have as many."""
        count = self.number("Q", f"the number of {what}")
        if count > MOST[what]:
            raise bad(
                self.path,
                f"it says it has {count} {what}, expected at most {MOST[what]}",
            )
        return count

    def text(self, what: str) -> str:
        """Returns the next string."""
        size = self.number("Q", f"the length of {what}")
        if size > MOST["text"]:
            raise bad(self.path, f"{what} says it has {size} bytes")
        try:
            return self.take(size, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise bad(self.path, f"{what} is not UTF-8 ({error.reason})") from None


def read(path: Path) -> Header:
    """Reads and checks a header; no tensor is read.

    Args:
      path: a GGUF file of version 2 or 3, little endian.

    Raises:
      ValueError: if the file is no GGUF file, is cut short, or its header lies.
    """
    if not path.is_file():
        raise PathError(path, f"There is no file {str(path)!r}, expected a GGUF file.")
    if path.stat().st_size < len(MAGIC):
        raise bad(path, f"it has {path.stat().st_size} bytes")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        return _read(_Cursor(data, path))


def _read(cursor: _Cursor) -> Header:
    _check_version(cursor)
    tensors, keys = cursor.count("tensors"), cursor.count("keys")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        name = _name(cursor, "a key")
        if name in metadata:
            raise bad(cursor.path, f"the key {name!r} is there twice")
        metadata[name] = _value(cursor, cursor.number("I", "a type"), name)
    table: dict[str, Block] = {}
    for _ in range(tensors):
        name = _name(cursor, "a tensor's name")
        if name in table:
            raise bad(cursor.path, f"tensor {name!r} is there twice")
        table[name] = _block(cursor, name)
    data = _aligned(cursor, metadata)
    placed = {
        name: dataclasses.replace(block, start=data + block.start)
        for name, block in table.items()
    }
    return Header(cursor.path, metadata, placed)


def _check_version(cursor: _Cursor) -> None:
    magic = cursor.take(4, "the magic word")
    if magic != MAGIC:
        raise bad(cursor.path, f"it begins with {magic!r}, expected {MAGIC!r}")
    version = cursor.number("I", "the version")
    if version not in (2, 3):
        # Of a file of the other byte order, the lower half would be zero.
        other = " (a big-endian file?)" if version and not version & 0xFFFF else ""
        raise bad(cursor.path, f"its version is {version}{other}, expected 2 or 3")


def _name(cursor: _Cursor, what: str) -> str:
    name = cursor.text(what)
    # Names are printed in errors, where control characters would act on a terminal.
    if not name.isprintable() or not 0 < len(name) <= 1000:
        raise bad(cursor.path, f"{what}, {name[:40]!r}, is no printable name")
    return name


def _value(cursor: _Cursor, kind: int, name: str) -> Any:
    if kind == STRING:
        return cursor.text(name)
    if kind == ARRAY:
        return _array(cursor, name)
    if kind not in SCALARS:
        raise bad(
            cursor.path, f"the key {name!r} has the type {kind}, which is unknown"
        )
    dtype = np.dtype(SCALARS[kind])
    return np.frombuffer(cursor.take(dtype.itemsize, name), dtype)[0].item()


def _array(cursor: _Cursor, name: str) -> Any:
    kind = cursor.number("I", f"the type of {name}")
    count = cursor.count("entries")
    cursor.entries += count
    # In all, and not of each: 4,096 arrays may stand in one file.
    if cursor.entries > 2 * MOST["entries"]:
        raise bad(cursor.path, f"its arrays hold more than any model's, at {name!r}")
    if kind == STRING:
        return [cursor.text(name) for _ in range(count)]
    if kind not in SCALARS:
        raise bad(cursor.path, f"the array {name!r} has entries of type {kind}")
    dtype = np.dtype(SCALARS[kind])
    return np.frombuffer(cursor.take(count * dtype.itemsize, name), dtype)


def _block(cursor: _Cursor, name: str) -> Block:
    axes = cursor.number("I", f"the rank of {name}")
    if axes > _MAX_AXES:
        raise bad(cursor.path, f"tensor {name!r} has {axes} axes, expected at most 4")
    sizes = [cursor.number("Q", f"a size of {name}") for _ in range(axes)]
    if any(not 0 < size < 2**40 for size in sizes):
        raise bad(cursor.path, f"tensor {name!r} has the sizes {sizes}")
    kind = cursor.number("I", f"the type of {name}")
    start = cursor.number("Q", f"the place of {name}")
    return Block(tuple(reversed(sizes)), kind, start)


def _aligned(cursor: _Cursor, metadata: Metadata) -> int:
    step = metadata.get("general.alignment", 32)
    if type(step) is not int or not 1 <= step <= 2**16 or step & (step - 1):
        raise bad(cursor.path, f"general.alignment is {step!r:.40}")
    return -(-cursor.at // step) * step


def bad(path: Path, what: str) -> PathError:
    """Returns the error of a file that is no sound GGUF file.

    Args:
      path: the file.
      what: is wrong with it.
    """
    return PathError(
        path,
        f"{path} is not a readable GGUF file: {what}; it is damaged or cut short: "
        f"fetch it again.",
    )
