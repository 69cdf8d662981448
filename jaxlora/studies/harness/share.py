"""A part of a study's independent cells, so that many machines do one study.

Every machine runs the same study in a folder of its own and does its share; blocks
carry the key of the study, whoever made them, so that :func:`join` puts folders
together and the study goes on from there: it finds nothing left to do but to sum up.
"""

import dataclasses
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxlora import files, locks
from jaxlora.strangers import data
from jaxlora.studies.harness.config import flat

T = TypeVar("T")
MEASURED = ("known.json", "skills.json")
"""What a share measured before its first cell, which must not be measured again."""
CACHE = "cache"
"""Folder of bases and experts within the folder of a share."""


@dataclasses.dataclass(frozen=True)
class Share:
    """Every N-th cell of a study; by default all of them."""

    part: int = 0
    """From 0."""
    parts: int = 1

    @property
    def complete(self) -> bool:
        """Is it all of the study?"""
        return self.parts == 1

    def of(self, cells: Sequence[T]) -> list[T]:
        """The cells of this share.

        >>> Share(1, 3).of([4, 5, 6, 7, 8])
        [5, 8]
        """
        return list(cells)[self.part :: self.parts]


def read(text: str, cells: int) -> Share:
    """Reads a share as it is given: ``I/N``, I from 0.

    Args:
      text: empty for all of a study.
      cells: that the study has.

    Raises:
      ValueError: if it is no share, or one without a cell.

    >>> read("2/4", 8), read("", 8).complete
    (Share(part=2, parts=4), True)
    """
    if not text:
        return Share()
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise ValueError(
            f"--share is {text!r}, expected I/N with I from 0 to N - 1, such as 0/4 "
            f"for the first of four."
        )
    share = Share(int(match[1]), int(match[2]))
    if not share.of(range(cells)):
        raise ValueError(
            f"--share {text} is empty: the study has {cells} independent "
            f"cell{'s' * (cells != 1)} (a seed, or a seed and coverage); use at most "
            f"so many shares."
        )
    return share


def join(folders: Sequence[Path], out: Path, free: Sequence[str] = ()) -> None:
    """Puts the blocks, bases and experts of shares into one folder.

    Args:
      folders: of shares of one study.
      out: new, or of an earlier join; what it has already is kept.
      free: dotted fields of the config that may differ, as of ``Study``; those of the
        first share count.

    Raises:
      ValueError: if a folder is no study's, or shares are not of the same one, or
        what they measured of the base or of adapters differs.
    """
    ignored = {f"config.{name}" for name in free}
    first = _identity(folders[0])
    earlier = [out] if (out / "study.json").is_file() else []
    for folder in (*folders[1:], *earlier):
        other = _identity(folder)
        names = sorted((first.keys() | other.keys()) - ignored)
        differ = [name for name in names if first.get(name) != other.get(name)]
        if differ:
            more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
            raise ValueError(
                f"{folder} and {folders[0]} are no shares of one study: "
                f"{', '.join(differ[:3])}{more} differ; give all shares the same "
                f"flags, model and version of jaxlora."
            )
    for name in MEASURED:
        _check_equal([*folders, *earlier], name)
    for folder in folders:
        for path in _kept(folder):
            to = out / path.relative_to(folder)
            if not to.exists():
                _copy(path, to)


def _identity(folder: Path) -> dict[str, Any]:
    path = folder / "study.json"
    stored = data.read(path, what="what a run has written") if path.is_file() else None
    if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
        raise ValueError(
            f"{folder} holds no study.json of a study, expected the --out of a share."
        )
    return flat(stored)


def _check_equal(folders: Sequence[Path], name: str) -> None:
    """Refuses shares that measured, and so divided or chose, differently."""
    paths = [folder / name for folder in folders if (folder / name).is_file()]
    for path in paths[1:]:
        if path.read_bytes() != paths[0].read_bytes():
            raise ValueError(
                f"{path} and {paths[0]} differ: the shares measured differently, so "
                f"their cells are not of one study; run them on devices of one kind, "
                f"or give all of them the file of one."
            )


def _kept(folder: Path) -> Iterator[Path]:
    """Blocks and their like; entries of caches, which are folders of files, too."""
    names = {path.name for path in folder.iterdir() if path.is_dir()}
    names |= {name for name in MEASURED if (folder / name).is_file()}
    for name in sorted(names - {"tensorboard"} | {"study.json"}):
        top = folder / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and path.name != locks.NAME:
                yield path


def _copy(path: Path, to: Path) -> None:
    with path.open("rb") as source, files.opened(to) as file:
        shutil.copyfileobj(source, file)
