"""What an ``adapter_config.json`` of PEFT says: kind, targets, ranks and scales.

The file is a stranger's: every field that is read is checked for its type, a boolean is
no number, and patterns are matched in bounded time (:mod:`jaxlora.io.patterns`).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from jaxlora.io import patterns
from jaxlora.io.patterns import Budget
from jaxlora.io.tensors import short

Raw: TypeAlias = dict[str, Any]

CONFIG = "adapter_config.json"
"""The name of the file."""

CONFIG_BYTES = 2**22
"""A config larger than this is no config."""

MAX_RANK = 2**16
"""No layer has more features than this, and no adapter a higher rank."""

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


class Config:
    """An adapter_config.json that was found to describe low-rank updates.

    Args:
      raw: what the file holds.
      modules: how many of them will be asked about, at most.

    Raises:
      ValueError: naming the field, what it holds and what was expected.
    """

    def __init__(self, raw: Raw, modules: int = 0):
        self._raw = raw
        seconds = patterns.SECONDS + patterns.SECONDS_PER_MODULE * modules
        self._budget = Budget(seconds)
        check(raw)
        self._listed = {
            field: frozenset(raw[field])
            for field in ("target_modules", "exclude_modules")
            if isinstance(raw.get(field), list)
        }
        self.base_name: str | None = raw.get("base_model_name_or_path") or None

    def shown(self, field: str) -> str:
        """Returns a field's value, cut to fit into a message."""
        return short(self._raw.get(field))

    @property
    def listed(self) -> tuple[str, ...] | None:
        """Names in target_modules, if that list is all that says what is adapted."""
        raw = self._raw
        given = raw.get("target_modules")
        more = ("exclude_modules", "layers_to_transform")
        if not isinstance(given, list) or any(raw.get(field) for field in more):
            return None
        return None if raw.get("layers_to_transform") == 0 else tuple(given)

    def rank_of(self, path: str) -> int:
        """Returns the rank of a module.

        >>> raw = {"peft_type": "LORA", "r": 4, "rank_pattern": {"layers.1.q": 2}}
        >>> Config(raw).rank_of("model.layers.1.q")
        2
        """
        rank = self._first("rank_pattern", path, self._raw.get("r", 8))
        if type(rank) is not int or not 1 <= rank <= MAX_RANK:
            raise ValueError(
                f"{CONFIG} gives {path!r} the rank {short(rank)}, expected a whole "
                f"number from 1 to {MAX_RANK}."
            )
        return rank

    def scale_of(self, path: str) -> float:
        """Returns the factor of a module's update.

        >>> raw = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": True}
        >>> Config(raw).scale_of("model.layers.1.q")
        4.0
        """
        alpha = self._first("alpha_pattern", path, self._raw.get("lora_alpha", 8))
        most = float(np.finfo(np.float32).max)
        number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
        if not number or not -most <= alpha <= most:
            raise ValueError(
                f"{CONFIG} gives {path!r} the alpha {short(alpha)}, expected a number "
                f"of at most {most:.1e}."
            )
        rank = self.rank_of(path)
        return alpha / (math.sqrt(rank) if self._raw.get("use_rslora") else rank)

    def is_target(self, path: str) -> bool:
        r"""Does the config put an adapter on this module?

        >>> raw = {"peft_type": "LORA", "target_modules": r".*\.[qv]_proj"}
        >>> Config(raw).is_target("model.layers.0.attn.v_proj")
        True
        """
        raw = self._raw
        if raw.get("exclude_modules") and self._names("exclude_modules", path):
            return False
        chosen = raw.get("target_modules")
        if chosen == "all-linear":
            return True
        if not chosen or not self._names("target_modules", path):
            return False
        layers = raw.get("layers_to_transform")
        if isinstance(chosen, str) or layers is None or layers == []:
            return True
        return self._layer(path) in ([layers] if isinstance(layers, int) else layers)

    def _first(self, field: str, path: str, default: Any) -> Any:
        for key, value in (self._raw.get(field) or {}).items():
            if self._match(patterns.ends, field, key, path):
                return value
        return default

    def _names(self, field: str, path: str) -> bool:
        given = self._raw[field]
        if isinstance(given, str):
            return self._match(patterns.matches, field, given, path)
        parts = path.split(".")
        ends = (".".join(parts[i:]) for i in range(len(parts)))
        return not self._listed[field].isdisjoint(ends)

    def _layer(self, path: str) -> int | None:
        """The number after the part of ``path`` that layers_pattern matches."""
        given = self._raw.get("layers_pattern") or r"[^.]*"
        parts = path.split(".")
        for pattern in [given] if isinstance(given, str) else given:
            for i, part in enumerate(parts[1:-1], 1):
                before = ".".join(parts[:i])
                number = part.isascii() and part.isdigit()
                if number and self._match(
                    patterns.ends, "layers_pattern", pattern, before
                ):
                    return int(part)
        return None

    def _match(self, how: Callable[..., bool], field: str, pattern: str, path: str):
        try:
            return how(pattern, path, self._budget)
        except ValueError as error:
            raise ValueError(f"{CONFIG} has a bad {field}: {error}.") from None


def check(raw: Raw) -> None:
    """Refuses a config that describes more than low-rank updates, or has wrong types.

    Raises:
      ValueError: naming the field, what it holds and what was expected.
    """
    _check_kind(raw)
    for field, kind in _KINDS.items():
        kind(field, raw.get(field))


def _check_kind(raw: Raw) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"{CONFIG} has peft_type {short(kind)}, expected 'LORA'.")
    for field, what in REFUSED.items():
        if raw.get(field):
            raise ValueError(
                f"{CONFIG} has {field} {short(raw[field])}: {what}. That is no update "
                f"scale * b @ a of a linear layer and cannot be read as one."
            )
    if raw.get("bias") not in (None, "none"):
        raise ValueError(
            f"{CONFIG} has bias {short(raw['bias'])}, expected 'none': trained biases "
            f"of the base are no part of an update scale * b @ a."
        )
    init = raw.get("init_lora_weights", True)
    if not any(type(init) is type(plain) and init == plain for plain in PLAIN_INITS):
        raise ValueError(
            f"{CONFIG} has init_lora_weights {short(init)}, which changes the base "
            f"weights (or is not known); save it as plain LoRA with PEFT's "
            f"path_initial_model_for_weight_conversion."
        )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, str) for x in value)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(x) is int for x in value)


def _kind(test: Callable[[Any], bool], expected: str) -> Callable[[str, Any], None]:
    def check(field: str, value: Any) -> None:
        if value is not None and not test(value):
            raise ValueError(
                f"{CONFIG} has {field} {short(value)}, expected {expected}."
            )

    return check


_names = _kind(
    lambda x: isinstance(x, str) or _is_names(x), "a list of strings, or a string"
)
_object = _kind(lambda x: isinstance(x, dict), "an object")
_KINDS: Mapping[str, Callable[[str, Any], None]] = {
    "use_rslora": _kind(lambda x: isinstance(x, bool), "true or false"),
    "rank_pattern": _object,
    "alpha_pattern": _object,
    "target_modules": _names,
    "exclude_modules": _names,
    "layers_pattern": _names,
    "layers_to_transform": _kind(
        lambda x: type(x) is int or _is_numbers(x), "a list of numbers, or a number"
    ),
    "base_model_name_or_path": _kind(
        lambda x: isinstance(x, str) and len(x) < 4096 and x.isprintable(),
        "a name, which is text of one line",
    ),
}
