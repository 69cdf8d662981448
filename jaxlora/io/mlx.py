"""LoRA adapters of mlx-lm, read as adapters of PEFT.

``adapters.safetensors`` holds ``MODULE.lora_a`` [D, R] and ``MODULE.lora_b`` [R, F], in
our layout and not in PEFT's, and ``MODULE.m`` [F] for DoRA; ``adapter_config.json`` has
no peft_type, and ``lora_parameters`` with rank and scale. An embedding that is also the
head is updated as both.

https://github.com/ml-explore/mlx-lm (mlx_lm/tuner)
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlora.io.tensors import Tensors, short

WEIGHTS = "adapters.safetensors"
"""The file with the tensors."""
_PARTS = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight"}
_TABLE = {"lora_a": "lora_embedding_A", "lora_b": "lora_embedding_B"}
_KEY = re.compile(r"(?P<module>.+)\.(?P<part>lora_a|lora_b|m)")


def is_config(raw: Mapping[str, Any]) -> bool:
    """Is this adapter_config.json one of mlx-lm?

    Args:
      raw: what the file holds.

    >>> is_config({"fine_tune_type": "lora", "lora_parameters": {"rank": 8}})
    True
    """
    return "peft_type" not in raw and "lora_parameters" in raw


def config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config that PEFT would have.

    Args:
      raw: of mlx-lm.

    Raises:
      ValueError: if it is no LoRA or DoRA, or does not say rank and scale.

    >>> fields = {"rank": 8, "scale": 2.0, "dropout": 0.0}
    >>> config({"fine_tune_type": "lora", "lora_parameters": fields})["lora_alpha"]
    16.0
    """
    kind = raw.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise ValueError(
            f"adapter_config.json of mlx-lm has fine_tune_type {short(kind)}, expected "
            f"'lora' or 'dora'; weights of a full fine-tuning are no adapter."
        )
    fields: Any = raw.get("lora_parameters")
    given: dict[str, Any] = fields if isinstance(fields, dict) else {}
    rank, scale = given.get("rank", ""), given.get("scale", "")
    if type(rank) is not int or type(scale) not in (int, float):
        raise ValueError(
            f"adapter_config.json of mlx-lm has lora_parameters {short(given)}, "
            f"expected numbers rank and scale."
        )
    # Old releases multiplied by alpha / rank as well; which one wrote it is not said.
    if given.get("alpha") not in (None, rank):
        raise ValueError(
            f"adapter_config.json of mlx-lm has alpha {short(given['alpha'])} and "
            f"scale {scale}: releases before 0.20 multiplied both, later ones read "
            f"the scale alone; remove alpha, with its product in scale if need be."
        )
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": scale * rank,
        "target_modules": "all-linear",
        "use_dora": kind == "dora",
        "ensure_weight_tying": True,
        "base_model_name_or_path": raw.get("model"),
    }


@dataclasses.dataclass(frozen=True)
class Turned(Tensors):
    """Tensors under the names of PEFT, [R, D] and [F, R]."""

    stored: Tensors
    """As in the file."""
    names: Mapping[str, str]
    """Names in the file by those of PEFT."""

    def read(self, name: str, *, finite: bool = False) -> np.ndarray:
        """As :meth:`Tensors.read`, transposed."""
        return self.stored.read(self.names[name], finite=finite).T


def tensors(stored: Tensors) -> Turned:
    """Returns the tensors as PEFT has them.

    Args:
      stored: of ``adapters.safetensors``.

    Raises:
      ValueError: if one is no part of an update.
    """
    names = {_renamed(key): key for key in stored.entries}
    entries = {
        name: dataclasses.replace(stored.entries[key], shape=_turned(stored, key))
        for name, key in names.items()
    }
    files = {name: stored.files[key] for name, key in names.items()}
    return Turned(files, entries, stored, names)


def _turned(stored: Tensors, key: str) -> tuple[int, ...]:
    return stored.entries[key].shape[::-1]


def _renamed(key: str) -> str:
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError(
            f"Tensor {key!r} of the MLX adapter is no lora_a, lora_b or m of a module."
        )
    module, part = match["module"], match["part"]
    if part == "m":
        return f"{module}.lora_magnitude_vector"
    table = module.rpartition(".")[2] in ("embed_tokens", "wte")
    return f"{module}.{(_TABLE if table else _PARTS)[part]}"
