"""What a checkpoint holds beside its language model: a part that sees, hears or drafts.

A decoder computes the language model alone. Written back, everything else of the folder
that it was read from is kept: under its names, byte for byte, or as the floats that
quantised weights stand for.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlora.io import header, mixtures, quantised, tensors
from jaxlora.io.header import DTYPES, Entry
from jaxlora.io.tensors import Tensors
from jaxlora.models import fields, names
from jaxlora.models.fields import Raw

_NORM = "model.norm.weight"


class Beside(NamedTuple):
    """Tensors that are kept, and the names of the others in the same files."""

    checkpoint: Tensors
    entries: dict[str, Entry]
    """Of the tensors that no decoder computes."""
    spelled: dict[str, str]
    """By canonical name, the name of each other tensor."""

    def read(self, name: str) -> np.ndarray:
        """Returns the values of one tensor, or its bytes if it is none of weights.

        Args:
          name: a key of ``entries``.
        """
        entry = self.entries[name]
        if entry.dtype in DTYPES:
            return self.checkpoint.read(name)
        return header.raw(self.checkpoint.files[name], entry)

    def name_of(self, tensor: str) -> str:
        """Returns the name in these files of a tensor of the language model.

        A head that was the table, or a table that was stored as the head, has none
        yet: it gets the name that goes with those of the others.

        Args:
          tensor: its canonical name.

        Raises:
          ValueError: if the files lack it, and it is neither.
        """
        if tensor in self.spelled:
            return self.spelled[tensor]
        norm = self.spelled.get(_NORM, "")
        if not norm or tensor not in (names.EMBEDDING, names.HEAD):
            raise ValueError(
                f"The checkpoint that holds more than a language model lacks "
                f"{tensor!r}, expected the one that the decoder was read from."
            )
        if tensor == names.EMBEDDING:
            return norm.removesuffix("norm.weight") + "embed_tokens.weight"
        outer = "language_model."
        return f"{outer}{tensor}" if norm.startswith(outer) else tensor


def read(folder: Path | str | None) -> Beside | None:
    """Returns what a checkpoint holds beside a language model; None if nothing.

    Args:
      folder: of the checkpoint; None if there is none.
    """
    if folder is None:
        return None
    if not fields.may_hold_more(tensors.read_json(Path(folder) / "config.json")):
        return None
    checkpoint = quantised.opened(tensors.open_folder(Path(folder)))
    checkpoint = mixtures.apart(checkpoint)
    parts = {x: names.is_ignored(x, more=True) for x in checkpoint.entries}
    if not any(parts.values()):
        return None
    return Beside(
        checkpoint,
        {name: checkpoint.entries[name] for name, kept in parts.items() if kept},
        {names.canonical(name): name for name, kept in parts.items() if not kept},
    )


def config(raw: Raw, dtype: str, *, tied: bool, vocab_size: int) -> Raw:
    """Returns the config.json of the whole model, after its language model changed.

    Args:
      raw: as it was.
      dtype: of the language model.
      tied: are its head and embedding one tensor?
      vocab_size: V, which an adapter may have resized.
    """
    text = raw.get("text_config")
    inner = dict(text) if isinstance(text, Mapping) else {}
    inner |= {"vocab_size": vocab_size}
    return _typed({**raw, "tie_word_embeddings": tied}, dtype) | {
        "text_config": _typed(inner, dtype)
    }


def notes(folder: Path | str) -> Iterator[str]:
    """Says which parts of a checkpoint are not computed.

    Args:
      folder: of the checkpoint.
    """
    held = read(folder)
    if held is not None:
        parts = {names.canonical(x).partition(".")[0] for x in held.entries}
        yield (
            f"{folder} is more than a language model; {', '.join(sorted(parts))} "
            f"is not computed here."
        )


def _typed(raw: Mapping, dtype: str) -> Raw:
    keys = [key for key in ("dtype", "torch_dtype") if key in raw]
    return dict(raw) | dict.fromkeys(keys, dtype)
