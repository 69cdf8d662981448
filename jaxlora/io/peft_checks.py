"""Which adapter_config.json can be read: kind, types of fields, and what is refused.

What is neither a low-rank update nor one of the parts of
:mod:`jaxlora.io.peft_parts` is refused by name, since read as plain LoRA it would be
another adapter.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from jaxlora.io.tensors import short

Raw: TypeAlias = dict[str, Any]

CONFIG = "adapter_config.json"
"""The name of the file."""

REFUSED = {
    "layer_replication": "layers used twice",
    "alora_invocation_tokens": "activated LoRA, which depends on the tokens",
    "kasa_config": "KaSA, which changes the base weights",
    "use_qalora": "QA-LoRA, which pools the inputs",
    "use_bdlora": "block-diagonal factors",
    "arrow_config": "a router over other adapters",
    "monteclora_config": "MonteCLoRA, which samples its factors",
}
"""Fields that must be absent, null, false or empty, and what they stand for."""

HARMLESS = frozenset(
    (
        # Who, when and how; nothing of it is computed when an adapter is used.
        *("task_type", "auto_mapping", "peft_version", "revision", "inference_mode"),
        *("lora_dropout", "runtime_config", "lora_dtype", "velora_config"),
        *("lorap_lr_ratio", "lorap_emb_lr", "megatron_config", "megatron_core"),
        *("tags", "loraplus_lr_ratio", "loraplus_lr_embedding", "description"),
        *("torch_dtype", "dtype"),
        # Of ways to begin, which init_lora_weights chooses; and of use_qalora.
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
        "qalora_group_size",
        "merge_weights",  # of releases before 0.3: when they are added
        # How the base is stored, [in, out] in GPT-2; factors are the same either way.
        "fan_in_fan_out",
    )
)
"""Fields that change nothing, whatever they hold."""
_READ = frozenset(("peft_type", "r", "lora_alpha", "bias", "init_lora_weights"))

STARTS = "pissa", "olora"
"""Values of init_lora_weights whose first factors are known from the base."""
PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Values of init_lora_weights that leave the base as it is."""


def check(raw: Raw) -> None:
    """Refuses a config that describes more than low-rank updates, or has wrong types.

    Args:
      raw: what the file holds.

    Raises:
      ValueError: naming the field, what it holds and what was expected.
    """
    _check_kind(raw)
    _check_known(raw)
    for field, kind in _KINDS.items():
        kind(field, raw.get(field))


def _check_kind(raw: Raw) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"{CONFIG} has peft_type {short(kind)}, expected 'LORA'.")
    # Newer releases of PEFT add fields: absent, null, false and empty all mean "off".
    for field, what in REFUSED.items():
        if raw.get(field):
            raise ValueError(
                f"{CONFIG} has {field} {short(raw[field])}: {what}. That is no update "
                f"scale * b @ a of a linear layer and cannot be read as one."
            )
    if raw.get("bias") not in (None, "none", "all", "lora_only"):
        raise ValueError(
            f"{CONFIG} has bias {short(raw['bias'])}, expected 'none', 'all' or "
            f"'lora_only'."
        )
    init = raw.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() in STARTS:
        if raw.get("use_dora"):
            raise ValueError(
                f"{CONFIG} has use_dora and init_lora_weights {short(init)}, whose "
                f"magnitudes are of a base that the training changed."
            )
        return
    kind = init.lower() if isinstance(init, str) else init
    # Types are compared, because 1 == True in Python and PEFT tells them apart.
    if not any(type(kind) is type(plain) and kind == plain for plain in PLAIN_INITS):
        raise ValueError(f"{CONFIG} has init_lora_weights {short(init)}{_why(init)}.")


def _why(init: Any) -> str:
    """What is wrong with a way to begin, and what to do."""
    plain = isinstance(init, str) and init.lower()
    if plain == "loftq":
        return (
            ", which begins on quantised base weights of its own: the adapter is for "
            "that base only, which was saved beside it; add it there with PEFT "
            "(merge_and_unload)"
        )
    drawn = {
        "corda": "were made of data",
        "lora_ga": "were made of data",
        "pissa_niter": "are singular vectors approximated at random",
    }
    kind = next((x for x in drawn if plain and plain.startswith(x)), None)
    if kind is not None:
        return (
            f", whose first factors {drawn[kind]}, and were taken out of the base: no "
            f"file of the adapter or the base says what they were. Where it was "
            f"trained, save it as plain LoRA with PEFT, as in model.save_pretrained("
            f"DIR, path_initial_model_for_weight_conversion=INITIAL), where INITIAL is "
            f"the folder that it was saved to before training"
        )
    return ", expected one of those that are known to leave the base as it is"


def _check_known(raw: Raw) -> None:
    known = {*HARMLESS, *REFUSED, *_KINDS, *_READ}
    odd = [
        field
        for field, value in raw.items()
        if value and field not in known and not _is_note(field)
    ]
    if odd:
        raise ValueError(
            f"{CONFIG} has {short(odd[0])} {short(raw[odd[0]])}, a field that is not "
            f"known: the adapter may be more than scale * b @ a, as of a newer release "
            f"of PEFT; if it changes nothing, remove it."
        )


def _is_note(field: str) -> bool:
    """Does a field say which program wrote the file, or where it was downloaded?"""
    return field.startswith("_") or field.endswith("_version")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, str) for x in value)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(x) is int for x in value)


def _is_ids(value: Any) -> bool:
    return _is_numbers(value) and all(0 <= x < 2**31 for x in value)


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
_switch = _kind(lambda x: isinstance(x, bool), "true or false")
_KINDS: Mapping[str, Callable[[str, Any], None]] = {
    "use_rslora": _switch,
    "use_dora": _switch,
    "lora_bias": _switch,
    "ensure_weight_tying": _switch,
    "modules_to_save": _kind(_is_names, "a list of strings"),
    "trainable_token_indices": _kind(
        lambda x: all(_is_ids(y) for y in (x.values() if isinstance(x, dict) else [x])),
        "a list of token ids, or such lists by module",
    ),
    "rank_pattern": _object,
    "alpha_pattern": _object,
    "target_modules": _names,
    "target_parameters": _kind(_is_names, "a list of strings"),
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
