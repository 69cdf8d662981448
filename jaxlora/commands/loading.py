"""Reads adapters for a command, with or without their model, with a progress bar."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxlora import reuse, route
from jaxlora.commands import bars
from jaxlora.commands.printing import say
from jaxlora.io import collection, gate_file
from jaxlora.io.collection import Collection
from jaxlora.io.gate_file import GateFile
from jaxlora.reuse import Reuse


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
    """Reads model and adapters, and prints on stderr what a user should know of them.

    Args:
      model: folder of a checkpoint.
      adapters: folders of PEFT adapters.
      dtype: of weights and activations; ``auto`` is what the checkpoint says.
      seed: of merges and gates that draw.
      gate: what a route learned from data.
      general: folders of the adapters that a route takes out of the others.
      **combining: merge, route, weights, top_k and temperature of ``reuse.load``.

    Raises:
      ValueError: as ``reuse.load``, and if the gate was made on another base.
    """
    kept: Any = None if dtype == "auto" else dtype
    try:
        with bars.bar("loading") as move:
            loaded = reuse.load(
                model,
                adapters,
                general_folders=general,
                gate=None if gate is None else gate.state,
                key=jax.random.key(seed),
                dtype=kept,
                progress=move,
                **combining,
            )
    except route.StateError as error:
        experts = ", ".join(gate.about.experts) if gate else ""
        raise ValueError(f"{error} It was made for {experts}, in this order.") from None
    if gate is not None:
        gate_file.check_base(gate, loaded.base)
    say(loaded.notes)
    return loaded


def collect(folders: Sequence[Path], move: bars.Move) -> Collection:
    """Reads adapters without their base; see ``collection.read``.

    Args:
      folders: of PEFT adapters.
      move: called with (words, groups read, groups in all).

    Raises:
      ValueError: as ``collection.read``, and if a folder is given twice.
    """
    progress = functools.partial(move, "reading")
    return collection.read(folders, names=names(folders), progress=progress)


def names(folders: Sequence[Path]) -> list[str]:
    """Names adapters by the ends of their paths, as short as tells them apart.

    Args:
      folders: of the adapters.

    Raises:
      ValueError: if a folder is given twice.

    >>> names([Path("/runs/1/final"), Path("/runs/2/final")])
    ['1/final', '2/final']
    """
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
    bases = dict(zip(library.names, library.base_names, strict=True))
    if len({base for base in bases.values() if base}) > 1:
        each = ", ".join(f"{name}: {base}" for name, base in bases.items())
        yield (
            f"The adapters name different bases ({each}); their shapes agree, but "
            f"what is made of them means something on one base only."
        )
    if library.copies:
        yield (
            f"Copies of base weights that PEFT saved along are left out: "
            f"{', '.join(library.copies[:4])}."
        )
