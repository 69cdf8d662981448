"""One frozen, hashable description of a decoder."""

import dataclasses
from typing import Literal

SIZES = {
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "num_layers": 2**12,
    "passes": 2**12,
    "num_heads": 2**12,
    "num_kv_heads": 2**12,
    "head_dim": 2**16,
    "mlp_size": 2**22,
    "max_length": 2**31 - 1,
    "unroll": 2**12,
}
"""The largest value of each size, some times that of any model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts beyond the trained length.

    ``linear`` divides all of them by ``factor`` (Gemma 3). ``llama3`` divides the slow
    ones, keeps the fast ones, and goes smoothly between (Llama 3.1 and later).
    """

    kind: Literal["linear", "llama3"]
    """The rule."""
    factor: float
    """Positive, unitless."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above original_length / this are divided by factor."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below original_length / this are kept."""
    original_length: int = 8192
    """llama3: tokens of the context before the stretch."""

    def __post_init__(self):
        if self.factor <= 0:
            raise ValueError(f"factor is {self.factor}, expected a positive number.")
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor is {self.high_freq_factor}, expected more than "
                f"low_freq_factor, {self.low_freq_factor}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shapes and choices of a decoder-only transformer.

    The defaults are the study's base: learned positions, plain GELU MLP, untied head.
    Qwen2, Qwen3, Llama 3 and Gemma 2 and 3 are other values of the same fields.
    """

    vocab_size: int = 128
    """V, number of token ids."""
    hidden_size: int = 128
    """D, width of the residual stream."""
    num_layers: int = 4
    """L."""
    passes: int = 1
    """P, times the stack of num_layers layers is applied, with the same parameters;
    > 1 is a looped transformer (arXiv 1807.03819)."""
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
    shared_mlp: bool = False
    """All layers share one MLP's parameters: a memory that every layer re-reads (after
    arXiv 2606.20737)."""
    activation: Literal["gelu", "gelu_tanh", "silu"] = "gelu_tanh"
    """Non-linearity of the MLP."""
    positions: Literal["learned", "rope"] = "learned"
    """Added embeddings, or rotations of queries and keys."""
    max_length: int = 16
    """T at most; the number of learned positions."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    rope_scaling: RopeScaling | None = None
    """Stretch of those frequencies, on global layers only."""
    local_layers: tuple[bool, ...] = ()
    """For each layer, does it see the last ``window`` keys only? Empty for none."""
    window: int = 0
    """Keys that a local layer sees, the query's own included."""
    local_rope_theta: float = 10_000.0
    """Base of the rotary frequencies on local layers, which are never stretched."""
    query_scale: float | None = None
    """Factor on attention scores; by default head_dim ** -0.5."""
    attn_softcap: float = 0.0
    """c in ``c tanh(score / c)`` (Gemma 2); 0 for none."""
    final_softcap: float = 0.0
    """The same on logits."""
    embed_scale: float = 1.0
    """Factor on embeddings as they enter (Gemma: the square root of hidden_size)."""
    norm_plus_one: bool = False
    """RMSNorm multiplies by ``1 + scale`` (Gemma)."""
    post_norms: bool = False
    """Norms after attention and MLP as well as before (Gemma)."""
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
    attention: Literal["auto", "plain", "flash", "cudnn", "splash"] = "auto"
    """The program that computes it. auto is what :func:`jaxlora.models.kernels.on`
    takes for the devices that a checkpoint is loaded to, and else plain, with scores in
    memory: cudnn on a GPU in bfloat16 (heads of at most 128, or 256 from Hopper on, and
    no soft cap), splash on a TPU (heads of a multiple of 128, no local layers). flash
    is XLA's form of ``jax.nn.dot_product_attention``."""
    remat: bool = False
    """Recompute each layer in the backward pass: less memory, a third more time."""
    unroll: int = 1
    """Layers per iteration of the scan; num_layers removes the loop."""

    def __post_init__(self):
        for field, most in SIZES.items():
            if not 1 <= (size := getattr(self, field)) <= most:
                expected = ">= 1" if size < 1 else f"at most {most}"
                raise ValueError(f"{field} is {size}, expected {expected}.")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads is {self.num_heads} and num_kv_heads {self.num_kv_heads}: "
                f"every key head must serve a whole number of query heads."
            )
        if self.local_layers and len(self.local_layers) != self.num_layers:
            raise ValueError(
                f"local_layers has {len(self.local_layers)} entries, expected one for "
                f"each of {self.num_layers} layers."
            )
        if any(self.local_layers) and self.window < 1:
            raise ValueError(
                f"window is {self.window}, expected >= 1: some layers are local."
            )
        if self.attention in ("flash", "cudnn") and self.attn_softcap:
            raise ValueError(
                f"attention is {self.attention!r}, but attn_softcap is set, which it "
                f"cannot do; use 'auto' or 'plain'."
            )
        if self.positions == "rope" and self.head_dim % 2:
            raise ValueError(
                f"head_dim is {self.head_dim}, expected an even number: rotary "
                f"positions turn pairs of channels."
            )
