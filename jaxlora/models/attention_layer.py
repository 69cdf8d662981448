"""A layer's attention: projections, norms, rotary positions, cache, and a kernel."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora.models import kernels
from jaxlora.models.attention import LayerPosition, View, attend
from jaxlora.models.config import DecoderConfig
from jaxlora.models.layers import RMSNorm
from jaxlora.models.mlp import output, projector
from jaxlora.models.rope import frequencies, rotate
from jaxlora.models.routing import RoutingInputs
from jaxlora.parallel import layout
from jaxlora.route import Route


class Attention(nn.Module):
    """Causal grouped-query attention over [B, T] tokens, flattened to [N, D]."""

    config: DecoderConfig
    route: Route | None = None

    @nn.compact
    def __call__(
        self, x, stored, routing: RoutingInputs, layer: LayerPosition, view: View
    ):
        """Attends; x [N, D], stored the cached (keys, values) or None.

        Returns:
          The output [N, D], and what is stored with this call's keys and values.
        """
        c, (b, t) = self.config, view.positions.shape
        q, k, v, gate = self._projections(x, routing, b, t)
        if c.positions == "rope":
            frequency, factor = self._rotary(layer, view)
            q = rotate(q, view.positions, frequency, factor)
            k = rotate(k, view.positions, frequency, factor)
        k, v = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
        if stored is not None:
            stored = tuple(map(_store(layer, view), stored, (k, v)))
            k, v = (
                jax.lax.dynamic_index_in_dim(s, _slot(layer), keepdims=False)
                for s in stored
            )
        out = self._attend(q, k, v, layer, view)
        out = out.reshape(b * t, -1)
        if gate is not None:
            out = out * nn.sigmoid(gate)
        return output(c, self.route, out, routing, "o_proj", c.output_bias), stored

    def _projections(self, x, routing: RoutingInputs, b: int, t: int):
        c = self.config
        project = projector(c, self.route, x, routing)
        wide, narrow = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
        if c.fused_projections:
            qkv = project("qkv_proj", wide + 2 * narrow, use_bias=c.attention_bias)
            q, k, v = jnp.split(qkv, (wide, wide + narrow), axis=-1)
        else:
            both = 2 * wide if c.output_gate else wide
            q = project("q_proj", both, use_bias=c.attention_bias)
            k = project("k_proj", narrow, use_bias=c.attention_bias)
            v = project("v_proj", narrow, use_bias=c.attention_bias)
        gate = None
        if c.output_gate:  # a head's queries, and then its gate
            q, gate = jnp.split(q.reshape(b * t, -1, 2 * c.head_dim), 2, axis=-1)
            gate = gate.reshape(b * t, -1)
        if c.qk_norm_joint:
            q, k = RMSNorm(c, name="q_norm")(q), RMSNorm(c, name="k_norm")(k)
        q, k, v = (z.reshape(b, t, -1, c.head_dim) for z in (q, k, v))
        q, k, v = (layout.by_batch(z, b, None, "tensor", None) for z in (q, k, v))
        if c.qk_norm:
            q, k = RMSNorm(c, name="q_norm")(q), RMSNorm(c, name="k_norm")(k)
        return q, k, v, gate

    def _rotary(self, layer: LayerPosition, view: View):
        """The layer's frequencies [C / 2], and the factor on what is rotated."""
        c, scaling = self.config, self.config.rope_scaling
        factor = 1.0 if scaling is None else scaling.attention_factor
        frequency = jnp.asarray(
            frequencies(c.rotated, c.rope_theta, scaling, view.length)
        )
        if layer.local is not None and c.local_rope_theta is not None:
            near = jnp.asarray(frequencies(c.rotated, c.local_rope_theta))
            frequency = jnp.where(layer.local, near, frequency)
            factor = factor if factor == 1.0 else jnp.where(layer.local, 1.0, factor)
        if layer.rotary is not None:  # an angle of 0 leaves all as it is
            frequency = jnp.where(layer.rotary, frequency, 0.0)
            if not isinstance(factor, float) or factor != 1.0:
                factor = jnp.where(layer.rotary, factor, 1.0)
        return frequency, factor

    def _attend(self, q, k, v, layer: LayerPosition, view: View) -> jax.Array:
        c = self.config
        scale = c.head_dim**-0.5 if c.query_scale is None else c.query_scale
        allowed = view.seen
        if layer.local is not None and view.near is not None and allowed is not None:
            allowed = jnp.where(layer.local, view.near, allowed)
        causal, cached = allowed is None, view.segments is None
        kernel = kernels.chosen(c, q.shape[1], causal=causal, cached=cached)
        if kernel == "splash" and view.segments is not None:
            cap = c.attn_softcap
            return kernels.splash(q, k, v, view.segments, scale=scale, softcap=cap)
        if kernel in ("flash", "cudnn"):
            return kernels.flash(q, k, v, allowed, scale=scale, fused=kernel == "cudnn")
        if allowed is None:
            allowed = jnp.tril(jnp.ones((1, q.shape[1], k.shape[2]), bool))
        return attend(q, k, v, allowed, scale=scale, softcap=c.attn_softcap)


def _slot(layer: LayerPosition) -> jax.Array:
    return layer.index if layer.slot is None else layer.slot


def _store(layer: LayerPosition, view: View):
    def store(stored: jax.Array, new: jax.Array) -> jax.Array:
        start = jnp.int32(0) if view.start is None else view.start
        where = (_slot(layer), 0, 0, start, 0)
        return jax.lax.dynamic_update_slice(stored, new[None], where)

    return store
