"""What a checkpoint's ``config.json`` says of where its numbers come from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlora.io import quantised, tensors

FIELD = "jaxlora_dequantised"
"""Key of config.json: the file that was dequantised, and its types of tensors."""
_PLAIN = {"F32", "F16", "BF16"}


def notes(folder: Path | str) -> Iterator[str]:
    """Gives a sentence if a checkpoint was or will be dequantised.

    Which base an adapter is added to matters here: one that was trained on the
    unquantised model meets other weights in this one.

    Args:
      folder: of the checkpoint; a name of no folder here gives nothing.

    Raises:
      ValueError: if config.json is there and no JSON.
    """
    path = Path(folder) / "config.json"
    raw = tensors.read_json(path) if path.is_file() else {}
    stored, record = quantised.kind(raw.get("quantization_config")), raw.get(FIELD)
    if stored is not None:
        yield (
            f"{folder} is stored as {stored} and is dequantised as it is read: what is "
            f"added to it is added to the dequantised weights, which is the base of an "
            f"adapter that was trained on it (QLoRA), and of no other."
        )
    if not isinstance(record, dict) or not isinstance(record.get("types"), dict):
        return
    kinds = [str(kind)[:20] for kind in record["types"] if kind not in _PLAIN]
    if kinds:
        yield (
            f"{folder} is dequantised: its weights were {', '.join(kinds[:6])} in "
            f"{str(record.get('file'))[:80]!r}; an adapter trained on the unquantised "
            f"model meets slightly other weights here."
        )


def dequantised(raw: dict[str, Any], folder: Path | str) -> dict[str, Any]:
    """Returns the config.json of what a quantised checkpoint stands for.

    Args:
      raw: its config.json; without a quantization_config it is returned as it is.
      folder: where it lies.
    """
    kind = quantised.kind(raw.get("quantization_config"))
    if kind is None:
        return raw
    rest = {key: raw[key] for key in raw if key != "quantization_config"}
    return rest | {FIELD: {"file": Path(folder).name, "types": {kind: 1}}}
