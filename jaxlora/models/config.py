"""One frozen, hashable description of a decoder."""

import dataclasses
from typing import Literal

AT_LEAST_ONE = (
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "mlp_size",
    "max_length",
    "unroll",
)
"""Fields that are sizes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shapes and choices of a decoder-only transformer.

    The defaults are the study's base: learned positions, plain GELU MLP, untied head.
    Qwen2, Qwen3 and Llama without rope scaling are other values of the same fields.
    Gemma is not: its embedding scale, norms after blocks and soft caps are missing.
    """

    vocab_size: int = 128
    """V, number of token ids."""
    hidden_size: int = 128
    """D, width of the residual stream."""
    num_layers: int = 4
    """L."""
    num_heads: int = 4
    """Query heads."""
    num_kv_heads: int = 4
    """Key and value heads; divides num_heads (grouped-query attention)."""
    head_dim: int = 32
    """Width of a head; need not be hidden_size / num_heads."""
    mlp_size: int = 512
    """Hidden width of the MLP."""
    mlp: Literal["plain", "gated"] = "plain"
    """down(act(up x)), or down(act(gate x) * up x)."""
    activation: Literal["gelu", "gelu_tanh", "silu"] = "gelu_tanh"
    """Non-linearity of the MLP."""
    positions: Literal["learned", "rope"] = "learned"
    """Added embeddings, or rotations of queries and keys."""
    max_length: int = 16
    """T at most; the number of learned positions."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    tie_head: bool = False
    """Use the embedding, transposed, as the head."""
    attention_bias: bool = False
    """Biases on q, k and v (Qwen2)."""
    qk_norm: bool = False
    """RMSNorm on each head's queries and keys (Qwen3)."""
    norm_eps: float = 1e-6
    """Added to the mean square in RMSNorm."""
    embed_std: float = 0.3
    """Standard deviation of fresh embeddings."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations; norms, softmax and logits are always float32."""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the base parameters."""
    remat: bool = False
    """Recompute each layer in the backward pass: less memory, a third more time."""
    unroll: int = 1
    """Layers per iteration of the scan; num_layers removes the loop."""

    def __post_init__(self):
        for field in AT_LEAST_ONE:
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}, expected >= 1.")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads is {self.num_heads} and num_kv_heads {self.num_kv_heads}: "
                f"every key head must serve a whole number of query heads."
            )
        if self.positions == "rope" and self.head_dim % 2:
            raise ValueError(
                f"head_dim is {self.head_dim}, expected an even number: rotary "
                f"positions turn pairs of channels."
            )
