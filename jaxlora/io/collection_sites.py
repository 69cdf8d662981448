"""Which modules of several adapters are one site, and stacked on L.

Modules whose paths differ only in their numbers and whose shapes are equal are one
site, such as ``model.layers.*.self_attn.q_proj``, in the order of the numbers. Before,
modules get one name each: adapters of one model may spell them differently.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlora.io import module_names, peft_parameters
from jaxlora.io.peft import PeftFile

_OLD = ".block_sparse_moe."
_NUMBER = re.compile(r"(?:^|(?<=\.))\d{1,9}(?=\.|$)")


@dataclasses.dataclass(frozen=True)
class Module:
    """A module that some adapter adapts."""

    d: int
    """Features in; V of an embedding."""
    f: int
    """Features out; D of an embedding."""
    embedding: bool
    """Is it an embedding?"""
    folder: Path
    """Of the first adapter that adapts it."""

    def __str__(self) -> str:
        kind = "an embedding" if self.embedding else "a linear layer"
        return f"{kind} from {self.d} to {self.f}"


def spellings(files: Sequence[PeftFile]) -> tuple[str, ...]:
    """Returns what each way of naming puts around layers, each once, sorted.

    Args:
      files: the opened adapters.
    """
    paths = {path for file in files for path in file.modules}
    around = {module_names.prefix(path) for path in paths}
    return tuple(sorted(x for x in around if x is not None))


def alike(files: Sequence[PeftFile]) -> tuple[PeftFile, ...]:
    """Gives every module the same name in all adapters, and every tensor of the base.

    Names stay as they are where no two adapters spell them differently; else they
    become those of a plain language model, or, if a part of it sees, of its wrapper.

    Args:
      files: the opened adapters.
    """
    by_module: dict[str, set[str]] = {}
    for path in {path for file in files for path in file.modules}:
        by_module.setdefault(module_names.canonical(path), set()).add(path)
    if len(spellings(files)) < 2 and all(len(x) == 1 for x in by_module.values()):
        return tuple(files)
    tensors = {x for file in files for x in (*file.replaced, *file.rows)}
    named = {*by_module, *map(module_names.canonical, tensors)}
    wrapped = any(map(module_names.is_seen, named))

    def name_of(path: str) -> str:
        path = module_names.canonical(path)
        return module_names.in_wrapper(path) if wrapped else path

    def renamed(file: PeftFile) -> PeftFile:
        tables = {
            "modules": file.modules,
            "copies": file.copies,
            "replaced": file.replaced,
            "rows": file.rows,
        }
        parts: dict[str, Any] = {
            part: {name_of(name): value for name, value in table.items()}
            for part, table in tables.items()
        }
        saved = file.settings.get("modules_to_save", ())
        saved = [name_of(x) if "." in x else x for x in saved]
        if saved:
            parts["settings"] = {**file.settings, "modules_to_save": saved}
        return dataclasses.replace(file, **parts)

    return tuple(map(renamed, files))


def union(files: Sequence[PeftFile]) -> dict[str, Module]:
    """Returns every module that some adapter adapts, by its path.

    Args:
      files: the opened adapters.

    Raises:
      ValueError: if two adapters have other features for a module, or it is an
        embedding in one and a linear layer in the other.
    """
    known: dict[str, Module] = {}
    for file in files:
        for path, header in file.modules.items():
            here = Module(header.d, header.f, header.embedding, file.folder)
            # Adapters need not adapt the same modules, but where they do, shapes must
            # agree.
            first = known.setdefault(path, here)
            if str(first) != str(here):
                raise ValueError(
                    f"Adapter {file.folder} adapts {path!r} as {here}, expected "
                    f"{first}, as in {first.folder}: they are adapters of different "
                    f"bases and make no library."
                )
    return known


def parameters(files: Sequence[PeftFile]) -> frozenset[str]:
    """Returns the modules that are bare parameters of the model, or slices of one.

    Args:
      files: the opened adapters.

    Raises:
      ValueError: if some adapt the MLPs of mixtures as one parameter, and others one
        module after the other: without the base the two cannot be told to be one.
    """
    every = [(file, *_of_mixture(file)) for file in files]
    stacks = [file for file, stacked, _ in every if stacked]
    apart = [file for file, _, apart in every if apart]
    if stacks and apart:
        raise ValueError(
            f"Adapter {stacks[0].folder} adapts the MLPs of a mixture as parameters "
            f"(target_parameters) and {apart[0].folder} as modules, which have no "
            f"common names without the base; `jaxlora fuse MODEL A B --merge NAME "
            f"--out DIR` merges them on it."
        )
    return frozenset(
        path for file in files for path, x in file.modules.items() if x.parameter
    )


def _of_mixture(file: PeftFile) -> tuple[bool, bool]:
    """Has it slices of parameters, and has it modules of a mixture?"""
    parts = {path: x.parameter for path, x in file.modules.items()}
    stacked = any(bare and peft_parameters.is_slice(x) for x, bare in parts.items())
    # The block has another name in older releases of transformers: its router as well.
    old = (peft_parameters.is_slice(x) or _OLD in x for x, y in parts.items() if not y)
    return stacked, any(old)


def sites(known: Mapping[str, Module]) -> dict[str, tuple[str, ...]]:
    """Returns the module paths of each site, in the order of L.

    Args:
      known: as :func:`union` returns it.
    """
    by_name: dict[str, dict[tuple[int, int, bool], list[str]]] = {}
    for path, module in known.items():
        by_shape = by_name.setdefault(_NUMBER.sub("*", path), {})
        by_shape.setdefault((module.d, module.f, module.embedding), []).append(path)
    return {
        # Modules of one name and several shapes are as many sites.
        name if len(by_shape) == 1 else f"{name}[{d}x{f}]": _ordered(paths)
        for name, by_shape in sorted(by_name.items())
        for (d, f, _), paths in sorted(by_shape.items())
    }


def numbers(path: str) -> list[int]:
    """The numbers in the path of a module.

    >>> numbers("model.layers.10.self_attn.q_proj")
    [10]
    """
    return [int(n) for n in _NUMBER.findall(path)]


def _ordered(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        # By number, since "layers.10" comes before "layers.2" in the alphabet.
        sorted(paths, key=numbers)
    )
