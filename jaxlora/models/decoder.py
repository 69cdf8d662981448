"""A functional decoder: base in ``params``, adapters in ``lora``, gates in ``gate``."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora.lora import LoraWeight
from jaxlora.models import sites
from jaxlora.models.attention import LayerPosition, View, layer_positions
from jaxlora.models.attention_layer import Attention
from jaxlora.models.cache import Cache
from jaxlora.models.config import DecoderConfig, Kind
from jaxlora.models.delta import DELTA, Delta
from jaxlora.models.inputs import Inputs
from jaxlora.models.layers import apply_lora, norm
from jaxlora.models.mlp import MEMORY, Memory, Mlp, declare
from jaxlora.models.moe import MOE, Moe
from jaxlora.models.routing import POOLED, RoutingInputs, weigh
from jaxlora.models.view import view_of
from jaxlora.parallel import layout
from jaxlora.route import ROUTER, Route


class Layer(nn.Module):
    """A mixer of tokens and an MLP with their norms, of one layer of the scan."""

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
        # A layer of a kind of which no layer is adapted decides nothing.
        if r is not None and r.per == "layer" and self.has_variable("gate", ROUTER):
            routing = routing._replace(weights=weigh(self, r, ROUTER, x, routing))
        h = norm(c, name="attn_norm")(x) if c.pre_norms else x
        h, stored = self._mixed(h, stored, routing, layer, view)
        x = self._add(x, h, "attn_post_norm")
        x = layout.by_batch(x, view.positions.shape[0])
        h = norm(c, name="mlp_norm")(x) if c.pre_norms else x
        if memory is not None:
            h = Memory(c, r, name=MEMORY)(h, routing, memory)
        elif c.moe_mlps and not self.kind.dense:
            h = Moe(c, r, name=MOE)(h, routing)
        else:
            h = Mlp(c, r, c.dense_size, name="mlp")(h, routing)
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
    has kernels ``layers/p/...`` [L / P, D, F]. ``lora`` leaves are a [L, D, R] without
    a route, and a [E, L, D, R] with one: the route says which, never the shapes.
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
            # Traces every layer twice. Fresh parameters are those of the second draw;
            # elsewhere it would change nothing, as nothing is broadcast back.
            check_constancy_invariants=self.is_initializing(),
        )
        if labels is not None:
            labels = labels.reshape(c.num_layers, carry[0].shape[0], labels.shape[-1])
        layers = stack(c, self.route, *(c.kinds if single else ()), name="layers")
        for first in range(0, c.passes * c.num_layers, c.num_layers):
            every = layer_positions(c, jnp.arange(first, first + c.num_layers))
            mine = labels
            if not single:
                mine, every = _periods((labels, every), period)
            carry, _ = layers(carry, mine, every, view, memory)
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
