"""The files that the tensors of an adapter are in: one, or shards with their index."""

from pathlib import Path

from jaxlora.io import tensors
from jaxlora.io.errors import PathError
from jaxlora.io.peft_keys import WEIGHTS
from jaxlora.io.tensors import Tensors

INDEX = f"{WEIGHTS}.index.json"
"""Says which of several files has which tensor."""


def open_weights(folder: Path) -> Tensors:
    """Reads the headers of an adapter's files; a single file comes first, as in PEFT.

    Args:
      folder: of the adapter.

    Raises:
      ValueError: if there is no such file, or one is damaged.
    """
    if (folder / WEIGHTS).is_file():
        return tensors.open_file(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return tensors.open_shards(folder / INDEX)
    raise PathError(folder, f"{folder} has no {WEIGHTS}{_cause(folder)}")


def _cause(folder: Path) -> str:
    """Says why a file that is plainly there is not read."""
    if (folder / "adapter_model.bin").is_file():
        return (
            ", only adapter_model.bin: pickles can run code and are not read; load it "
            "with PEFT and save it again."
        )
    shards = sorted(x.name for x in folder.glob("adapter_model-*.safetensors"))
    if shards:
        return (
            f", only shards such as {shards[0]} without {INDEX}; the download is "
            f"incomplete."
        )
    return "; the download is incomplete."
