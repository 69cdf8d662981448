"""Folders of adapters as they are given: an adapter's own, or a library's of several.

``jaxlora train`` writes a folder in which each adapter has one; it stands for all of
them, in the order of their names.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxlora.io import peft, weight_sets
from jaxlora.io.peft_checks import CONFIG
from jaxlora.names import check_several

_SHOWN = 8
"""Adapters of a library that are named."""
_HUB = "models--"
"""Begins the folder of a model in the cache of the Hub, ``models--ORG--NAME``."""


def expand(folders: Sequence[str | os.PathLike[str]]) -> tuple[Path, ...]:
    """Puts the adapters of a library in the place of its folder.

    Args:
      folders: of adapters and libraries; what is neither stays, for its reader to
        refuse.

    Raises:
      ValueError: if one path stands where a list is meant.
    """
    check_several("folders", folders)
    return tuple(path for folder in folders for path in _members(Path(folder)))


def notes(folders: Sequence[str | os.PathLike[str]]) -> Iterator[str]:
    """Says which adapters a library stands for, and which of its tensors are read.

    Args:
      folders: as :func:`expand` takes them.
    """
    for folder in map(Path, folders):
        for path in _members(folder):
            yield from weight_sets.adapter_notes(path)
        names = [path.name for path in _members(folder)]
        if len(names) > 1:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            yield (
                f"{folder} is a library of {len(names)} adapters, in this order: "
                f"{', '.join(names[:_SHOWN])}{more}."
            )


def _members(folder: Path) -> list[Path]:
    if (folder / CONFIG).is_file() or not folder.is_dir():
        return [folder]
    # Hidden folders are half-written ones, or of checkpoints.
    inner = sorted(
        path.parent
        for path in folder.glob(f"*/{CONFIG}")
        if not path.parent.name.startswith(".")
    )
    # The only one is found by the reader, and keeps the name of the folder.
    return inner if len(inner) > 1 else [folder]


def bases(folders: Sequence[Path]) -> dict[str, str | None]:
    """The base that each adapter names, by the name of its folder.

    Args:
      folders: of adapters.

    Raises:
      ValueError: if one is no readable adapter.
    """
    return {str(path): peft.open_folder(path).base_name for path in folders}


def other_bases(
    named: Mapping[str, str | None], model: str | os.PathLike[str] | None = None
) -> Iterator[str]:
    """Says in a sentence if adapters are of another base than they are used on.

    Names are compared, not weights: the last parts of paths, or the name in the Hub's
    cache; of two folders that exist, whether they are one.

    Args:
      named: base by adapter; None where it names none.
      model: folder of the model; None if there is none, and they shall only agree.

    >>> list(other_bases({"ann": "org/base", "bo": None}, "models/base"))
    []
    >>> list(other_bases({"ann": "org/base", "bo": None}, "models/chat"))
    ['The adapter ann is of org/base, by its config, and not of models/chat; ...']
    """
    if model is None:
        if len({base for base in named.values() if base}) > 1:
            each = ", ".join(f"{name}: {base}" for name, base in named.items())
            yield (
                f"The adapters name different bases ({each}); their shapes agree, but "
                f"what is made of them means something on one base only."
            )
        return
    odd = {x: base for x, base in named.items() if base and _differ(base, Path(model))}
    if odd:
        first, base = next(iter(odd.items()))
        others = f" (as {len(odd)} adapters in all)" if len(odd) > 1 else ""
        yield (
            f"The adapter {first} is of {base}, by its config, and not of {model}"
            f"{others}; unless these are the same weights, what comes out means "
            f"nothing."
        )


def _differ(base: str, model: Path) -> bool:
    """Whether an adapter's base is another one than a model, as far as names say."""
    path = Path(base)
    if path.is_absolute() and path.is_dir() and model.is_dir():
        return not path.samefile(model)
    last, here = _last(base), model.resolve()
    names = {_last(str(model)), here.name}
    hub = (x.name for x in here.parents if x.name.startswith(_HUB))
    names |= {name.rpartition("--")[2] for name in hub}
    return last not in names | {".", ".."}


def _last(base: str) -> str:
    return base.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
