"""Where a command writes: refused before hours of work, if it could not."""

import errno
import os
import tempfile
from pathlib import Path


def check_out(*paths: Path | None) -> None:
    """Refuses files that could not be written; leaves no trace.

    Args:
      *paths: of the files; None is no file.

    Raises:
      ValueError: if one is a folder, or a part of its path is a file.
      OSError: if its folder is not writable.
    """
    for path in filter(None, paths):
        if path.is_dir():
            raise ValueError(
                f"{path} is a folder, expected the name of a file to write."
            )
        _check_writable(path)


def check_new_file(path: Path) -> None:
    """As :func:`check_out`, for a file that must be new."""
    check_out(path)
    if path.exists():
        raise ValueError(
            f"{path} exists already and is not overwritten; give another --out, or "
            f"remove it first."
        )


def check_new_folder(folder: Path) -> None:
    """As :func:`check_out`, for a folder, which must be new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder} exists already and is not overwritten; give the name of a new "
            f"folder, or remove it first."
        )
    _check_writable(folder)


def _check_writable(path: Path) -> None:
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ValueError(
            f"Cannot write {path}: {folder} is a file, expected a folder to write into."
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        code = error.errno or errno.EACCES
        raise OSError(code, os.strerror(code), str(folder)) from None
