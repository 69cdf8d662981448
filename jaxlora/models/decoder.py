"""A functional decoder: base in ``params``, adapters in ``lora``, gates in ``gate``."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora.models.config import DecoderConfig
from jaxlora.models.layers import Projection, RMSNorm, activation, rotate
from jaxlora.route.route import Route


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
            variable_axes={"params": 0, "lora": axis, "gate": axis, "routes": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=c.num_layers,
            unroll=c.unroll,
        )
        if labels is not None:
            labels = labels.reshape(c.num_layers, x.shape[0], labels.shape[-1])
        x, _ = stack(c, self.route, name="layers")(x, labels, mask, positions)
        return x
