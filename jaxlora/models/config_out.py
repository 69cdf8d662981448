"""A :class:`DecoderConfig` as the ``config.json`` of a Hugging Face checkpoint.

The form is that of transformers 4 (``rope_theta``, ``rope_scaling``, ``torch_dtype``),
with ``layer_types``: versions 4 and 5 both read it. What is written is read again and
compared, so that no field can be lost on the way.
"""

import dataclasses

from jaxlora.models import rope_json
from jaxlora.models.architectures import from_json
from jaxlora.models.config import DecoderConfig
from jaxlora.models.families import FAMILIES
from jaxlora.models.fields import CLASSES, Raw

RUNTIME = {"dtype", "param_dtype", "attention", "remat", "unroll", "embed_std"}
"""Fields that say how to compute, not what."""


def to_json(config: DecoderConfig) -> Raw:
    """Returns a config.json, in the form that transformers 4 and 5 both read.

    Raises:
      ValueError: if no architecture computes what this decoder computes.
    """
    _check_kind(config)
    config = _plain(config)
    nearest: tuple[list[str], str] | None = None
    for kind in FAMILIES:
        raw = _of_kind(config, kind)
        odd = _odd(config, raw)
        if not odd:
            return raw
        if nearest is None or len(odd) < len(nearest[0]):
            nearest = odd, kind
    odd, kind = nearest or ([], "")
    raise ValueError(
        f"This decoder is nearest to {kind}, which differs in (ours, {kind}) "
        f"{'; '.join(odd)}; it cannot be written as a Hugging Face checkpoint."
    )


def _check_kind(config: DecoderConfig) -> None:
    """Refuses what no family has."""
    if config.passes > 1 or config.shared_mlp:
        raise ValueError(
            f"A decoder of {config.passes} passes with shared_mlp={config.shared_mlp} "
            f"has no Hugging Face architecture, expected one pass and an MLP in each "
            f"layer; this is a model of our own, which orbax keeps."
        )
    learned, plain = config.positions == "learned", config.mlp == "plain"
    if config.norm == "rms" and (learned or plain):
        raise ValueError(
            f"A decoder with {config.positions} positions and a {config.mlp} MLP has "
            f"no Hugging Face architecture, expected rope and gated; this is a model "
            f"of our own, which orbax keeps."
        )


def _plain(config: DecoderConfig) -> DecoderConfig:
    """The same decoder, with defaults in the fields that have no effect in it."""
    theta = config.local_rope_theta
    if not any(config.local_layers):
        default = DecoderConfig().local_rope_theta
        return dataclasses.replace(
            config, local_layers=(), window=0, local_rope_theta=default
        )
    if theta is None and config.rope_scaling is None:
        return dataclasses.replace(config, local_rope_theta=config.rope_theta)
    return config


def _of_kind(config: DecoderConfig, kind: str) -> Raw:
    """What the config.json of this decoder would be, were it of a family."""
    family = FAMILIES[kind]
    activation = _their_activation(config.activation)
    raw: Raw = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_length,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_head,
        family.activation: activation,
        "torch_dtype": config.param_dtype,
    }
    if config.positions == "rope":
        raw |= rope_json.write(config)
    raw |= family.write(config)
    raw = {family.spelling.get(name, name): value for name, value in raw.items()}
    return raw | {"architectures": [CLASSES[kind]], "model_type": kind}


def _odd(config: DecoderConfig, raw: Raw) -> list[str]:
    """Fields in which what would be read differs."""
    try:
        return differences(config, from_json(raw))
    except ValueError as error:
        return [str(error)] * len(dataclasses.fields(config))


def differences(ours: DecoderConfig, theirs: DecoderConfig) -> list[str]:
    """Returns ``field: ours, theirs`` for every field in which two decoders differ."""
    fields = [field.name for field in dataclasses.fields(ours)]
    return [
        f"{name}: {getattr(ours, name)}, {getattr(theirs, name)}"
        for name in fields
        if name not in RUNTIME and getattr(ours, name) != getattr(theirs, name)
    ]


def _their_activation(name: str) -> str:
    return {"gelu_tanh": "gelu_pytorch_tanh"}.get(name, name)
