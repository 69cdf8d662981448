"""What we wrote is what we read: a SHA-256 and a key with everything that comes back.

A folder has a manifest with the hash of every file; a JSON file begins with the hash of
all that follows. Both hold the key of their entry, and the hash is over the key too, so
that a file that was swapped with that of another entry is as bad as a flipped bit. This
is against damage, not against somebody who computes a hash anew.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jaxlora.io.errors import PathError
from jaxlora.strangers import data

MANIFEST = "manifest.json"
"""Name of the file that lists all others of a folder."""
BRIEF = 2**16
"""Bytes in which a manifest says whose it is."""
MOST = 2**28
"""Bytes that are read of a file; no longer one was written by us."""


class DamagedError(PathError):
    """A file is not the one that was written."""


def say(sentence: str) -> None:
    """Tells the user of damage that costs only time, in one line.

    Args:
      sentence: what is damaged, and what is done about it.
    """
    print(f"jaxlora: {sentence}", file=sys.stderr)


def seal(folder: Path, key: str) -> None:
    """Writes the manifest of a folder.

    Args:
      folder: complete, and to be forced to the disk by ``files.new_folder``.
      key: of the entry.
    """
    names = _files(folder)
    with ThreadPoolExecutor() as pool:
        paths = (folder / name for name in names)
        hashes = dict(zip(names, pool.map(file_hash, paths), strict=True))
    (folder / MANIFEST).write_bytes(dumps(hashes, key).encode())


def check(folder: Path, key: str) -> None:
    """Refuses a folder of which a file is not what was written.

    Args:
      folder: that :func:`seal` sealed.
      key: of the entry that it must be.

    Raises:
      DamagedError: naming the file.
    """
    wanted = {folder / x: y for x, y in loads(folder / MANIFEST, key).items()}
    for path in wanted:
        if not path.is_file() or path.is_symlink():
            raise DamagedError(path, f"{path} is missing, or no file any more")
    # Hashing holds no lock of Python: files are hashed side by side.
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(file_hash, wanted))
    for path, sha256 in zip(wanted, hashes, strict=True):
        if sha256 != wanted[path]:
            raise DamagedError(
                path, f"{path} has another SHA-256 than {MANIFEST} gives it"
            )


def check_sealed(folder: Path, key: str) -> None:
    """As :func:`check`, of a folder that others may have written: if it is sealed.

    Args:
      folder: with or without a manifest; that of another program is not looked at.
      key: of the entry.

    Raises:
      DamagedError: naming the file, and what to do with it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return
    with path.open("rb") as file:
        ours = file.read(BRIEF).startswith(_head(key).encode())
    if ours:
        try:
            check(folder, key)
        except DamagedError as error:
            raise DamagedError(
                error.path,
                f"{error}: changed or damaged since it was written; restore it, or "
                f"remove {path} to use the folder as it is.",
            ) from None


def dumps(content: Any, key: str) -> str:
    """Returns content as JSON with its hash, for :func:`loads`.

    Args:
      content: JSON-able.
      key: of the entry.
    """
    return wrap(json.dumps(content), key)


def wrap(text: str, key: str) -> str:
    """As :func:`dumps`, of content that is JSON already.

    Args:
      text: the content.
      key: of the entry.
    """
    sha256 = hashlib.sha256(f"{key}\n{text}".encode()).hexdigest()
    return f'{_head(key)}"{sha256}",\n"content": {text}}}\n'


def loads(path: Path, key: str) -> Any:
    """Reads a file with the text of :func:`dumps`.

    Args:
      path: the file.
      key: of the entry that it must be.

    Raises:
      DamagedError: if it is missing, or any byte of it is another one.
    """
    if not path.is_file():  # to open a pipe would take forever
        raise DamagedError(path, f"{path} is missing, or no file any more")
    with path.open("rb") as file:  # as text, Python would mend line ends
        content = file.read(min(MOST, path.stat().st_size))
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise DamagedError(path, f"{path} is no text in UTF-8") from None
    inner = text.partition('\n"content": ')[2][:-2]
    if text != wrap(inner, key):
        raise DamagedError(
            path, f"{path} is not what was written: changed, or of another entry"
        )
    return data.loads(inner, finite=False, containers=2**23)


def json_hash(fields: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of the values of a JSON object, in whatever layout.

    Args:
      fields: JSON-able; no ``sha256`` among them.

    >>> json_hash({"a": 1, "b": [2]}) == json_hash({"b": (2,), "a": 1})
    True
    """
    text = json.dumps(fields, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def folders_hash(folders: Iterable[Path | str]) -> str:
    """SHA-256, in hex, of names and bytes of all files that lie in folders.

    Args:
      folders: of a checkpoint and its adapters; where they lie does not count.
    """
    places = [sorted(Path(folder).glob("*")) for folder in folders]
    hashes = [[[x.name, file_hash(x)] for x in some if x.is_file()] for some in places]
    return json_hash({"folders": hashes})


def check_json(path: Path, fields: Mapping[str, Any]) -> None:
    """Refuses a JSON object that is not what its ``sha256`` says.

    Args:
      path: of the file, for the message.
      fields: that it holds.

    Raises:
      DamagedError: naming the file.
    """
    rest = {name: value for name, value in fields.items() if name != "sha256"}
    if fields.get("sha256") != json_hash(rest):
        raise DamagedError(
            path,
            f"{path} has another sha256 than it says: it was changed or damaged since "
            f"it was written; restore it, or take sha256 out to use it as it is.",
        )


def check_bytes(path: Path, content: bytes, sha256: str) -> None:
    """Refuses content that has another hash.

    Args:
      path: of the file, for the message.
      content: that it holds.
      sha256: that it must have, in hex.

    Raises:
      DamagedError: naming the file.
    """
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedError(
            path,
            f"{path} has another SHA-256 than when it was written: it was changed or "
            f"damaged; restore it, or run the study again.",
        )


def file_hash(path: Path) -> str:
    """SHA-256, in hex, of a file.

    Args:
      path: the file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _head(key: str) -> str:
    """What a text of ours begins with, up to its hash."""
    return f'{{"key": {json.dumps(key)}, "sha256": '


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return sorted(name for name in names if name != MANIFEST)
