"""Whose tokenizer and chat template are used: a model's, or what an adapter brings.

Trainers save the tokenizer that an adapter was trained with beside it. It says how the
adapter was asked: with another template, other answers are what one gets.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxlora.models import text_files

_GENERATION = "generation_config.json"
_FILES = (*text_files.BROUGHT, _GENERATION)


class Source(NamedTuple):
    """Where a tokenizer is read."""

    folder: Path
    """Comes first."""
    rest: Path | None
    """Has what the first lacks."""
    notes: tuple[str, ...] = ()
    """What a user should know of this choice, in sentences."""


def source(
    model: Path, adapters: Sequence[Path] = (), *, asked: Path | None = None
) -> Source:
    """Chooses the folder of a tokenizer.

    Args:
      model: a checkpoint.
      adapters: folders of the adapters that it runs with.
      asked: the folder that a user names; it wins.

    Raises:
      ValueError: if the folder that is named has no file of a tokenizer.
    """
    if asked is not None:
        if not any((asked / name).is_file() for name in text_files.BROUGHT):
            raise ValueError(
                f"{asked} has none of {', '.join(text_files.BROUGHT)}, expected the "
                f"folder of a tokenizer or of an adapter that brings one."
            )
        return Source(asked, model)
    parts = tuple(_parts(adapters, model))
    bringing = [folder for folder in adapters if _differs(folder, model)]
    if not bringing:
        return Source(model, None, parts)
    first, others = bringing[0], adapters
    if any(_contents(folder) != _contents(first) for folder in others):
        names = ", ".join(map(str, bringing[:3]))
        return Source(
            model,
            None,
            (
                f"The tokenizer of {model} is used; {names} "
                f"{'bring' if len(bringing) > 1 else 'brings'} another one than the "
                f"other adapters, which --tokenizer DIR would take.",
                *parts,
            ),
        )
    which = ", ".join(name for name in _FILES if (first / name).is_file())
    note = (
        f"{first} brings {which}, as it was trained with; they are used in place of "
        f"those of {model}, which --tokenizer {model} would take."
    )
    return Source(first, model, (note, *parts))


def bring(folder: Path | None, adapter: Path) -> None:
    """Puts the files of a tokenizer into the folder of an adapter.

    Args:
      folder: of the tokenizer that it was trained with; None if the model's.
      adapter: a folder that exists.
    """
    for name in text_files.BROUGHT:
        if folder is not None and (folder / name).is_file():
            shutil.copyfile(folder / name, adapter / name)


def _parts(adapters: Sequence[Path], model: Path) -> Iterator[str]:
    """Says which files of a tokenizer are brought without it, and not read."""
    for folder in adapters:
        if any((folder / x).is_file() for x in (text_files.MAIN, text_files.MODEL)):
            continue
        # Beside a template, say, maps of tokens are read.
        used = any((folder / x).is_file() for x in text_files.BROUGHT)
        parts = text_files.PARTS[2:] if used else text_files.PARTS
        theirs = {name: _content(folder / name) for name in parts}
        odd = [x for x, y in theirs.items() if y not in (None, _content(model / x))]
        if odd:
            yield (
                f"{folder} brings {', '.join(odd)} without a {text_files.MAIN}; they "
                f"are not read."
            )


def _differs(folder: Path, model: Path) -> bool:
    """Does a folder bring a file that the model has not, or otherwise?"""
    theirs = _contents(folder)
    return any(x != _content(model / name) for name, x in theirs.items())


def _contents(folder: Path) -> dict[str, bytes]:
    every = {name: _content(folder / name) for name in _FILES}
    return {name: x for name, x in every.items() if x is not None}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
