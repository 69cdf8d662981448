"""Writing a file or a folder whole or not at all: everything we write goes this way.

It is written under a random name beside its place, forced to the disk and renamed. The
writer keeps what it writes locked, so that :func:`sweep` can tell what a killed process
left from what is being written now.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from jaxlora import locks

# Random, and not the process: ids are used again, and differ between hosts.
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Gives a temporary file beside ``path``, which becomes ``path`` if all goes well.

    If anything fails (no room on the disk, say), an older file stays as it was and the
    temporary file is removed.

    Args:
      path: the file; its folder is made if it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, descriptor = _locked(path.parent, _new_file)
    try:
        # Closed after the rename: until then nobody may take it for a dead one's.
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)  # or a power cut could leave an empty file
            if not locks.KNOWN:
                file.close()  # Windows renames no open file
            temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder beside ``folder``, which becomes it if all goes well.

    Args:
      folder: absent, or empty; folders above it are made if they are missing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch(folder.parent) as temporary:
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            sync(path)
        if folder.is_dir():
            folder.rmdir()
        temporary.rename(folder)
        sync(folder.parent)


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Gives an empty folder within ``folder`` for the time of a block.

    Args:
      folder: exists.
    """
    temporary, descriptor = _locked(folder, _new_folder)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(descriptor)


def write_whole(path: Path, data: bytes) -> Path:
    """Writes a file whole or not at all, as :func:`opened`; returns ``path``.

    Args:
      path: the file; its folder is made if it is missing.
      data: the content.
    """
    with opened(path) as file:
        file.write(data)
    return path


def write_text(path: Path, text: str) -> Path:
    """Writes text as UTF-8, whole or not at all; returns ``path``.

    Args:
      path: the file; its folder is made if it is missing.
      text: the content.
    """
    return write_whole(path, text.encode())


def remove(folder: Path) -> None:
    """Removes a folder so that no moment shows a part of it; absent is fine.

    Args:
      folder: the folder; of a link, what it leads to stays.
    """
    temporary = folder.with_name(_name())
    with contextlib.suppress(FileNotFoundError):
        folder.rename(temporary)
        if temporary.is_dir() and not temporary.is_symlink():
            shutil.rmtree(temporary)
        else:
            temporary.unlink()


def sweep(folder: Path) -> None:
    """Removes the temporary files and folders that dead processes left in a folder.

    Args:
      folder: where they wrote; it need not exist.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in list(folder.iterdir()):
            if _TEMPORARY.fullmatch(path.name):
                _remove_dead(path)


def sync(path: Path) -> None:
    """Forces a file, or the names in a folder, to the disk.

    Args:
      path: of it.
    """
    if os.name == "nt" and path.is_dir():  # Windows opens no folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name() -> str:
    return f".{secrets.token_hex(8)}.tmp"


def _locked(folder: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """A new file or folder that is locked while its descriptor is open."""
    while True:
        path = folder / _name()
        descriptor = make(path)
        # Swept in the moment between the two: take another name.
        if not locks.lock(descriptor, wait=True) or locks.is_at(descriptor, path):
            return path, descriptor
        os.close(descriptor)


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _new_folder(path: Path) -> int:
    path.mkdir()
    return os.open(path if locks.KNOWN else os.devnull, os.O_RDONLY)


def _remove_dead(path: Path) -> None:
    with contextlib.suppress(OSError):  # another one sweeps, or it is not ours
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if locks.lock(descriptor, wait=False):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        finally:
            os.close(descriptor)
