"""One frozen, hashable description of a decoder."""

import dataclasses
from typing import Literal

from jaxlora.models.config_parts import DeltaConfig as DeltaConfig
from jaxlora.models.config_parts import Kind as Kind
from jaxlora.models.config_parts import RopeScaling as RopeScaling

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
_BY_LAYER = "local_layers", "rotary_layers", "delta_layers", "dense_layers"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shapes and choices of a decoder-only transformer.

    The defaults are the study's base: learned positions, plain GELU MLP, untied head.
    Families of Hugging Face checkpoints are other values of the same fields:
    :mod:`jaxlora.models.families` has a page for each.
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
    moe_mlps: int = 0
    """X, gated MLPs in each layer, of which a router picks moe_top_k for each token; 0
    for a single MLP. Elsewhere they are called experts, which here are adapters."""
    moe_top_k: int = 2
    """MLPs that a token is sent to."""
    moe_normalize: bool = True
    """The weights of the picked MLPs add up to 1 (Mixtral)."""
    moe_shared: int = 0
    """Width of one more MLP, to which all tokens are sent, weighed by the sigmoid of a
    gate of its own; 0 for none (Qwen3-Next)."""
    dense_layers: tuple[bool, ...] = ()
    """For each layer, has it a single MLP although others have moe_mlps? Empty for
    none."""
    dense_size: int = 0
    """Hidden width of those single MLPs."""
    fused_projections: bool = False
    """q, k and v are one kernel, and so are gate and up of a gated MLP (Phi-3, GPT-2):
    an adapter of it is of all its parts."""
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
    """Stretch of those frequencies."""
    rotary_dim: int | None = None
    """Channels of a head that are rotated, the first ones; None for all."""
    rotary_layers: tuple[bool, ...] = ()
    """For each layer, are queries and keys rotated? Empty for all (SmolLM3)."""
    local_layers: tuple[bool, ...] = ()
    """For each layer, does it see the last ``window`` keys only? Empty for none."""
    window: int = 0
    """Keys that a local layer sees, the query's own included."""
    local_rope_theta: float | None = 10_000.0
    """Base of the rotary frequencies on local layers, which are then never stretched;
    None where they have the frequencies of all others."""
    delta_layers: tuple[bool, ...] = ()
    """For each layer, is its mixer of tokens a gated delta rule, and not attention?
    Empty for none (Qwen3.5)."""
    delta: DeltaConfig | None = None
    """Its shapes, if a layer has one."""
    query_scale: float | None = None
    """Factor on attention scores; by default head_dim ** -0.5."""
    attn_softcap: float = 0.0
    """c in ``c tanh(score / c)`` (Gemma 2); 0 for none."""
    final_softcap: float = 0.0
    """The same on logits."""
    logit_divisor: float = 1.0
    """Logits are divided by this (Granite)."""
    embed_scale: float = 1.0
    """Factor on embeddings as they enter (Gemma: the square root of hidden_size)."""
    residual_scale: float = 1.0
    """Factor on what attention and MLP add to the residual stream (Granite)."""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm, or LayerNorm with a bias (GPT-2)."""
    norm_plus_one: bool = False
    """RMSNorm multiplies by ``1 + scale`` (Gemma)."""
    pre_norms: bool = True
    """Norms before attention and MLP; without them post_norms (OLMo 2)."""
    post_norms: bool = False
    """Norms after attention and MLP (Gemma, OLMo 2)."""
    tie_head: bool = False
    """Use the embedding, transposed, as the head."""
    attention_bias: bool = False
    """Biases on q, k and v (Qwen2)."""
    output_gate: bool = False
    """Attention's output is multiplied by the sigmoid of a gate, which q_proj makes
    beside the queries (Qwen3.5)."""
    output_bias: bool = False
    """A bias on attention's output (GPT-2)."""
    mlp_bias: bool = False
    """Biases in the MLP (GPT-2)."""
    qk_norm: bool = False
    """RMSNorm on each head's queries and keys (Qwen3)."""
    qk_norm_joint: bool = False
    """One RMSNorm over the queries of all heads, and one over the keys (OLMo 2)."""
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
        for field in _BY_LAYER:
            entries = len(getattr(self, field))
            if entries not in (0, self.num_layers):
                raise ValueError(
                    f"{field} has {entries} entries, expected one for each of "
                    f"{self.num_layers} layers."
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
        self._check_rotary()
        self._check_delta()
        self._check_blocks()

    def _check_rotary(self) -> None:
        if self.positions != "rope":
            return
        width = self.rotated
        if width % 2 or not 2 <= width <= self.head_dim:
            name = "head_dim" if self.rotary_dim is None else "rotary_dim"
            raise ValueError(
                f"{name} is {width}, expected an even number up to {self.head_dim}: "
                f"rotary positions turn pairs of channels."
            )
        scaling = self.rope_scaling
        if scaling is None:
            return
        if scaling.kind == "longrope" and len(scaling.short_factors) != width // 2:
            raise ValueError(
                f"longrope has {len(scaling.short_factors)} factors, expected "
                f"{width // 2}, one for each pair of {width} rotated channels."
            )
        if scaling.kind == "dynamic" and width < 4:
            raise ValueError(
                f"{width} rotated channels have one frequency, which never changes, "
                f"expected 4 or more for rope scaling 'dynamic'."
            )

    def _check_delta(self) -> None:
        if any(self.delta_layers) != (self.delta is not None):
            raise ValueError(
                f"delta is {self.delta} with {sum(self.delta_layers)} delta_layers, "
                f"expected shapes if a layer has a gated delta rule, and else None."
            )
        if self.delta is None:
            return
        if self.passes > 1 or self.shared_mlp or self.fused_projections:
            raise ValueError(
                f"delta_layers are given with passes={self.passes}, shared_mlp="
                f"{self.shared_mlp} and fused_projections={self.fused_projections}, "
                f"expected one pass over layers of their own parameters."
            )

    def _check_blocks(self) -> None:
        if self.moe_mlps and not 1 <= self.moe_top_k <= self.moe_mlps:
            raise ValueError(
                f"moe_top_k is {self.moe_top_k}, expected 1 to {self.moe_mlps}, the "
                f"MLPs of a layer (moe_mlps)."
            )
        if self.moe_mlps and (self.shared_mlp or self.mlp != "gated" or self.mlp_bias):
            raise ValueError(
                f"moe_mlps is {self.moe_mlps} with mlp={self.mlp!r}, shared_mlp="
                f"{self.shared_mlp} and mlp_bias={self.mlp_bias}; expected gated MLPs "
                f"without biases in each layer."
            )
        dense = any(self.dense_layers)
        if (self.moe_shared and not self.moe_mlps) or dense != bool(self.dense_size):
            raise ValueError(
                f"moe_shared is {self.moe_shared} and dense_size {self.dense_size} "
                f"with moe_mlps={self.moe_mlps} and {sum(self.dense_layers)} "
                f"dense_layers, expected a size where there is such an MLP, and else 0."
            )
        if dense and (not self.moe_mlps or self.passes > 1):
            raise ValueError(
                f"dense_layers are given with moe_mlps={self.moe_mlps} and passes="
                f"{self.passes}, expected one pass, and several MLPs in other layers."
            )
        if not self.pre_norms and not self.post_norms:
            raise ValueError(
                "pre_norms and post_norms are both false, expected norms before or "
                "after attention and MLP."
            )

    @property
    def rotated(self) -> int:
        """Channels of a head that are rotated."""
        return self.head_dim if self.rotary_dim is None else self.rotary_dim

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of the first layers, after which they come again in the same order.

        >>> config = DecoderConfig(num_layers=3, passes=2)
        >>> config.kinds
        (Kind(delta=False, dense=False),)
        """
        delta = self.delta_layers or (False,) * self.num_layers
        dense = self.dense_layers or (False,) * self.num_layers
        every = tuple(map(Kind, delta, dense))
        count = self.num_layers
        return next(
            every[:period]
            for period in range(1, count + 1)
            if count % period == 0 and every == every[:period] * (count // period)
        )
