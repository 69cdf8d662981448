"""PEFT adapters as a library, and an adapter as a PEFT folder, without the base.

A *group* is what a site is in a model: modules whose paths differ only in their numbers
and whose shapes are equal, such as ``model.layers.*.self_attn.q_proj``, stacked on L in
the order of the numbers. Ranks are padded with zeros to the largest of the group, and a
module that an adapter lacks is zero with scale 1. The values of one group are read at a
time.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.io import peft, peft_out
from jaxlora.io.peft import Header, PeftAdapter, PeftFile, PeftModule
from jaxlora.lora import Adapter, LoraWeight

Tell: TypeAlias = Callable[[int, int], None]

_NUMBER = re.compile(r"(?:^|(?<=\.))\d{1,9}(?=\.|$)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collection:
    """Adapters of one base, read from their folders."""

    library: dict[str, LoraWeight]
    """By group: a [E, L, D, R], b [E, L, R, F], scale [E, L]."""
    modules: dict[str, tuple[str, ...]]
    """By group: the module path of each of the L."""
    names: tuple[str, ...]
    """Of the E adapters, each once."""
    ranks: dict[str, np.ndarray]
    """By group: ranks without padding, int [E, L]; 0 where an adapter lacks one."""
    base_names: tuple[str | None, ...]
    """What each adapter says of its base. They may differ by the spelling of a folder;
    shapes that differ are an error, names that differ are for the caller to tell."""
    targets: tuple[str, ...] | None
    """Short names that together mean exactly the modules of the collection, if the
    adapters list such names."""
    embeddings: frozenset[str]
    """Groups of embeddings; D is V there, and F is D."""
    copies: tuple[str, ...]
    """Modules whose base weight some adapter holds a copy of, which was not read."""

    @property
    def base_name(self) -> str | None:
        """The first that is given."""
        return next((name for name in self.base_names if name), None)

    def adapter(self, expert: int) -> Adapter:
        """Returns one adapter of the library, padding kept."""
        return {
            group: LoraWeight(weight.a[expert], weight.b[expert], weight.scale[expert])
            for group, weight in self.library.items()
        }


def read(
    folders: Sequence[Path | str],
    *,
    names: Sequence[str] | None = None,
    tell: Tell = lambda *_: None,
) -> Collection:
    """Reads adapters into one library.

    Args:
      folders: each holds adapter_config.json and adapter_model.safetensors.
      names: of the adapters, by default those of their folders.
      tell: called with (groups read, groups in all).

    Returns:
      Factors in their stored type where all of a group have the same one, else float32.

    Raises:
      ValueError: if there is no folder, a name is there twice, one of them is no
        readable adapter, or they are of different bases: a module has other features
        in or out, or is an embedding in one and a linear layer in another.
    """
    paths = [Path(folder) for folder in folders]
    chosen = _names(paths, names)
    files = [peft.open_folder(path) for path in paths]
    known = _union(files)
    groups = _groups(known)
    library = {}
    for done, (group, modules) in enumerate(groups.items()):
        tell(done, len(groups))
        library[group] = _read_group(files, modules, known[modules[0]])
    tell(len(groups), len(groups))
    return Collection(
        library=library,
        modules=groups,
        names=chosen,
        ranks={group: _ranks(files, modules) for group, modules in groups.items()},
        base_names=tuple(file.base_name for file in files),
        targets=_targets(files, known),
        embeddings=frozenset(g for g, paths in groups.items() if known[paths[0]].table),
        copies=tuple(sorted({path for file in files for path in file.copies})),
    )


def write(folder: Path | str, adapter: Adapter, like: Collection) -> None:
    """Writes an adapter as a PEFT folder whose every scale is 1 (alpha = rank).

    Scales of the adapter are multiplied into ``b``. Trailing ranks that are zero in
    both factors are cut off, and a module in which nothing is left is not written;
    ranks that differ are named in ``rank_pattern``.

    Args:
      folder: new, or empty.
      adapter: LoraWeights [L, D, R] by group, of the groups of ``like``.
      like: says which module is which.

    Raises:
      ValueError: if the folder holds something, the adapter is zero everywhere or not
        finite, or its groups or shapes are not those of ``like``.
    """
    modules: dict[str, PeftModule] = {}
    for group, weight in adapter.items():
        modules |= _unstack(group, weight, like)
    whole = {path for paths in like.modules.values() for path in paths}
    short = like.targets is not None and whole == modules.keys()
    written = PeftAdapter(modules=modules, base_name=like.base_name)
    peft_out.write(Path(folder), written, targets=like.targets if short else None)


@dataclasses.dataclass(frozen=True)
class _Known:
    """A module that some adapter adapts, and where it was seen first."""

    d: int
    f: int
    table: bool
    folder: Path

    def __str__(self) -> str:
        kind = "an embedding" if self.table else "a linear layer"
        return f"{kind} from {self.d} to {self.f}"


def _names(paths: Sequence[Path], names: Sequence[str] | None) -> tuple[str, ...]:
    if not paths:
        raise ValueError("There is no adapter to read, expected at least one folder.")
    chosen = [path.resolve().name for path in paths] if names is None else list(names)
    if len(chosen) != len(paths):
        raise ValueError(
            f"There are {len(chosen)} names for {len(paths)} adapters, expected one "
            f"for each."
        )
    for i, name in enumerate(chosen):
        if not name or not name.isprintable():
            raise ValueError(f"The name {name!r} of {paths[i]} is no line of text.")
        if name in chosen[:i]:
            raise ValueError(
                f"Two adapters are called {name!r}: {paths[chosen.index(name)]} and "
                f"{paths[i]}; give each its own name, or leave one out."
            )
    return tuple(chosen)


def _union(files: Sequence[PeftFile]) -> dict[str, _Known]:
    known: dict[str, _Known] = {}
    for file in files:
        for path, header in file.modules.items():
            here = _Known(header.d, header.f, header.embedding, file.folder)
            first = known.setdefault(path, here)
            if str(first) != str(here):
                raise ValueError(
                    f"Adapter {file.folder} adapts {path!r} as {here}, expected "
                    f"{first}, as in {first.folder}: they are adapters of different "
                    f"bases and make no library."
                )
    return known


def _groups(known: Mapping[str, _Known]) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[tuple[int, int, bool], list[str]]] = {}
    for path, module in known.items():
        shapes = found.setdefault(_NUMBER.sub("*", path), {})
        shapes.setdefault((module.d, module.f, module.table), []).append(path)
    return {
        group if len(shapes) == 1 else f"{group}[{d}x{f}]": _ordered(paths)
        for group, shapes in sorted(found.items())
        for (d, f, _), paths in sorted(shapes.items())
    }


def _ordered(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        sorted(paths, key=lambda path: [int(n) for n in _NUMBER.findall(path)])
    )


def _headers(files: Sequence[PeftFile], paths: Sequence[str]) -> list[Header]:
    return [
        file.modules[path] for file in files for path in paths if path in file.modules
    ]


def _ranks(files: Sequence[PeftFile], paths: Sequence[str]) -> np.ndarray:
    ranks = np.zeros((len(files), len(paths)), int)
    for e, file in enumerate(files):
        for i, path in enumerate(paths):
            ranks[e, i] = file.modules[path].rank if path in file.modules else 0
    return ranks


def _read_group(files: Sequence[PeftFile], paths: Sequence[str], module: _Known):
    """Fills the arrays of one group; beside them one module is in memory."""
    headers = _headers(files, paths)
    rank = max(header.rank for header in headers)
    dtypes = {header.dtype for header in headers}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
    lead = len(files), len(paths)
    a = np.zeros((*lead, module.d, rank), dtype)
    b = np.zeros((*lead, rank, module.f), dtype)
    scale = np.ones(lead, np.float32)
    for e, file in enumerate(files):
        for i, path in enumerate(paths):
            if path in file.modules:
                read = file.read(path)
                r = read.a.shape[0]
                a[e, i, :, :r], b[e, i, :r] = read.a.T, read.b.T
                scale[e, i] = read.scale
    weight = LoraWeight(jnp.asarray(a), jnp.asarray(b), jnp.asarray(scale))
    return jax.block_until_ready(weight)  # else copies of many groups wait in a queue


def _targets(files: Sequence[PeftFile], known: Mapping[str, _Known]):
    """The union of the adapters' lists, if each means the modules that it should."""
    lists = [file.targets for file in files]
    if any(targets is None for targets in lists):
        return None
    union = {name for targets in lists if targets is not None for name in targets}
    used = {name for name in union if any(_means(name, path) for path in known)}
    return tuple(sorted(used)) or None


def _means(name: str, path: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _unstack(group: str, weight: LoraWeight, like: Collection) -> dict[str, PeftModule]:
    if group not in like.modules:
        raise ValueError(
            f"The adapter has a group {group!r}, expected one of "
            f"{', '.join(map(repr, list(like.modules)[:8]))}."
        )
    paths = like.modules[group]
    d, f = like.library[group].a.shape[-2], like.library[group].b.shape[-1]
    r = weight.rank
    shapes = weight.a.shape, weight.b.shape, weight.scale.shape
    expected = (len(paths), d, r), (len(paths), r, f), (len(paths),)
    if shapes != expected:
        raise ValueError(
            f"Group {group!r} has a, b, scale of shapes {shapes}, expected {expected}."
        )
    a, b, scale = (np.asarray(x) for x in (weight.a, weight.b, weight.scale))
    found = {}
    for i, path in enumerate(paths):
        pair = _scaled(a[i], b[i], scale[i])
        if not all(np.isfinite(x.astype(np.float32)).all() for x in pair):
            raise ValueError(f"The adapter holds NaN or infinity in {path!r}.")
        rank = peft_out.used(*pair)
        if rank:
            down, up = (
                np.ascontiguousarray(x) for x in (pair[0].T[:rank], pair[1].T[:, :rank])
            )
            found[path] = PeftModule(down, up, 1.0, group in like.embeddings)
    return found


def _scaled(a: np.ndarray, b: np.ndarray, scale: np.ndarray):
    if scale == 1:
        return a, b
    with np.errstate(over="ignore"):  # infinity is an error later, with its module
        return a, b.astype(np.float32) * scale.astype(np.float32)
