"""Flags that say which adapters a model runs with, and how they combine."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import tyro

from jaxlora import merge as merges
from jaxlora import reuse
from jaxlora import route as routes
from jaxlora.commands.flags import merge_fields, parsing
from jaxlora.io import adapter_folders, gate_file
from jaxlora.registry import importable

Folders: TypeAlias = tyro.conf.UseAppendAction[tuple[Path, ...]]
"""Folders of a repeatable flag, which may also follow each other: ``--adapter A B``."""
Model = Annotated[
    tyro.conf.Positional[Path],
    tyro.conf.arg(metavar="MODEL", help="Folder of a Hugging Face checkpoint."),
]
Words = Annotated[
    Path | None,
    tyro.conf.arg(
        name="tokenizer",
        metavar="DIR",
        help="Folder of tokenizer and chat template; if not given, what the adapters "
        "bring, or else the model's.",
    ),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    tyro.conf.arg(help="Type of weights and activations; auto: as the checkpoint's."),
]
RouteTopK = Annotated[
    int | None,
    tyro.conf.arg(
        metavar="K",
        help="Experts a route keeps per token and site, 1 or more; if not given, as "
        "the route says.",
    ),
]
RouteTemperature = Annotated[
    float | None,
    tyro.conf.arg(
        metavar="T",
        help="Divides a route's scores before its softmax; if not given, as the route "
        "says.",
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merging:
    """How adapters become one."""

    adapter: Annotated[Folders, tyro.conf.arg(metavar="DIR")] = ()
    """Folder of a PEFT adapter, or of a library of several; may be repeated."""
    merge: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME",
            help=f"Make one adapter of several: {', '.join(reuse.COMMON)}, or any that "
            f"needs no data; `jaxlora merge --list` says which of "
            f"{len(merges.names())}, and when.",
        ),
    ] = None
    weights: Annotated[tuple[float, ...], tyro.conf.arg(metavar="W...")] = ()
    """A number for each adapter, for a merge; may be negative."""

    @property
    def adapters(self) -> tuple[Path, ...]:
        """Folders of the adapters, those of a library in its place."""
        return adapter_folders.expand(self.adapter)

    def options(self) -> dict[str, Any]:
        """Returns merge and weights, as ``reuse.Combination`` takes them."""
        if self.merge and ":" in self.merge:
            merge_fields.fields(self.merge)  # imports it from the current folder
        return {"merge": self.merge, "weights": self.weights or None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combining(Merging):
    """Which adapters the model runs with, and how they are combined."""

    route: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME",
            help=f"Or choose among them for each token, by the adapters alone: "
            f"{', '.join(reuse.route_names())}; or, with --gate: "
            f"{', '.join(reuse.gate_names())}; `jaxlora gate --list` says what each "
            f"is.",
        ),
    ] = None
    gate: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FILE",
            help="What a route learned from data, as `jaxlora gate` writes it; it "
            "names its route.",
        ),
    ] = None
    general: Annotated[
        Folders,
        tyro.conf.arg(
            metavar="DIR",
            help="Adapter of general knowledge, of which genknowsub takes the mean out "
            "of the others (default: their own mean); repeat it for several.",
        ),
    ] = ()
    route_top_k: RouteTopK = None
    route_temperature: RouteTemperature = None

    def routing(self) -> dict[str, Any]:
        """As :meth:`options`, with those of a route, read and checked.

        Returns:
          Keyword arguments of ``loading.load``.

        Raises:
          ValueError: as ``reuse.check`` and ``gate_file.load``, or if the gate is one
            of another route or of other adapters.
        """
        check_top_k(self.route_top_k)
        if self.route and ":" in self.route:
            with importable():  # from the current folder, as merges are
                routes.preset(self.route)
        chosen: dict[str, Any] = {"route": self.route, "top_k": self.route_top_k}
        chosen["temperature"] = self.route_temperature
        general = adapter_folders.expand(self.general)
        more: dict[str, Any] = {"general": general} if general else {}
        if self.gate is not None:
            more["gate"] = gate_file.load(self.gate)
            chosen = gate_file.asked(self.gate, more["gate"], self.adapters, **chosen)
        chosen |= self.options()
        reuse.check(
            reuse.Combination(**chosen),
            len(self.adapters),
            trained=self.gate is not None,
            general=len(general),
        )
        return chosen | more


Merge = Annotated[Merging, tyro.conf.arg(name="")]
Combine = Annotated[Combining, tyro.conf.arg(name="")]


def expand_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Puts the adapters of libraries in their place after each ``--adapter``.

    For flags that are checked, and counted, as they are read.

    Args:
      words: of a command that takes no words without a flag.

    Returns:
      The words, and what to say of libraries.

    >>> expand_words(["--adapter=a", "b", "--facts", "f"])
    (['--adapter', 'a', '--adapter', 'b', '--facts', 'f'], [])
    """
    apart = [x for word in words for x in _apart(word)]
    out: list[str] = []
    notes: list[str] = []
    for word in parsing.spread("--adapter", apart, positional=False):
        if out[-1:] != ["--adapter"] or word.startswith("-"):
            out.append(word)
            continue
        folders = map(str, adapter_folders.expand([word]))
        out += [x for folder in folders for x in ("--adapter", folder)][1:]
        notes += adapter_folders.notes([word])
    return out, notes


def _apart(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--adapter=") else [word]


def check_top_k(top_k: int | None) -> None:
    """Refuses a ``--route-top-k`` below 1.

    Args:
      top_k: as it was given.

    Raises:
      ValueError: saying what to give in its place.
    """
    if top_k is not None and top_k < 1:
        raise ValueError(
            f"--route-top-k is {top_k}, expected 1 or more; leave it out for what the "
            f"route says, or give the number of adapters to keep all."
        )
