"""Names of modules in the kinds of checkpoints that families have, by ours."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxlora.models.config import DecoderConfig

KERNELS = {
    "layers/attn/q_proj": "self_attn.q_proj",
    "layers/attn/k_proj": "self_attn.k_proj",
    "layers/attn/v_proj": "self_attn.v_proj",
    "layers/attn/qkv_proj": "self_attn.qkv_proj",
    "layers/attn/o_proj": "self_attn.o_proj",
    "layers/mlp/gate_proj": "mlp.gate_proj",
    "layers/mlp/up_proj": "mlp.up_proj",
    "layers/mlp/gate_up_proj": "mlp.gate_up_proj",
    "layers/mlp/down_proj": "mlp.down_proj",
    "layers/moe/router": "mlp.gate",
    "layers/delta/in_proj_qkvz": "linear_attn.in_proj_qkvz",
    "layers/delta/in_proj_ba": "linear_attn.in_proj_ba",
    "layers/delta/in_proj_qkv": "linear_attn.in_proj_qkv",
    "layers/delta/in_proj_z": "linear_attn.in_proj_z",
    "layers/delta/in_proj_b": "linear_attn.in_proj_b",
    "layers/delta/in_proj_a": "linear_attn.in_proj_a",
    "layers/delta/out_proj": "linear_attn.out_proj",
}
"""Linear layers: ours and theirs, in most families."""
STACKED = {
    "layers/moe/gate": "mlp.experts.{}.gate_proj",
    "layers/moe/up": "mlp.experts.{}.up_proj",
    "layers/moe/down": "mlp.experts.{}.down_proj",
}
"""Those of several MLPs in a layer, with the number of the MLP."""

_QK_NORMS = {"layers/attn/q_norm": "self_attn.q_norm"}
_QK_NORMS |= {"layers/attn/k_norm": "self_attn.k_norm"}
_PRE_NORMS = _QK_NORMS | {
    "layers/delta/norm": "linear_attn.norm",
    "layers/delta/conv": "linear_attn.conv1d",
    "layers/attn_norm": "input_layernorm",
    "layers/mlp_norm": "post_attention_layernorm",
}
_POST_NORMS = _QK_NORMS | {
    "layers/attn_post_norm": "post_attention_layernorm",
    "layers/mlp_post_norm": "post_feedforward_layernorm",
}
_FOUR_NORMS = _POST_NORMS | {
    "layers/attn_norm": "input_layernorm",
    "layers/mlp_norm": "pre_feedforward_layernorm",
}


ARRAYS = {
    "layers/delta/a_log": "linear_attn.A_log",
    "layers/delta/dt_bias": "linear_attn.dt_bias",
}
"""Arrays that are no part of a module of their own there."""


SHARED = {
    "layers/moe/shared/gate_proj": "mlp.shared_expert.gate_proj",
    "layers/moe/shared/up_proj": "mlp.shared_expert.up_proj",
    "layers/moe/shared/down_proj": "mlp.shared_expert.down_proj",
    "layers/moe/shared_gate": "mlp.shared_expert_gate",
}
"""The MLP that all tokens share in a mixture, and its gate."""


class Table(NamedTuple):
    """Names in one kind of checkpoint, by ours."""

    layers: str
    """The list of layers."""
    kernels: Mapping[str, str]
    """Linear layers within a layer; a ``{}`` is the number of an MLP."""
    norms: Mapping[str, str]
    """Norms and convolutions within a layer."""
    outside: Mapping[str, str]
    """Modules outside of the layers."""
    turned: bool = True
    """Are linear layers stored as [out, in]?"""


LLAMA = Table(
    layers="model.layers",
    kernels=KERNELS | STACKED,
    norms=_PRE_NORMS,
    outside={
        "embed": "model.embed_tokens",
        "final_norm": "model.norm",
        "head": "lm_head",
    },
)
MIXTRAL = LLAMA._replace(
    kernels=KERNELS
    | {
        "layers/moe/router": "block_sparse_moe.gate",
        "layers/moe/gate": "block_sparse_moe.experts.{}.w1",
        "layers/moe/up": "block_sparse_moe.experts.{}.w3",
        "layers/moe/down": "block_sparse_moe.experts.{}.w2",
    }
)
GPT2 = Table(
    layers="transformer.h",
    kernels={
        "layers/attn/qkv_proj": "attn.c_attn",
        "layers/attn/o_proj": "attn.c_proj",
        "layers/mlp/up_proj": "mlp.c_fc",
        "layers/mlp/down_proj": "mlp.c_proj",
    },
    norms={"layers/attn_norm": "ln_1", "layers/mlp_norm": "ln_2"},
    outside={
        "embed": "transformer.wte",
        "positions": "transformer.wpe",
        "final_norm": "transformer.ln_f",
        "head": "lm_head",
    },
    turned=False,
)


def table(config: DecoderConfig | None) -> Table:
    """Returns the names that checkpoints of such a decoder have.

    Args:
      config: of the decoder; None for those that most families have.
    """
    if config is None:
        return LLAMA
    if config.norm == "layer":
        return GPT2
    if config.moe_mlps and not config.qk_norm:
        return MIXTRAL
    norms = _FOUR_NORMS if config.post_norms else _PRE_NORMS
    kernels = LLAMA.kernels if not config.moe_shared else {**LLAMA.kernels, **SHARED}
    norms = norms if config.pre_norms else _POST_NORMS
    return LLAMA._replace(kernels=kernels, norms=norms)
