"""Writing a file whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Gives a temporary file beside ``path``, which becomes ``path`` if all goes well.

    If anything fails (no room on the disk, say), an older file stays as it was and the
    temporary file is removed.

    Args:
      path: the file; its folder is made if it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is only atomic within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
