"""Names and layouts of the tensors in GGUF files, and those of Hugging Face's."""

import re
from collections.abc import Iterable

import numpy as np

OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
INSIDE = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Modules of a layer: theirs, and as Hugging Face spells them."""
_TWO = {"ffn_norm": "post_attention_layernorm"}
_FOUR = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
ROPE = "rope_freqs.weight"
"""Divisors of rotary frequencies: no parameter; see :mod:`.rope`."""


def hugging_face(names: Iterable[str], kind: str) -> dict[str, str]:
    """Returns ``{Hugging Face's name: GGUF's}`` of the parameters of a model.

    Args:
      names: of tensors in GGUF files.
      kind: ``model_type``.

    Raises:
      ValueError: naming a tensor that no decoder of this kind has.

    >>> hugging_face(["blk.3.attn_q.weight", "rope_freqs.weight"], "llama")
    {'model.layers.3.self_attn.q_proj.weight': 'blk.3.attn_q.weight'}
    """
    return {_theirs(name, kind): name for name in names if name != ROPE}


def _theirs(name: str, kind: str) -> str:
    if name in OUTSIDE:
        return OUTSIDE[name]
    match = re.fullmatch(r"blk\.(\d{1,6})\.(\w+)\.(weight|bias)", name)
    inside = INSIDE | (_FOUR if kind.startswith("gemma") else _TWO)
    if match is None or match[2] not in inside:
        raise ValueError(
            f"The file holds a tensor {name!r}, which no decoder of type {kind} has; "
            f"mixtures of experts and adapters are not read from GGUF."
        )
    return f"model.layers.{int(match[1])}.{inside[match[2]]}.{match[3]}"


def restored(values: np.ndarray, name: str, kind: str, heads: int) -> np.ndarray:
    """Returns a tensor as Hugging Face keeps it.

    Two things are undone that writers of GGUF do: in Llama, rows of q and k are
    permuted, because there rotary positions turn neighbouring channels (2i, 2i + 1) and
    here (i, i + H / 2); in Gemma, 1 is added to the scales of norms.

    Args:
      values: [out, in] or [out], float32.
      name: as GGUF spells it.
      kind: ``model_type``.
      heads: of q or k, whichever ``name`` is.

    >>> restored(np.arange(4.0), "blk.0.attn_q.bias", "llama", 1)
    array([0., 2., 1., 3.])
    """
    if kind == "llama" and re.fullmatch(r"blk\.\d+\.attn_[qk]\.\w+", name):
        half = values.shape[0] // heads // 2
        pairs = values.reshape(heads, half, 2, *values.shape[1:])
        return pairs.swapaxes(1, 2).reshape(values.shape)
    if kind.startswith("gemma") and name.endswith("norm.weight"):
        return values - np.float32(1.0)
    return values
