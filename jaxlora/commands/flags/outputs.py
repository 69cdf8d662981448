"""What a command writes: one rule, looked at before hours of work.

Nothing that exists is overwritten without ``--force``. With it, a file is replaced when
the new one is complete; a folder too, and only one in which everything is of the kind
that the command writes.
"""

import contextlib
import dataclasses
import errno
import fnmatch
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from jaxlora import locks
from jaxlora.commands import talk

Force = Annotated[
    tyro.conf.FlagCreatePairsOff[bool],
    tyro.conf.arg(help="Write over what exists; otherwise that is refused."),
]
Share = Annotated[
    str,
    tyro.conf.arg(
        metavar="I/N",
        help="Do every N-th independent cell only, from the I-th on (from 0), on one "
        "of N machines, each with an --out of its own; `jaxlora report` joins them.",
    ),
]


class Kind(NamedTuple):
    """A folder that a command writes, and by what it is recognized."""

    name: str
    marker: str
    """A file in each of them."""
    patterns: tuple[str, ...]
    """Of everything that may be in it."""


_PLAIN = ("*.json", "*.safetensors", "*.bin", "*.md", "*.jinja", "*.txt", "*.model")
_HIDDEN = (".gitattributes", ".checkpoint")
ADAPTER = Kind("adapter", "adapter_config.json", (*_PLAIN, *_HIDDEN))
CHECKPOINT = Kind("checkpoint", "config.json", (*_PLAIN, *_HIDDEN))
STUDY = Kind(
    "study",
    "study.json",
    (
        *("*.json", "*.csv", "*.md", "*.html", "*.png", "*.svg", "*.pdf"),
        *(
            "*.log",
            "*.txt",
            "*.tmp",
            "*.lock",
            "blocks",
            "groups",
            "cache",
            "tensorboard",
            "events.*",
        ),
    ),
)


WRITTEN = ("out", "figure", "table", "report")
"""Flags of what a command writes; its other paths are read."""


def check_apart(given: Any) -> None:
    """Refuses to write over what is read, with ``--force`` too.

    Args:
      given: the flags of a command.

    Raises:
      ValueError: naming the file or folder.
    """
    if not getattr(given, "force", False):
        return  # nothing that exists is written over
    read = {path.resolve() for path in _read(given)}
    for name in WRITTEN:
        path = getattr(given, name, None)
        if path is not None and path.resolve() in read:
            raise ValueError(
                f"--{name} is {path}, which is read too and is not overwritten, by "
                f"--force neither; give another name."
            )


def check_files(force: bool, *paths: Path | None) -> None:
    """Refuses files that exist, without force, or could not be written.

    Leaves no trace.

    Args:
      force: may they be written over?
      *paths: of the files; None is no file.

    Raises:
      ValueError: if one exists, is a folder, is given twice, or a part of its path is a
        file.
      OSError: if its folder is not writable.
    """
    if not talk.current().writes:
        return
    given = [path for path in paths if path is not None]
    for i, path in enumerate(given):
        if path.is_dir():
            raise ValueError(
                f"{path} is a folder, expected the name of a file to write."
            )
        if path.resolve() in [before.resolve() for before in given[:i]]:
            raise ValueError(
                f"{path} is given for two outputs, expected a name for each."
            )
        if path.exists() and not force:
            raise ValueError(
                f"{path} exists already and is not overwritten; give another name, or "
                f"--force to replace it."
            )
        _check_writable(path)


def check_folder(force: bool, folder: Path, kind: Kind) -> None:
    """As :func:`check_files`, for a folder; one that is empty counts as new.

    Args:
      force: may it be replaced?
      folder: will be written.
      kind: what it will be; nothing else is replaced.

    Raises:
      ValueError: if it exists, without force, or is not only of that kind.
      OSError: if it is not writable.
    """
    if holds(folder):
        odd = _foreign(folder, kind)
        if odd is not None:
            raise ValueError(
                f"{folder} exists already and is not overwritten, by --force neither: "
                f"it {odd}; give the name of a new folder."
            )
        if not force:
            raise ValueError(
                f"{folder} exists already and is not overwritten; give the name of a "
                f"new folder, or --force to replace the {kind.name} in it."
            )
    _check_writable(folder)


def holds(folder: Path) -> bool:
    """Whether something is in the way of a new folder: a file, or one with content."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def is_of(folder: Path, kind: Kind) -> bool:
    """Whether a folder is of a kind and holds nothing else, so that it may go.

    Args:
      folder: a study's, say.
      kind: its kind.
    """
    return _foreign(folder, kind) is None


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Gives the name of a new folder, which takes the place of ``folder`` at the end.

    If anything fails, an older folder stays as it was.

    Args:
      folder: passed :func:`check_folder`.
    """
    if not holds(folder):
        yield folder
        return
    folder = folder.resolve()  # a link stays a link
    new, old = (folder.with_name(f".{folder.name}.{x}.tmp") for x in ("new", "old"))
    for spare in (new, old):  # of a run that was killed
        shutil.rmtree(spare, ignore_errors=True)
    try:
        yield new
        folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def remove(folder: Path, kind: Kind) -> None:
    """Removes what a folder of a kind holds, but for the lock of who writes there.

    Args:
      folder: a study's, say.
      kind: its kind.

    Raises:
      ValueError: if it is none, or something else is in it.
    """
    odd = _foreign(folder, kind)
    if odd is not None:
        raise ValueError(
            f"{folder} is not overwritten, by --force neither: it {odd}; give the name "
            f"of a new folder."
        )
    for path in sorted(folder.iterdir(), key=lambda path: path.name == kind.marker):
        if path.name == locks.NAME:
            continue  # the next writer would hold another one, beside ours
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _read(given: Any) -> Iterator[Path]:
    """Paths of all flags but those of what is written."""
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        if dataclasses.is_dataclass(value):
            yield from _read(value)
        elif field.name not in WRITTEN:
            several = value if isinstance(value, tuple) else (value,)
            kinds = (Path, str) if field.name == "data" else Path
            yield from (Path(x) for x in several if isinstance(x, kinds))


def _foreign(folder: Path, kind: Kind) -> str | None:
    """What in a folder is not of its kind, in words."""
    if not folder.is_dir():
        return "is a file"
    if not (folder / kind.marker).is_file():
        return f"holds no {kind.name}"
    for path in sorted(folder.iterdir()):
        if not any(fnmatch.fnmatch(path.name, pattern) for pattern in kind.patterns):
            return f"holds {path.name!r}, which no {kind.name} has"
    return None


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
