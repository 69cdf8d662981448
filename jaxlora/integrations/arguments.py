"""What the command line of a harness gives, as the types that are meant."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlora.io import gate_file
from jaxlora.models import reuse
from jaxlora.models.reuse import Reuse
from jaxlora.models.tokenizer import Tokenizer


def split(value: Any) -> list[Any]:
    """Returns the values of a list, or of a text with the path separator between.

    >>> split(0.5), split(["a:b", "c"])
    ([0.5], ['a:b', 'c'])
    """
    if isinstance(value, str):
        return [part for part in value.split(os.pathsep) if part]
    return list(value) if isinstance(value, Sequence) else [value]


def load(
    folder: str,
    adapters: Sequence[str],
    *,
    gate: str | None,
    route: str | None,
    top_k: int | None,
    temperature: float | None,
    **others: Any,
) -> Reuse:
    """As ``reuse.load``, of a gate in a file, which says what is not given.

    Raises:
      ValueError: as ``reuse.load`` and ``gate_file.load``, or if the gate is one of
        another route, of other adapters or of another base.
    """
    own: dict[str, Any] = {"route": route, "top_k": top_k, "temperature": temperature}
    if gate is None:
        return reuse.load(folder, adapters, **own, **others)
    path, found = Path(gate), gate_file.load(Path(gate))
    own = gate_file.asked(path, found, adapters, **own)
    made = reuse.load(folder, adapters, gate=found.state, **own, **others)
    gate_file.check_base(found, made.base)
    return made


def length(given: int | None, own: int) -> int:
    """Returns how many tokens the model sees at once: all it can, or fewer.

    Raises:
      ValueError: if more are asked for.
    """
    if given is not None and not 1 <= given <= own:
        raise ValueError(
            f"max_length is {given}, expected 1 to {own}, what the model was made for."
        )
    return own if given is None else given


def rows(given: int | str) -> int:
    """Returns the rows of one call; ``auto`` and ``auto:4`` are 16.

    Raises:
      ValueError: if it is no number.
    """
    text = str(given)
    if text.partition(":")[0] == "auto":
        return 16
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"batch_size is {given!r}, expected a number or 'auto'.")
    return int(text)


def prefix(tokenizer: Tokenizer, given: int | None) -> int:
    """Returns the token before a text without context: as given, the bos, or the eos.

    Raises:
      ValueError: if there is none.
    """
    for i in (given, tokenizer.bos_id, *tokenizer.eos_ids):
        if i is not None:
            return i
    raise ValueError(
        "The tokenizer names neither a bos nor an eos, one of which goes before a text "
        "without context; give prefix_token_id."
    )
