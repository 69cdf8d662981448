"""Flags that say which adapters a model runs with, shared by several commands."""

import dataclasses
import difflib
import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax
import tyro

from jaxlora import merge
from jaxlora.commands import bars, merge_fields
from jaxlora.models import reuse
from jaxlora.models.reuse import Reuse

T = TypeVar("T")

Model = Annotated[
    tyro.conf.Positional[Path],
    tyro.conf.arg(metavar="MODEL", help="Folder of a Hugging Face checkpoint."),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    tyro.conf.arg(help="Type of weights and activations; auto: as the checkpoint's."),
]
MergeName = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        help=f"Make one adapter of several: {', '.join(reuse.COMMON)}, or any that "
        f"needs no data; `jaxlora merge --list` shows all {len(merge.names())}.",
    ),
]
RouteName = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        help=f"Or choose among them for each token: {', '.join(reuse.route_names())}.",
    ),
]
TopK = Annotated[
    int, tyro.conf.arg(help="Experts a route keeps per token and site; 0 keeps all.")
]
RouteTemperature = Annotated[
    float, tyro.conf.arg(help="Divides a route's scores before its softmax.")
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merging:
    """How adapters become one."""

    adapter: Annotated[
        tyro.conf.UseAppendAction[tuple[Path, ...]], tyro.conf.arg(metavar="DIR")
    ] = ()
    """Folder of a PEFT adapter; repeat it for several."""
    merge: MergeName = None
    weights: Annotated[tuple[float, ...], tyro.conf.arg(metavar="W...")] = ()
    """A number for each adapter, for a merge; may be negative."""

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``reuse.check`` and ``reuse.load``."""
        if self.merge and ":" in self.merge:
            merge_fields.fields(self.merge)  # imports it from the current folder
        return {"merge": self.merge, "weights": self.weights or None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combining(Merging):
    """Which adapters the model runs with, and how they are combined."""

    route: RouteName = None
    top_k: TopK = 0

    def routing(self, temperature: float) -> dict[str, Any]:
        """As :meth:`options`, with those of a route."""
        own = {"route": self.route, "top_k": self.top_k, "temperature": temperature}
        return self.options() | own


Merge = Annotated[Merging, tyro.conf.arg(name="")]
Combine = Annotated[Combining, tyro.conf.arg(name="")]


def parse(
    kind: type[T],
    prog: str,
    description: str,
    words: Sequence[str],
    *,
    positional: bool = True,
) -> T:
    """Parses flags with tyro; ``--adapter A B`` stands for ``--adapter A --adapter B``.

    Args:
      kind: the dataclass of the flags.
      prog: the command.
      description: above the flags in the help.
      words: what was given.
      positional: does the command take words without a flag?

    Raises:
      ValueError: if a flag does not exist, naming the nearest one.
    """
    words = spread("--adapter", words, positional=positional)
    known = ["--help", *flags(kind)]
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and name.replace("_", "-") not in known:
            raise ValueError(
                f"No option {name}; `{prog} --help` lists all {len(known)}."
                + _near(name, known)
            )
    return tyro.cli(kind, prog=prog, description=description, args=words)


def spread(flag: str, words: Sequence[str], *, positional: bool = True) -> list[str]:
    """Repeats a flag before each of its values.

    Of a command with a positional argument that starts with a flag, a value may be
    followed by that argument, which is not the flag's: each flag keeps one value.

    >>> spread("--adapter", ["model", "--adapter", "a", "b", "--merge", "sum"])
    ['model', '--adapter', 'a', '--adapter', 'b', '--merge', 'sum']
    """
    out: list[str] = []
    taken, several = 0, not (positional and words and words[0].startswith("-"))
    for word in words:
        if word == flag:
            taken = 1
        elif word.startswith("-"):
            taken = 0
        elif taken > 1 and several:
            out.append(flag)
        taken += bool(taken) and word != flag
        out.append(word)
    return out


def flags(kind: Any) -> list[str]:
    """Every flag of a dataclass and of the dataclasses in it."""
    found = []
    for field in dataclasses.fields(kind):
        inner = getattr(field.type, "__origin__", field.type)
        name = field.name.strip("_").replace("_", "-")
        if dataclasses.is_dataclass(inner):
            found += flags(inner)
        else:
            found += [f"--{name}", f"--no-{name}"] if inner is bool else [f"--{name}"]
    return found


def _near(name: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {found[0]}?" if found else ""


def load(
    model: Path,
    adapters: Sequence[Path],
    dtype: str,
    *,
    seed: int = 0,
    **combining: Any,
) -> Reuse:
    """Reads model and adapters, with a bar; see ``reuse.load``.

    Merges that draw do so by the seed.
    """
    kept: Any = None if dtype == "auto" else dtype
    key = jax.random.key(seed)
    with bars.bar("loading") as tell:
        return reuse.load(model, adapters, key=key, dtype=kept, tell=tell, **combining)


def check_out(path: Path) -> None:
    """Refuses a file that could not be written, before hours of work; leaves no trace.

    Raises:
      ValueError: if it is a folder, or a part of its path is a file.
      OSError: if its folder is not writable.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected the name of a file to write.")
    _check_writable(path)


def check_new_folder(folder: Path) -> None:
    """As :func:`check_out`, for a folder, which must be new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder} exists already and is not overwritten; give the name of a new "
            f"folder, or remove it first."
        )
    _check_writable(folder)


def at_least(least: int, given: Any, *names: str) -> None:
    """Refuses a size below ``least``, by the name of its flag."""
    for name in names:
        if getattr(given, name) < least:
            flag, got = name.replace("_", "-"), getattr(given, name)
            raise ValueError(f"--{flag} is {got}, expected {least} or more.")


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
