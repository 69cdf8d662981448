"""Reads a model and its adapters for a command, with a progress bar."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxlora import reuse, route
from jaxlora.commands import bars
from jaxlora.commands.printing import say
from jaxlora.io import adapter_folders, gate_file, origin, weight_sets
from jaxlora.io.gate_file import GateFile
from jaxlora.models import beside
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.reuse import Reuse, decode
from jaxlora.reuse import words as sources


def words(
    model: Path,
    reuse: Reuse,
    adapters: Sequence[Path] = (),
    *,
    tokenizer: Path | None = None,
    chat: bool = True,
) -> Tokenizer:
    """Reads the tokenizer that a model is asked with, and says whose it is.

    Args:
      model: folder of a checkpoint.
      reuse: the model, as loaded.
      adapters: folders of PEFT adapters and of libraries.
      tokenizer: the folder that a user names.
      chat: keep its chat template, if it has one.

    Raises:
      ValueError: as ``decode.load_tokenizer``.
    """
    folders = adapter_folders.expand(adapters)
    folder, rest, notes = sources.source(model, folders, asked=tokenizer)
    say(notes)
    return decode.load_tokenizer(folder, reuse, chat=chat, rest=rest)


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
      adapters: folders of PEFT adapters and of libraries.
      dtype: of weights and activations; ``auto`` is what the checkpoint says.
      seed: of merges and gates that draw.
      gate: what a route learned from data.
      general: folders of the adapters that a route takes out of the others.
      **combining: merge, route, weights, top_k and temperature of ``reuse.load``.

    Raises:
      ValueError: as ``reuse.load``, and if the gate was made on another base.
    """
    say(adapter_folders.notes((*adapters, *general)))
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
    notes = *weight_sets.notes(model), *origin.notes(model), *beside.notes(model)
    say([*notes, *loaded.notes])
    return loaded
