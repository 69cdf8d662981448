"""Flags that say which adapters a model runs with, shared by several commands."""

import dataclasses
import errno
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax
import tyro

from jaxlora import merge
from jaxlora.commands import bars, merge_fields, route_options
from jaxlora.commands.route_options import GateName, General, RouteName, TopK
from jaxlora.commands.route_options import RouteTemperature as RouteTemperature
from jaxlora.io import gate_file
from jaxlora.io.gate_file import GateFile
from jaxlora.models import reuse
from jaxlora.models.reuse import Reuse
from jaxlora.names import flag_hint

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
    gate: GateName = None
    general: General = ()
    top_k: TopK = None

    def routing(self, temperature: float | None = None) -> dict[str, Any]:
        """As :meth:`options`, with those of a route, read and checked.

        Returns:
          Keyword arguments of :func:`load`.

        Raises:
          ValueError: as ``reuse.check`` and ``gate_file.load``, or if the gate is one
            of another route or of other adapters.
        """
        route_options.check_top_k(self.top_k)
        route_options.importable(self.route)
        own: dict[str, Any] = {"route": self.route, "top_k": self.top_k}
        own["temperature"] = temperature
        given: dict[str, Any] = {}
        if self.gate is not None:
            given["gate"] = gate_file.load(self.gate)
            own = gate_file.asked(self.gate, given["gate"], self.adapter, **own)
        if self.general:
            given["general"] = self.general
        own = self.options() | own
        reuse.check(
            len(self.adapter),
            trained=self.gate is not None,
            general=len(self.general),
            **own,
        )
        return own | given


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
    for flag in ("--adapter", "--general"):
        words = spread(flag, words, positional=positional)
    known = ["--help", *flags(kind)]
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and name.replace("_", "-") not in known:
            raise ValueError(
                f"No option {name}; `{prog} --help` lists all {len(known)}."
                + flag_hint(name, known)
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


def load(
    model: Path,
    adapters: Sequence[Path],
    dtype: str,
    *,
    seed: int = 0,
    gate: GateFile | None = None,
    general: Sequence[Path] = (),
    **combining: Any,
) -> Reuse:
    """Reads model and adapters, with a bar; see ``reuse.load``.

    Merges and gates that draw do so by the seed. What a user should know of the
    adapters is said on stderr.

    Raises:
      ValueError: as ``reuse.load``, and if the gate was made on another base.
    """
    kept: Any = None if dtype == "auto" else dtype
    key = jax.random.key(seed)
    state = None if gate is None else gate.state
    more: dict[str, Any] = {"gate": state, "general_folders": general, **combining}
    try:
        with bars.bar("loading") as tell:
            found = reuse.load(model, adapters, key=key, dtype=kept, tell=tell, **more)
    except ValueError as error:
        if gate is None or "gate's state" not in str(error):
            raise
        experts = ", ".join(gate.about.experts)
        raise ValueError(f"{error} It was made for {experts}, in this order.") from None
    if gate is not None:
        gate_file.check_base(gate, found.base)
    say(found.notes)
    return found


def say(notes: Sequence[str]) -> None:
    """Prints sentences on stderr."""
    for note in notes:
        print(f"jaxlora: {note}", file=sys.stderr)


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
