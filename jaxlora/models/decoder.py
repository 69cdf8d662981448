"""A functional decoder: base in ``params``, adapters in ``lora``, gates in ``gate``."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora.lora import LoraWeight
from jaxlora.models import kernels, sites
from jaxlora.models.attention import LayerPosition, View, attend, layer_positions
from jaxlora.models.cache import Cache
from jaxlora.models.config import DecoderConfig, Kind
from jaxlora.models.delta import DELTA, Delta
from jaxlora.models.inputs import Inputs
from jaxlora.models.layers import RMSNorm, apply_lora, norm
from jaxlora.models.mlp import MEMORY, Memory, Mlp, declare, output, projector
from jaxlora.models.moe import MOE, Moe
from jaxlora.models.rope import frequencies, rotate
from jaxlora.models.routing import POOLED, RoutingInputs, weigh
from jaxlora.models.view import view_of
from jaxlora.parallel import layout
from jaxlora.route import ROUTER, Route


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


class Layer(nn.Module):
    """A mixer of tokens and an MLP with their norms; the body of the scan over layers."""

    config: DecoderConfig
    route: Route | None = None
    kind: Kind = Kind()

    @nn.compact
    def __call__(self, carry, labels, layer: LayerPosition, view: View, memory):
        """Maps the carry (x [N, D], stored); labels [N, E] are this layer's.

        The variables of a memory, or None, are those of all layers.
        """
        c, r, (x, stored) = self.config, self.route, carry
        routing = RoutingInputs(labels, view.pool)
        if r is not None and r.per == "layer":
            routing = routing._replace(weights=weigh(self, r, ROUTER, x, routing))
        h = norm(c, name="attn_norm")(x) if c.pre_norms else x
        h, stored = self._mixed(h, stored, routing, layer, view)
        x = self._add(x, h, "attn_post_norm")
        x = layout.by_batch(x, view.positions.shape[0])
        h = norm(c, name="mlp_norm")(x) if c.pre_norms else x
        if memory is not None:
            h = Memory(c, r, name=MEMORY)(h, routing, memory)
        elif c.moe_mlps:
            h = Moe(c, r, name=MOE)(h, routing)
        else:
            h = Mlp(c, r, name="mlp")(h, routing)
        x = self._add(x, h, "mlp_post_norm")
        return (layout.by_batch(x, view.positions.shape[0]), stored), None

    def _mixed(self, h, stored, routing: RoutingInputs, layer, view: View):
        """What the mixer makes of h [N, D], and the cached (keys, values, state)."""
        c, r = self.config, self.route
        *pair, state = (None, None, None) if stored is None else stored
        cached = None if stored is None else tuple(pair)
        if self.kind.delta:
            h, state = Delta(c, r, name=DELTA)(h, state, routing, layer, view)
        else:
            h, cached = Attention(c, r, name="attn")(h, cached, routing, layer, view)
        return h, None if cached is None else (*cached, state)

    def _add(self, x: jax.Array, h: jax.Array, name: str) -> jax.Array:
        """The residual stream x with a block's output h, normed under ``name``."""
        c = self.config
        h = norm(c, name=name)(h) if c.post_norms else h
        if c.residual_scale != 1.0:
            h = h * jnp.asarray(c.residual_scale, h.dtype)
        return x + h


class Period(nn.Module):
    """Layers of several kinds, 0 to the last, in the order in which they come again."""

    config: DecoderConfig
    route: Route | None = None

    @nn.compact
    def __call__(self, carry, labels, layers: LayerPosition, view: View, memory):
        """As :class:`Layer`; labels and positions have an axis of these layers."""
        for i, kind in enumerate(self.config.kinds):
            each = _rematerialised(self.config)(
                self.config, self.route, kind, name=str(i)
            )
            mine = jax.tree.map(lambda x, i=i: x[i], (labels, layers))
            carry, _ = each(carry, *mine, view, memory)
        return carry, None


def _rematerialised(c: DecoderConfig) -> Any:
    """The class of a layer; what its backward pass computes again, the config says."""
    if c.remat:
        return nn.remat(Layer, prevent_cse=False)
    if layout.gathers():
        return nn.remat(Layer, prevent_cse=False, policy=layout.saved)
    return Layer


class Output(NamedTuple):
    """What a call of a decoder returns."""

    hidden: jax.Array
    """Final hidden states [B, T, D]; :func:`logits` makes scores of them."""
    cache: Cache | None = None
    """Keys and values of all tokens so far, if the call was given a cache."""


class Decoder(nn.Module):
    """Decoder-only transformer with layers under ``nn.scan``.

    The stack is applied ``passes`` times. Kernels are [L, D, F], those of a shared MLP
    [D, F]; where layers of several kinds come in periods of P, layer p of each period
    has kernels ``layers/p/...`` [L / P, D, F]. ``lora`` leaves are a [L, D, R] without a route, and a [E, L, D, R] with
    one: the route says which, never the shapes.
    """

    config: DecoderConfig
    route: Route | None = None

    @nn.compact
    def __call__(
        self,
        inputs: Inputs,
        labels: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> Output:
        """Returns final hidden states, and the next cache if there is one.

        Args:
          inputs: tokens [B, T], and their mask, segments or positions.
          labels: weights of the oracle, [L, B, T, E], the same in each pass; or None.
          cache: what earlier calls left, or None.
        """
        c, route, (b, t) = self.config, self.route, inputs.tokens.shape
        cache, view = view_of(c, route, inputs, cache)
        plain = cache is None and inputs.positions is None
        x = self._embed(inputs.tokens, None if plain else view.positions)
        x = layout.by_batch(x.reshape(b * t, -1), b)
        if route is not None and route.per == "model":
            weights = weigh(self, route, ROUTER, x, RoutingInputs(None, view.pool))
            labels = jnp.broadcast_to(weights, (c.num_layers, *weights.shape))
        stored = None if cache is None else (cache.keys, cache.values, cache.state)
        fresh = self.is_initializing()
        memory = declare(c, route, x, fresh) if c.shared_mlp else None
        x, stored = self._layers((x, stored), labels, view, memory)
        x = norm(c, name="final_norm")(x).reshape(b, t, -1)
        if not c.tie_head:  # not used here, but declared with the other parameters
            init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
            shape = (c.hidden_size, c.vocab_size)
            self.param("head", init, shape, jnp.dtype(c.param_dtype))
        if cache is None or stored is None:
            return Output(x)
        new = dict(zip(("keys", "values", "state"), stored, strict=True))
        return Output(x, dataclasses.replace(cache, **new))

    def _embed(self, tokens, positions) -> jax.Array:
        c = self.config
        dtype, param_dtype = jnp.dtype(c.dtype), jnp.dtype(c.param_dtype)
        embed = nn.Embed(
            c.vocab_size,
            c.hidden_size,
            dtype=dtype,
            param_dtype=param_dtype,
            embedding_init=nn.initializers.normal(c.embed_std),
            name="embed",
        )
        # Each device looks all rows up in its columns of the table, and then sends
        # away those of other devices: rows are smaller than the table.
        x = embed(layout.constrain(tokens, "data", None))
        x = layout.constrain(x, "data", None, "fsdp")
        if self.has_variable("lora", "embed"):
            weight = self.get_variable("lora", "embed")["embedding"]
            x = x + sites.lookup(weight, tokens).astype(dtype)
        if c.embed_scale != 1.0:
            x = x * jnp.asarray(c.embed_scale, dtype)
        if c.positions == "learned":
            normal = nn.initializers.normal(0.1)
            shape = (c.max_length, c.hidden_size)
            where = self.param("positions", normal, shape, param_dtype)
            # The gradient of a slice is a sum; that of a gather is a slow scatter.
            chosen = (
                where[None, : x.shape[1]] if positions is None else where[positions]
            )
            x = x + chosen.astype(dtype)
        return x

    def _layers(self, carry, labels, view: View, memory):
        c = self.config
        axis = 0 if self.route is None else 1
        period, single = len(c.kinds), len(c.kinds) == 1
        stack = nn.scan(
            _rematerialised(c) if single else Period,
            variable_axes={
                "params": 0,
                "lora": axis,
                "gate": axis,
                "routes": 0,
                POOLED: 0,
            },
            split_rngs={"params": True},
            in_axes=(0, 0, nn.broadcast, nn.broadcast),
            length=c.num_layers // period,
            unroll=max(1, c.unroll // period),
        )
        if labels is not None:
            labels = labels.reshape(c.num_layers, carry[0].shape[0], labels.shape[-1])
        layers = stack(c, self.route, *(c.kinds if single else ()), name="layers")
        for first in range(0, c.passes * c.num_layers, c.num_layers):
            every = layer_positions(c, jnp.arange(first, first + c.num_layers))
            given = (labels, every) if single else _periods((labels, every), period)
            carry, _ = layers(carry, *given, view, memory)
        return carry


def _periods(tree: Any, period: int) -> Any:
    """Arrays [L, ...] as [L / P, P, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, period, *x.shape[1:]), tree)


def logits(
    config: DecoderConfig,
    x: jax.Array,
    head: jax.Array,
    update: LoraWeight | None = None,
) -> jax.Array:
    """Scores of every token id, accumulated in float32.

    Args:
      config: of the decoder; a tied head is the embedding table.
      x: final hidden states [..., D].
      head: [D, V], or the table [V, D] if the head is tied.
      update: of the head, a [D, R] and b [R, V], tied or not; or None.

    Returns:
      [..., V] float32.
    """
    dtype = jnp.dtype(config.dtype)
    axis = 1 if config.tie_head else 0
    flat = x.reshape(-1, x.shape[-1])
    dims = (((1,), (axis,)), ((), ()))
    out = jax.lax.dot_general(
        flat.astype(dtype), head.astype(dtype), dims, preferred_element_type=jnp.float32
    )
    if update is not None:
        out = out + apply_lora(update, flat.astype(jnp.float32))
    if config.logit_divisor != 1.0:
        out = out / config.logit_divisor
    if config.final_softcap:
        out = config.final_softcap * jnp.tanh(out / config.final_softcap)
    return out.reshape(*x.shape[:-1], -1)
