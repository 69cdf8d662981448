"""A functional decoder: base in ``params``, adapters in ``lora``, gates in ``gate``.

>>> config = DecoderConfig(vocab_size=16, hidden_size=8, num_layers=2, mlp_size=16,
...                        num_heads=2, num_kv_heads=2, head_dim=4)
>>> model = Decoder(config)
>>> tokens = jnp.zeros((1, 3), jnp.int32)
>>> base = init(jax.random.key(0), model)
>>> apply(model, base, tokens).shape
(1, 3, 16)
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora.lora import Adapter, Library
from jaxlora.models.config import DecoderConfig
from jaxlora.models.layers import Projection, RMSNorm, activation, rotate
from jaxlora.route.route import Route
from jaxlora.tree import Tree


class Attention(nn.Module):
    """Causal grouped-query attention over [B, T] tokens, flattened to [N, D]."""

    config: DecoderConfig
    route: Route | None = None

    @nn.compact
    def __call__(self, x, mask, positions, labels):
        """Attends; x [N, D], mask [B, T] (true where a key counts), labels [N, E]."""
        c, (b, t) = self.config, mask.shape
        project = _projector(c, self.route, x, labels)
        q = project("q_proj", c.num_heads * c.head_dim, use_bias=c.attention_bias)
        k = project("k_proj", c.num_kv_heads * c.head_dim, use_bias=c.attention_bias)
        v = project("v_proj", c.num_kv_heads * c.head_dim, use_bias=c.attention_bias)
        q, k, v = (z.reshape(b, t, -1, c.head_dim) for z in (q, k, v))
        if c.qk_norm:
            q, k = RMSNorm(c, name="q_norm")(q), RMSNorm(c, name="k_norm")(k)
        if c.positions == "rope":
            q = rotate(q, positions, c.rope_theta)
            k = rotate(k, positions, c.rope_theta)
        out = attend(q, k, v, mask).reshape(b * t, -1)
        return _output(c, self.route, out, labels, "o_proj")


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Causal softmax attention in float32.

    Args:
      q: queries [B, T, H, K].
      k: keys [B, T, G, K], H a multiple of G.
      v: values [B, T, G, K].
      mask: [B, T], true where a key may be attended to; a query that may attend to
        nothing gets zeros.

    Returns:
      [B, T, H, K].
    """
    b, t, heads, width = q.shape
    groups = k.shape[2]
    q = q.reshape(b, t, groups, heads // groups, width)
    scores = jnp.einsum("btghk,bsgk->bghts", q, k).astype(jnp.float32) * width**-0.5
    allowed = jnp.tril(jnp.ones((t, t), bool))[None] & mask[:, None, :]
    allowed = allowed[:, None, None]
    # A finite floor, not -inf: a row without any key must give zeros, not NaN.
    scores = jnp.where(allowed, scores, -1e30)
    share = jax.nn.softmax(scores, axis=-1) * allowed.astype(jnp.float32)
    out = jnp.einsum("bghts,bsgk->btghk", share.astype(v.dtype), v)
    return out.reshape(b, t, heads, width)


class Mlp(nn.Module):
    """``down(act(up x))``, or the gated form."""

    config: DecoderConfig
    route: Route | None = None

    @nn.compact
    def __call__(self, x, labels):
        """Applies the MLP to x [N, D]."""
        c = self.config
        project = _projector(c, self.route, x, labels)
        act = activation(c.activation)
        if c.mlp == "gated":
            hidden = act(project("gate_proj", c.mlp_size)) * project(
                "up_proj", c.mlp_size
            )
        else:
            hidden = act(project("up_proj", c.mlp_size))
        return _output(c, self.route, hidden, labels, "down_proj")


def _projector(config: DecoderConfig, route: Route | None, x, labels):
    init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")

    def project(name: str, features: int, use_bias: bool = False) -> jax.Array:
        layer = Projection(features, config, route, use_bias, init, name=name)
        return layer(x, labels)

    return project


def _output(config: DecoderConfig, route: Route | None, x, labels, name: str):
    # Two of these per layer add to the residual stream: 1 / 2L keeps its variance.
    scale = 0.5 / config.num_layers
    init = nn.initializers.variance_scaling(scale, "fan_in", "normal")
    layer = Projection(config.hidden_size, config, route, kernel_init=init, name=name)
    return layer(x, labels)


class Layer(nn.Module):
    """Pre-norm attention and MLP; the body of the scan over layers."""

    config: DecoderConfig
    route: Route | None = None

    @nn.compact
    def __call__(self, x, labels, mask, positions):
        """Maps the carry x [N, D]; labels [N, E] are this layer's."""
        c, r = self.config, self.route
        h = RMSNorm(c, name="attn_norm")(x)
        x = x + Attention(c, r, name="attn")(h, mask, positions, labels)
        h = RMSNorm(c, name="mlp_norm")(x)
        return x + Mlp(c, r, name="mlp")(h, labels), None


class Decoder(nn.Module):
    """Decoder-only transformer with layers under ``nn.scan``.

    Kernels are [L, D, F]. ``lora`` leaves are a [L, D, R] without a route, and
    a [E, L, D, R] with one: the route says which, never the shapes.
    """

    config: DecoderConfig
    route: Route | None = None

    @nn.compact
    def __call__(self, tokens, mask=None, labels=None):
        """Returns logits [B, T, V] in float32; see :func:`apply` for the arguments."""
        c, (b, t) = self.config, tokens.shape
        mask = jnp.ones((b, t), bool) if mask is None else mask
        positions = jnp.broadcast_to(jnp.arange(t)[None], (b, t))
        dtype = jnp.dtype(c.dtype)
        embed = nn.Embed(
            c.vocab_size,
            c.hidden_size,
            dtype=dtype,
            param_dtype=jnp.dtype(c.param_dtype),
            embedding_init=nn.initializers.normal(c.embed_std),
            name="embed",
        )
        x = embed(tokens)
        if c.positions == "learned":
            normal = nn.initializers.normal(0.1)
            shape = (c.max_length, c.hidden_size)
            where = self.param("positions", normal, shape, jnp.dtype(c.param_dtype))
            x = x + where[None, :t].astype(dtype)
        x = self._layers(x.reshape(b * t, -1), labels, mask, positions)
        x = RMSNorm(c, name="final_norm")(x).astype(jnp.float32)
        if c.tie_head:
            logits = x @ embed.embedding.astype(jnp.float32).T
        else:
            shape = (c.hidden_size, c.vocab_size)
            init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
            head = self.param("head", init, shape, jnp.dtype(c.param_dtype))
            logits = x @ head.astype(jnp.float32)
        return logits.reshape(b, t, -1)

    def _layers(self, x, labels, mask, positions):
        c = self.config
        axis = 0 if self.route is None else 1
        layer = nn.remat(Layer, prevent_cse=False) if c.remat else Layer
        stack = nn.scan(
            layer,
            variable_axes={"params": 0, "lora": axis, "gate": axis},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=c.num_layers,
            unroll=c.unroll,
        )
        if labels is not None:
            labels = labels.reshape(c.num_layers, x.shape[0], labels.shape[-1])
        x, _ = stack(c, self.route, name="layers")(x, labels, mask, positions)
        return x


def init(key: jax.Array, model: Decoder) -> Tree:
    """Returns fresh base parameters."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    return Decoder(model.config).init(key, tokens)["params"]


def apply(
    model: Decoder,
    base: Tree,
    tokens: jax.Array,
    *,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
    mask: jax.Array | None = None,
    labels: jax.Array | None = None,
) -> jax.Array:
    """Runs the base alone, with one adapter, or with a routed library.

    Args:
      model: a decoder; its ``route`` says whether it is routed.
      base: params tree.
      tokens: [B, T] token ids, T <= max_length for learned positions.
      adapter: one adapter, for a model without a route.
      library: a library [E, ...], for a model with a route.
      gate: gate state for the library; by default ``route.gate.init(library)``.
      mask: [B, T], true where a token may be attended to; padding is false.
      labels: [L, B, T, E] gate weights, for the oracle gate only.

    Returns:
      Logits [B, T, V], float32.

    Raises:
      ValueError: if adapter or library does not fit the base or the model's route,
        the labels have another shape, or the sequence is too long.
    """
    c = model.config
    if c.positions == "learned" and tokens.shape[1] > c.max_length:
        raise ValueError(
            f"Sequences have {tokens.shape[1]} tokens, but the model has learned "
            f"positions for {c.max_length}; raise max_length or shorten the input."
        )
    variables: dict[str, Any] = {"params": base}
    if model.route is None:
        if library is not None or gate is not None or labels is not None:
            raise ValueError(
                "Got a library, gate or labels, but the model has no route; build it "
                "with Decoder(config, route), or merge the library into one adapter."
            )
        if adapter is not None:
            lora.check(base, adapter)
            variables["lora"] = adapter
    else:
        variables |= _routed(model, base, tokens, adapter, library, gate, labels)
    return model.apply(variables, tokens, mask, labels)  # pyrefly: ignore


def _routed(model: Decoder, base, tokens, adapter, library, gate, labels):
    if adapter is not None or library is None:
        raise ValueError(
            "The model has a route, so it needs library=..., and no adapter=...; "
            "stack() makes a library of adapters."
        )
    experts = lora.num_experts(library)
    lora.check(base, library, experts)
    wanted = (model.config.num_layers, *tokens.shape, experts)
    if labels is not None and labels.shape != wanted:
        raise ValueError(
            f"Oracle labels have shape {labels.shape}, expected [L, B, T, E] = "
            f"{wanted}."
        )
    route: Any = model.route
    state = route.gate.init(library) if gate is None else gate
    return {"lora": library, "gate": state}
