"""Rotary positions in ``config.json``: read in two forms, written in one.

transformers 4 has ``rope_theta`` and ``rope_scaling``, transformers 5 one object
``rope_parameters``, for Gemma 3 one for each kind of layer.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from jaxlora.io.tensors import short
from jaxlora.models.checked import Raw, positive, size
from jaxlora.models.config import DecoderConfig, RopeScaling

_OLD_NAMES = {"su": "longrope", "yarn": "longrope"}
"""What files of Phi-3 call its rule."""


def read(
    raw: Raw, local: tuple[bool, ...], head_dim: int, *, partial: bool
) -> dict[str, Any]:
    """Returns the fields of a :class:`DecoderConfig` that are about rotary positions.

    Args:
      raw: config.json, with its defaults.
      local: which layers have a sliding window; empty for none.
      head_dim: channels of a head.
      partial: may a part of each head be rotated?

    Raises:
      ValueError: naming the field that is out of range or not supported.
    """
    old, new = _object(raw, "rope_scaling"), _object(raw, "rope_parameters")
    given, near, apart = old or new, {}, raw["model_type"] == "gemma3_text"
    if apart:
        near = _object(new, "sliding_attention")
        given = _object(new, "full_attention") | old
        if new and not {"full_attention", "sliding_attention"} & set(new):
            raise ValueError(
                f"config.json has rope_parameters {short(new)}, expected one set for "
                f"each of full_attention and sliding_attention."
            )
    elif {"full_attention", "sliding_attention"} & set(given):
        raise ValueError(
            f"config.json has rope_parameters by layer type, which {raw['model_type']} "
            f"has not."
        )
    theta, scaling = positive({**raw, **given}, "rope_theta"), _scaling(given, raw)
    if _scaling(near, raw):
        raise ValueError(
            f"config.json stretches the rotary positions of sliding layers "
            f"({short(near)}); only layers with full attention can have that."
        )
    fields = {"rope_theta": theta, "rope_scaling": scaling}
    fields |= _rotary_dim(given, raw, head_dim, partial)
    if not local:
        return fields
    if not apart:  # one set of frequencies for all layers
        return fields | {"local_rope_theta": None if scaling else theta}
    fallback = {"rope_theta": raw.get("rope_local_base_freq")}
    return fields | {"local_rope_theta": positive(fallback | near, "rope_theta")}


def _rotary_dim(given: Raw, raw: Raw, head_dim: int, partial: bool) -> dict[str, int]:
    share = given.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    if share in (None, 1, 1.0):
        return {}
    if not partial:
        raise ValueError(
            f"config.json has partial_rotary_factor {short(share)}: rotary positions "
            f"on a part of each head are not supported in {raw['model_type']}."
        )
    field = "partial_rotary_factor"
    return {"rotary_dim": int(head_dim * positive({field: share}, field))}


def _object(raw: Raw, field: str) -> Raw:
    value = raw.get(field) or {}
    if not isinstance(value, dict):
        raise ValueError(
            f"config.json has rope parameters {short(value)} ({field}), not an object."
        )
    return value


def _scaling(given: Raw, raw: Raw) -> RopeScaling | None:
    kind = given.get("rope_type", given.get("type", "default"))
    if raw["model_type"] == "phi3":
        kind = _OLD_NAMES.get(kind, kind) if isinstance(kind, str) else kind
    if kind == "default":
        return None
    rule = _KINDS.get(kind) if isinstance(kind, str) else None
    if rule is None:
        raise ValueError(
            f"config.json has rope type {short(kind)}, which is not supported; "
            f"supported are default, {', '.join(_KINDS)}. If it was added for longer "
            f"contexts, remove it."
        )
    return rule(given, raw)


def _linear(given: Raw, raw: Raw) -> RopeScaling:
    del raw
    return RopeScaling(kind="linear", factor=positive(given, "factor"))


def _llama3(given: Raw, raw: Raw) -> RopeScaling:
    return RopeScaling(
        kind="llama3",
        factor=positive(given, "factor"),
        low_freq_factor=positive(given, "low_freq_factor"),
        high_freq_factor=positive(given, "high_freq_factor"),
        original_length=_trained(given, raw),
    )


def _dynamic(given: Raw, raw: Raw) -> RopeScaling:
    factor, trained = positive(given, "factor"), size(raw, "max_position_embeddings")
    return RopeScaling(kind="dynamic", factor=factor, original_length=trained)


def _yarn(given: Raw, raw: Raw) -> RopeScaling:
    trained = _trained(given, raw)
    factor = positive(given, "factor", size(raw, "max_position_embeddings") / trained)
    truncate = given.get("truncate", True)
    if not isinstance(truncate, bool):
        raise ValueError(
            f"config.json has truncate {short(truncate)}, expected true or false."
        )
    return RopeScaling(
        kind="yarn",
        factor=factor,
        original_length=trained,
        beta_fast=positive(given, "beta_fast", 32.0),
        beta_slow=positive(given, "beta_slow", 1.0),
        truncate=truncate,
        attention_factor=positive(
            given, "attention_factor", _yarn_factor(given, factor)
        ),
    )


def _yarn_factor(given: Raw, factor: float) -> float:
    """The factor on attention that yarn's authors fitted, or that mscale asks for."""

    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if given.get("mscale") and given.get("mscale_all_dim"):
        above, below = (positive(given, x) for x in ("mscale", "mscale_all_dim"))
        return mscale(above) / mscale(below)
    return mscale(1.0)


def _longrope(given: Raw, raw: Raw) -> RopeScaling:
    trained = _trained(given, raw)
    factor = positive(given, "factor", size(raw, "max_position_embeddings") / trained)
    return RopeScaling(
        kind="longrope",
        factor=factor,
        original_length=trained,
        short_factors=_factors(given, "short_factor"),
        long_factors=_factors(given, "long_factor"),
        attention_factor=positive(
            given, "attention_factor", _longrope_factor(factor, trained)
        ),
    )


def _longrope_factor(factor: float, trained: int) -> float:
    if factor <= 1 or trained < 2:
        return 1.0
    return math.sqrt(1 + math.log(factor) / math.log(trained))


def _factors(given: Raw, field: str) -> tuple[float, ...]:
    values = given.get(field)
    if not isinstance(values, list) or not 0 < len(values) <= 2**16:
        raise ValueError(
            f"config.json has {field} {short(values)}, expected a list of positive "
            f"numbers, one for each frequency."
        )
    return tuple(positive({field: value}, field) for value in values)


def _trained(given: Raw, raw: Raw) -> int:
    """Tokens of the context before the stretch; Phi-3 keeps it outside."""
    field = "original_max_position_embeddings"
    inside = size(given, field, size(raw, "max_position_embeddings"))
    return size(raw, field, inside)


_KINDS: Mapping[str, Callable[[Raw, Raw], RopeScaling]] = {
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "dynamic": _dynamic,
    "longrope": _longrope,
}


def write(config: DecoderConfig) -> Raw:
    """Returns ``rope_theta`` and ``rope_scaling``, as transformers 4 has them.

    Args:
      config: of a decoder with rotary positions.
    """
    return {
        "rope_theta": config.rope_theta,
        "rope_scaling": _written(config.rope_scaling),
    }


def _written(scaling: RopeScaling | None) -> Raw | None:
    if scaling is None:
        return None
    raw: Raw = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind in ("linear", "dynamic"):
        return raw
    raw["original_max_position_embeddings"] = scaling.original_length
    if scaling.kind == "llama3":
        return raw | {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
        }
    raw["attention_factor"] = scaling.attention_factor
    if scaling.kind == "yarn":
        return raw | {
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
            "truncate": scaling.truncate,
        }
    return raw | {
        "short_factor": list(scaling.short_factors),
        "long_factor": list(scaling.long_factors),
    }
