"""The files of an adapter: its config, and one file of tensors or shards and index."""

from pathlib import Path

from jaxlora.io import mlx, tensors
from jaxlora.io.errors import PathError
from jaxlora.io.peft_checks import CONFIG, Raw, check
from jaxlora.io.peft_config import CONFIG_BYTES
from jaxlora.io.peft_keys import WEIGHTS
from jaxlora.io.tensors import Tensors
from jaxlora.names import few

_TENSORS = (".safetensors", ".npz", ".gguf", ".pt", ".pth", ".ckpt", ".bin")
INDEX = f"{WEIGHTS}.index.json"
"""Says which of several files has which tensor."""


def open_parts(folder: Path) -> tuple[Raw, Tensors]:
    """Reads the config, and the headers of the tensors, of an adapter.

    Args:
      folder: of PEFT or of mlx-lm.

    Raises:
      ValueError: if one is missing, damaged, or of no kind that can be read.
    """
    raw = tensors.read_json(folder / CONFIG, limit=CONFIG_BYTES)
    if not mlx.is_config(raw):
        check(raw)
        return raw, open_weights(folder)
    raw = mlx.config(raw)
    check(raw)
    if not (folder / mlx.WEIGHTS).is_file():
        raise PathError(
            folder,
            f"{folder} has a config of mlx-lm and no {mlx.WEIGHTS}; the download is "
            f"incomplete.",
        )
    return raw, mlx.tensors(tensors.open_file(folder / mlx.WEIGHTS))


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
    others = [x.name for x in folder.iterdir() if x.suffix in _TENSORS]
    if others:
        return f"; it holds {few(sorted(others))}, which no adapter of PEFT has."
    return "; the download is incomplete."
