"""What an ``adapter_config.json`` of PEFT says: kind, targets, ranks and scales."""

import math
import re
from collections.abc import Iterable
from typing import Any, TypeAlias

Raw: TypeAlias = dict[str, Any]

CONFIG = "adapter_config.json"
"""The name of the file."""

REFUSED = {
    "use_dora": "DoRA, which rescales every column of the weight",
    "lora_bias": "a bias beside the low-rank update",
    "modules_to_save": "whole modules trained beside the adapter",
    "trainable_token_indices": "trained token embeddings",
    "target_parameters": "adapters on bare parameters",
    "layer_replication": "layers used twice",
    "alora_invocation_tokens": "activated LoRA, which depends on the tokens",
    "kasa_config": "KaSA, which changes the base weights",
    "use_qalora": "QA-LoRA, which pools the inputs",
    "use_bdlora": "block-diagonal factors",
    "arrow_config": "a router over other adapters",
    "monteclora_config": "MonteCLoRA, which samples its factors",
    "fan_in_fan_out": "weights stored as [in, out]",
}
"""Fields that must be absent, null, false or empty, and what they stand for."""

PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Values of init_lora_weights that leave the base as it is."""


def check(raw: Raw) -> None:
    """Refuses an adapter_config.json that describes more than low-rank updates.

    Raises:
      ValueError: naming the field and what it stands for.
    """
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"{CONFIG} has peft_type {kind!r}, expected 'LORA'.")
    for field, what in REFUSED.items():
        if raw.get(field):
            raise ValueError(
                f"{CONFIG} has {field} {raw[field]!r}: {what}. That is no update "
                f"scale * b @ a of a linear layer and cannot be read as one."
            )
    if raw.get("bias", "none") != "none":
        raise ValueError(
            f"{CONFIG} has bias {raw['bias']!r}, expected 'none': trained biases of "
            f"the base are no part of an update scale * b @ a."
        )
    init = raw.get("init_lora_weights", True)
    if not any(init is plain or init == plain for plain in PLAIN_INITS):
        raise ValueError(
            f"{CONFIG} has init_lora_weights {init!r}, which changes the base weights "
            f"(or is not known); save it as plain LoRA with PEFT's "
            f"path_initial_model_for_weight_conversion."
        )


def rank_of(raw: Raw, path: str) -> int:
    """Returns the rank that a config gives to a module.

    >>> rank_of({"r": 4, "rank_pattern": {"layers.1.q": 2}}, "model.layers.1.q")
    2
    """
    rank = _pattern(raw, "rank_pattern", path, raw.get("r", 8))
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(
            f"{CONFIG} gives {path!r} the rank {rank!r}, expected a whole number from "
            f"1."
        )
    return rank


def scale_of(raw: Raw, path: str) -> float:
    """Returns the factor of a module's update.

    >>> scale_of({"r": 4, "lora_alpha": 8, "use_rslora": True}, "model.layers.1.q")
    4.0
    """
    alpha = _pattern(raw, "alpha_pattern", path, raw.get("lora_alpha", 8))
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not number or not math.isfinite(alpha):
        raise ValueError(
            f"{CONFIG} gives {path!r} the alpha {alpha!r}, expected a number."
        )
    rank = rank_of(raw, path)
    return alpha / (math.sqrt(rank) if raw.get("use_rslora") else rank)


def _pattern(raw: Raw, field: str, path: str, default: Any) -> Any:
    patterns = raw.get(field) or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"{CONFIG} has {field} {patterns!r}, expected an object.")
    for key, value in patterns.items():
        if _match(rf"(.*\.)?({key})$", path, field):
            return value
    return default


def _match(pattern: str, path: str, field: str, *, full: bool = False) -> bool:
    compiled = _compiled(pattern, field)
    return bool(compiled.fullmatch(path) if full else compiled.match(path))


def _compiled(pattern: str, field: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{CONFIG} has in {field} {pattern!r}, which is no regular expression: "
            f"{error}."
        ) from None


def is_target(raw: Raw, path: str) -> bool:
    r"""Does the config put an adapter on this module?

    >>> is_target({"target_modules": r".*\.[qv]_proj"}, "model.layers.0.attn.v_proj")
    True
    """
    if raw.get("exclude_modules") and _named(raw, "exclude_modules", path):
        return False
    chosen = raw.get("target_modules")
    if chosen == "all-linear":
        return True
    if not chosen or not _named(raw, "target_modules", path):
        return False
    layers = raw.get("layers_to_transform")
    if isinstance(chosen, str) or layers is None or layers == []:
        return True
    layers = [layers] if isinstance(layers, int) else layers
    if not isinstance(layers, list):
        raise ValueError(
            f"{CONFIG} has layers_to_transform {layers!r}, expected a list of numbers."
        )
    return _layer(raw, path) in layers


def _named(raw: Raw, field: str, path: str) -> bool:
    given = raw[field]
    if isinstance(given, str):
        return _match(given, path, field, full=True)
    if not isinstance(given, Iterable):
        raise ValueError(
            f"{CONFIG} has {field} {given!r}, expected a list or a string."
        )
    return any(path == name or path.endswith(f".{name}") for name in given)


def _layer(raw: Raw, path: str) -> int | None:
    field = "layers_pattern"
    given = raw.get(field) or [r"[^.]*"]
    for pattern in _patterns(given, field):
        match = _compiled(rf"(?:^|.*?\.){pattern}\.(\d+)\.", field).match(path)
        if match:
            return int(match[match.re.groups])
    return None


def _patterns(given: Any, field: str) -> list[str]:
    patterns = [given] if isinstance(given, str) else given
    if not isinstance(patterns, list):
        raise ValueError(
            f"{CONFIG} has {field} {given!r}, expected a list or a string."
        )
    return patterns
