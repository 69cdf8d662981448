"""What a checkpoint's ``config.json`` says of where its numbers come from."""

from collections.abc import Iterator
from pathlib import Path

from jaxlora.io import tensors

FIELD = "jaxlora_dequantised"
"""Key of config.json: the file that was dequantised, and its types of tensors."""
_PLAIN = {"F32", "F16", "BF16"}


def notes(folder: Path | str) -> Iterator[str]:
    """Gives a sentence if a checkpoint was dequantised.

    Which base an adapter is added to matters here: one that was trained on the
    unquantised model meets other weights in this one.

    Args:
      folder: of the checkpoint; a name of no folder here gives nothing.

    Raises:
      ValueError: if config.json is there and no JSON.
    """
    path = Path(folder) / "config.json"
    record = tensors.read_json(path).get(FIELD) if path.is_file() else None
    if not isinstance(record, dict) or not isinstance(record.get("types"), dict):
        return
    kinds = [str(kind)[:20] for kind in record["types"] if kind not in _PLAIN]
    if kinds:
        yield (
            f"{folder} is dequantised: its weights were {', '.join(kinds[:6])} in "
            f"{str(record.get('file'))[:80]!r}; an adapter trained on the unquantised "
            f"model meets slightly other weights here."
        )
