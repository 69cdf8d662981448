"""One name for one module: what wrappers, classes and programs put around it.

A language model's ``model.layers.0.mlp.up_proj`` is ``layers.0...`` in a model without
its head (AutoModel), ``model.language_model.layers.0...`` within one that sees images,
and ``_orig_mod.``, ``module.`` or ``_fsdp_wrapped_module.`` longer in one that was
compiled, parallel or sharded while it was trained. All commands tell modules of
adapters and tensors of checkpoints apart by :func:`canonical`.
"""

import functools
import re

_KEPT = 2**14
"""Names whose short forms are remembered: each is asked for again and again."""
# torch.compile, FSDP, activation checkpointing, Lightning's Fabric, Opacus: all name
# what they wrap so, and no model has such a part.
_WRAPPER = re.compile(r"_(?:\w+_)?mod(?:ule)?")
_FIRST = "module", "pretrained_model"
"""What DataParallel and TRL's value heads wrap; they stand first."""
_PEFT = ["base_model", "model"]

_OUTER = frozenset(
    (
        *("model", "language_model", "text_model", "llm", "thinker"),
        *("base_model", "pretrained_model"),
    )
)
"""What may stand, in any order and number, around a language model."""
_LAYERS = {"layers": "model", "h": "transformer"}
"""The list of layers, and the parts around it in a model with a head."""
_ENDS = {
    "embed_tokens": "model",
    "norm": "model",
    "wte": "transformer",
    "wpe": "transformer",
    "ln_f": "transformer",
    "lm_head": "",
}
SEEN = frozenset(
    (
        *("vision_tower", "vision_model", "visual", "vision_encoder", "vpm"),
        *("multi_modal_projector", "mm_projector", "resampler", "connector", "aligner"),
        *("vision_embed_tokens", "embed_vision", "vision_projection", "image_newline"),
        *("audio_tower", "audio_encoder", "embed_audio", "audio_projector"),
    )
)
"""Parts of a model that see or hear, beside its language model."""


@functools.lru_cache(_KEPT)
def unwrapped(name: str) -> str:
    """Returns a name without PEFT's prefix and the names of training wrappers.

    Args:
      name: of a module or tensor.

    >>> unwrapped("_orig_mod.base_model.model.model.layers.0._fsdp_wrapped_module.mlp")
    'model.layers.0.mlp'
    """
    parts = [part for part in name.split(".") if not _WRAPPER.fullmatch(part)]
    out: list[str] = []
    for part in parts:
        out.append(part)
        if out[-2:] == _PEFT:
            # What holds the adapted model (an actor, say) is no part of it; but it may
            # be one of the towers.
            del out[-2 if SEEN & {*out} else 0 :]
        elif out in ([_FIRST[0]], [_FIRST[1]]):
            out.clear()
        elif part == "module" and {*_LAYERS} & {*parts}:  # around any part of it
            out.pop()
    # Of a wrapper alone nothing would be left.
    return ".".join(out) or name


@functools.lru_cache(_KEPT)
def canonical(name: str) -> str:
    """Returns the name that a module or tensor has in a plain language model.

    What is no part of a language model that we know keeps its name, unwrapped.

    Args:
      name: of a module or tensor.

    >>> canonical("model.language_model.layers.3.mlp.up_proj")
    'model.layers.3.mlp.up_proj'
    >>> canonical("module._orig_mod.norm.weight")
    'model.norm.weight'
    >>> canonical("model.vision_tower.encoder.layers.0.q_proj")
    'vision_tower.encoder.layers.0.q_proj'
    """
    plain = unwrapped(name)
    parts = plain.split(".")
    outer = len(parts) - len(_inner(parts))
    inner = parts[outer:]
    around = _around(inner)
    if around is None:
        # Which of the outer names is its own is not known of other models.
        return ".".join(inner) if inner[0] in SEEN else plain
    return ".".join([around, *inner] if around else inner)


def spellings(name: str) -> list[str]:
    """Returns every name that a config may call a module by, each once.

    Args:
      name: of a module, as its tensors have it.

    >>> spellings("base_model.model._orig_mod.layers.0.mlp")
    ['_orig_mod.layers.0.mlp', 'layers.0.mlp', 'model.layers.0.mlp']
    """
    stored = name.removeprefix("base_model.model.")
    return list(dict.fromkeys((stored, unwrapped(name), canonical(name))))


def is_seen(path: str) -> bool:
    """Is it of the part of a model that sees or hears?

    Args:
      path: canonical.

    >>> is_seen("vision_tower.encoder.layers.0.q_proj"), is_seen("model.layers.0.mlp")
    (True, False)
    """
    return path.partition(".")[0] in SEEN


def prefix(name: str) -> str | None:
    """Returns what stands around the layers of a language model, or None elsewhere.

    Args:
      name: of a module of a layer; others say nothing.

    >>> prefix("model.language_model.layers.0.mlp"), prefix("layers.0.mlp")
    ('model.language_model', '')
    """
    parts = unwrapped(name).split(".")
    inner = _inner(parts)
    is_layer = inner[0] in _LAYERS and _around(inner) is not None
    return ".".join(parts[: len(parts) - len(inner)]) if is_layer else None


def in_wrapper(path: str) -> str:
    """Returns the name of a module in a model that sees images as well.

    Args:
      path: canonical.

    >>> in_wrapper("model.layers.0.mlp"), in_wrapper("vision_tower.encoder")
    ('model.language_model.layers.0.mlp', 'model.vision_tower.encoder')
    """
    if path.startswith("model."):
        return f"model.language_model.{path.removeprefix('model.')}"
    return f"model.{path}" if is_seen(path) else path


def _inner(parts: list[str]) -> list[str]:
    """Parts after those that may stand around a language model."""
    outer = (
        _OUTER | {"transformer"} if {"h", "wte", "wpe", "ln_f"} & {*parts} else _OUTER
    )
    start = 0
    while start < len(parts) - 1 and parts[start] in outer:
        start += 1
    return parts[start:]


def _around(inner: list[str]) -> str | None:
    """What stands before these parts in a plain language model; None if it is none."""
    first = inner[0]
    if first in _LAYERS and len(inner) > 1 and inner[1].isdecimal():
        return _LAYERS[first]
    return _ENDS.get(first)
