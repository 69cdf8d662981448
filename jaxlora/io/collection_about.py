"""What is said of adapters: a short name for each folder, and what to know of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxlora.io.adapter_folders import other_bases
from jaxlora.io.collection import Collection
from jaxlora.io.collection_sites import numbers
from jaxlora.merge import Places
from jaxlora.names import check_several, few


def names(folders: Sequence[Path]) -> list[str]:
    """Names adapters by the ends of their paths, as short as tells them apart.

    Args:
      folders: of the adapters.

    Raises:
      ValueError: if a folder is given twice.

    >>> names([Path("/runs/1/final"), Path("/runs/2/final")])
    ['1/final', '2/final']
    """
    check_several("folders", folders)
    paths = [folder.resolve() for folder in folders]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise ValueError(
                f"Adapter {folders[i]} is given twice; to count it double, leave one "
                f"out and give the other twice the weight (--weights)."
            )
    deepest = max((len(path.parts) for path in paths), default=0)
    for depth in range(1, deepest + 1):
        ends = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(ends)) == len(ends):
            return ends
    return [str(path) for path in paths]


def notes(library: Collection) -> Iterator[str]:
    """What a user should know of the adapters that is no error, in sentences.

    Args:
      library: the adapters.
    """
    yield from other_bases(dict(zip(library.names, library.base_names, strict=True)))
    if len(library.spellings) > 1:
        shown = ", ".join(_around(x) for x in library.spellings)
        yield (
            f"The adapters name the modules of one model in {len(library.spellings)} "
            f"ways ({shown}); each module has one name here, as in "
            f"{next(iter(library.modules.values()))[0]}."
        )
    if library.copies:
        yield (
            f"Copies of base weights that PEFT saved along are left out: "
            f"{', '.join(library.copies[:4])}."
        )


def _around(spelling: str) -> str:
    return f"{spelling}.layers" if spelling else "layers"


def nothing(library: Collection, squares: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Says which adapters have deltas of zero, all of them or in some modules.

    Args:
      library: the adapters.
      squares: by site, squared norms of the deltas [E, L].
    """
    for e, name in enumerate(library.names):
        adapted, zero = 0, []
        for site, paths in library.modules.items():
            there = library.ranks[site][e] > 0
            adapted += int(there.sum())
            zero += [paths[i] for i in np.flatnonzero(there & (squares[site][e] == 0))]
        if zero and len(zero) == adapted:
            yield (
                f"Adapter {name} changes nothing: its delta is zero in all {adapted} "
                f"modules, as before training, where B is zero."
            )
        elif zero:
            yield (
                f"Adapter {name} has a delta of zero in {len(zero)} of {adapted} "
                f"modules: {few(zero)}."
            )


def places(library: Collection) -> Places:
    """Returns which layers the sites are of, for a merge that tells layers apart.

    Args:
      library: the adapters.

    Raises:
      ValueError: naming a site whose modules lie in no layer, or the first layer that
        is missing: without the base, all together must be numbered from 0 on.
    """
    every = {site: _layers(site, paths) for site, paths in library.modules.items()}
    adapted = sorted({number for some in every.values() for number in some})
    gaps = (n for n, layer in enumerate(adapted) if n != layer)
    if (missing := next(gaps, None)) is not None:
        raise ValueError(
            f"The merge tells layers apart by number, but no adapter has a module in "
            f"layer {missing}, and some in layer {adapted[-1]}; expected adapters that "
            f"together adapt every layer, from 0 on: without the base it is not known "
            f"how many there are."
        )
    return Places(len(adapted), tuple(every.items()))


def _layers(site: str, paths: Sequence[str]) -> tuple[int, ...]:
    """The layer of each module: its first number, of those that tell modules apart.

    That of an MLP of a mixture is none of them.
    """
    ahead = (path.partition(".experts.")[0] for path in paths)
    columns = [*zip(*map(numbers, ahead), strict=True)]
    if not columns:
        raise ValueError(
            f"The merge tells layers apart by number, but {site!r} lies in no layer; "
            f"leave that module out, or take a merge that treats layers alike."
        )
    return next((x for x in columns if len({*x}) > 1), columns[0])
