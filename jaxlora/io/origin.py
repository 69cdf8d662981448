"""What a checkpoint's ``config.json`` says of where its numbers come from."""

from pathlib import Path

from jaxlora.io import tensors

FIELD = "jaxlora_dequantised"
"""Key of config.json: the file that was dequantised, and its types of tensors."""
_PLAIN = {"F32", "F16", "BF16"}


def note(folder: Path | str) -> str | None:
    """Returns a sentence if a checkpoint was dequantised, else None.

    Which base an adapter is added to matters here: one that was trained on the
    unquantised model meets other weights in this one.

    Args:
      folder: of the checkpoint.

    Raises:
      ValueError: if config.json is there and no JSON.
    """
    path = Path(folder) / "config.json"
    record = tensors.read_json(path).get(FIELD) if path.is_file() else None
    if not isinstance(record, dict) or not isinstance(record.get("types"), dict):
        return None
    kinds = [str(kind) for kind in record["types"] if kind not in _PLAIN]
    if not kinds:
        return None
    return (
        f"{folder} is dequantised: its weights were {', '.join(kinds)} in "
        f"{str(record.get('file'))[:80]!r}; adapters trained on the unquantised model "
        f"meet slightly other weights here."
    )
