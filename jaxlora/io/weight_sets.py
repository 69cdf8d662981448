"""Folders that hold weights twice: which of them is read, in a sentence.

A checkpoint may have been saved into twice, or in several formats. What is read is what
transformers and PEFT read, the single file before an index of shards; but whoever meant
the other one should know.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from jaxlora.io import tensors
from jaxlora.io.tensors import INDEX, SINGLE
from jaxlora.names import few

ADAPTER = "adapter_model.safetensors"
"""The single file of an adapter of PEFT."""
_BASE = re.compile(
    r"(?:(?:model|consolidated)\b.*\.safetensors|pytorch_model\b.*\.bin"
    r"|consolidated.*\.pth|tf_model\.h5|flax_model\.msgpack|.*\.gguf)"
)
_ADAPTER = re.compile(
    r"(?:adapter_model\b.*\.(?:safetensors|bin)|adapters\.safetensors)"
)


def notes(folder: Path) -> Iterator[str]:
    """Says which weights of a checkpoint are read, if there are others.

    Args:
      folder: of a checkpoint that can be opened.
    """
    yield from _notes(folder, SINGLE, INDEX, _BASE)


def adapter_notes(folder: Path) -> Iterator[str]:
    """Says which tensors of an adapter are read, if there are others.

    Args:
      folder: of an adapter that can be opened.
    """
    if (folder / ADAPTER).is_file() or (folder / f"{ADAPTER}.index.json").is_file():
        yield from _notes(folder, ADAPTER, f"{ADAPTER}.index.json", _ADAPTER)


def _notes(
    folder: Path, single: str, index: str, known: re.Pattern[str]
) -> Iterator[str]:
    named = _named(folder / index)
    alone = (folder / single).is_file()
    read = {single} if alone else named or set()
    there = {x.name for x in folder.iterdir() if known.fullmatch(x.name)}
    others = sorted(there - read)
    stale = alone and (folder / index).is_file() and named != {single}
    if not others and not stale:
        return
    which = single if alone else f"{index}, of {len(read)} files,"
    if stale and named is None:
        what = f"{index}, which is damaged"
    elif stale:
        gone = sorted((named or set()) - there - {single})
        what = f"{index}, which names {len(named or ())} other files" + (
            f" ({few(gone)} not there)" if gone else ""
        )
    else:
        what = ""
    left = " and ".join(x for x in (what, few(others) if others else "") if x)
    yield (
        f"{folder} describes its weights twice: {which} is read, as transformers and "
        f"PEFT do, and not {left}."
    )


def _named(index: Path) -> set[str] | None:
    """The files that an index names; None if there is none that can be read."""
    try:
        places = tensors.read_json(index, limit=tensors.INDEX_BYTES)["weight_map"]
        return {str(x) for x in places.values()}
    except (ValueError, KeyError, AttributeError, json.JSONDecodeError):
        return None
