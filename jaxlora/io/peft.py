r"""LoRA adapters in the format of PEFT: ``adapter_config.json`` and tensors.

A module's update of its weight [F, D] is ``scale * b @ a`` with ``lora_A`` a [R, D] and
``lora_B`` b [F, R]. Rank and alpha of a module come from the first key of
``rank_pattern`` and ``alpha_pattern`` that matches its name as the regular expression
``(.*\.)?(key)$``, or else from ``r`` and ``lora_alpha``; the scale is alpha / rank, or
alpha over the square root of the rank with ``use_rslora``.

Whatever is more than such an update (DoRA, biases, trained embeddings, changed base
weights, ...) is refused by name: read as if it were plain LoRA, it would be another
adapter. This module knows the format and no model.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxlora.io import tensors
from jaxlora.io.peft_config import CONFIG, Raw, check, is_target, rank_of, scale_of
from jaxlora.io.tensors import Tensors

WEIGHTS = "adapter_model.safetensors"
"""The file with the tensors."""

_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<which>[AB])(?:\.(?P<name>[^.]+))?\.weight")


@dataclasses.dataclass(frozen=True)
class PeftModule:
    """The update ``scale * b @ a`` of one linear layer."""

    a: np.ndarray
    """[R, D], float32 or bfloat16."""
    b: np.ndarray
    """[F, R]."""
    scale: float
    """Unitless."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeftAdapter:
    """Updates by module path, such as ``model.layers.0.self_attn.q_proj``."""

    modules: Mapping[str, PeftModule]
    """At least one."""
    base_name: str | None = None
    """What the config says of the model that the adapter is for."""


def read(folder: Path, *, name: str | None = None) -> PeftAdapter:
    """Reads an adapter.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      name: of an adapter that PEFT put into a folder of its name within ``folder``;
        needed if there are several.

    Raises:
      ValueError: if a file is missing or damaged, the adapter is more than low-rank
        updates of linear layers, or config and tensors disagree.
    """
    folder = _folder(folder, name)
    raw = tensors.read_json(folder / CONFIG)
    check(raw)
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise ValueError(
            f"{folder} has no {WEIGHTS}"
            + (
                ", only adapter_model.bin: pickles can run code and are not read; load "
                "it with PEFT and save it again."
                if pickled
                else "; the download is incomplete."
            )
        )
    found = tensors.open_file(folder / WEIGHTS)
    pairs = _pairs(found)
    modules = {path: _module(raw, found, path, pairs[path]) for path in sorted(pairs)}
    base_name = raw.get("base_model_name_or_path")
    return PeftAdapter(modules=modules, base_name=base_name or None)


def _folder(folder: Path, name: str | None) -> Path:
    if name is not None:
        folder = folder / name
    if (folder / CONFIG).is_file():
        return folder
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}, expected an adapter.")
    inner = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    if len(inner) == 1 and name is None:
        return inner[0]
    shown = ", ".join(path.name for path in inner)
    raise ValueError(
        f"{folder} has no {CONFIG}, expected an adapter in the format of PEFT"
        + (f"; it holds several, give the folder of one: {shown}." if inner else ".")
    )


def _pairs(found: Tensors) -> dict[str, dict[str, str]]:
    """``{module path: {"A": tensor name, "B": tensor name}}``."""
    pairs: dict[str, dict[str, str]] = {}
    adapters = set()
    for key in found.entries:
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"Tensor {key!r} of the adapter is {_odd(key)}.")
        adapters.add(match["name"])
        path = match["module"].removeprefix("base_model.model.")
        pairs.setdefault(path, {})[match["which"]] = key
    if len(adapters) > 1:
        raise ValueError(
            f"{WEIGHTS} mixes tensors of the adapters {sorted(map(str, adapters))}, "
            f"expected one adapter in a file."
        )
    if not pairs:
        raise ValueError(f"{WEIGHTS} holds no tensors.")
    for path, pair in pairs.items():
        if len(pair) != 2:
            raise ValueError(f"The adapter has lora_{min(pair)} of {path!r} alone.")
    return pairs


def _odd(key: str) -> str:
    if "lora_embedding_" in key:
        return "an adapter of an embedding; only linear layers are supported"
    if "lora_magnitude_vector" in key:
        return "a magnitude of DoRA, which is not supported"
    if "lora_" in key and key.endswith(".bias"):
        return "a bias (lora_bias), which is not supported"
    if "lora_" not in key:
        return (
            "a whole weight saved beside the adapter (a resized or trained embedding, "
            "say), which is not supported"
        )
    return "not lora_A or lora_B of a linear layer"


def _module(raw: Raw, found: Tensors, path: str, pair: Mapping[str, str]):
    if not is_target(raw, path):
        raise ValueError(
            f"The adapter holds {path!r}, which target_modules "
            f"{raw.get('target_modules')!r} does not match; PEFT would ignore it."
        )
    a, b = (found.entries[pair[which]].shape for which in "AB")
    rank = rank_of(raw, path)
    if len(a) != 2 or len(b) != 2 or a[0] != rank or b[1] != rank:
        raise ValueError(
            f"The adapter's lora_A and lora_B of {path!r} have the shapes {a} and {b}, "
            f"expected ({rank}, in) and (out, {rank}) by {CONFIG}, which gives it "
            f"the rank {rank}."
        )
    values = [_plain(found.read(pair[which], finite=True)) for which in "AB"]
    return PeftModule(values[0], values[1], scale_of(raw, path))


def _plain(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype == np.float16 else values
