"""A layer's mixer of tokens without attention: a gated delta net (Qwen3.5).

Queries, keys and values go through a short causal convolution, then the rule of
:mod:`jaxlora.models.delta_rule`; its output is normed by heads and gated. Padding is
neither seen by the convolution nor does it move the state. Several examples in a row
each begin anew; of continuations side by side (``Inputs.tree``) each would need a state
of its own, which is refused, and what all examples of a row begin with (the segment
``SHARED``) is an example like the others here.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora.models.attention import LayerPosition, Runs, View
from jaxlora.models.config import DecoderConfig, DeltaConfig
from jaxlora.models.delta_rule import Tokens, convolve, gated_delta_rule
from jaxlora.models.inputs import Inputs
from jaxlora.models.mlp import output, projector
from jaxlora.models.routing import RoutingInputs
from jaxlora.parallel import layout
from jaxlora.route import Route

DELTA = "delta"
"""The name of such a mixer in a layer."""


class State(NamedTuple):
    """What earlier tokens left, of all M layers of this kind."""

    inputs: jax.Array
    """Of the convolution [M, B, W - 1, C], the last ones."""
    matrices: jax.Array
    """[M, B, G R, K, V] float32."""


def empty(config: DecoderConfig, batch: int) -> State | None:
    """Returns what is there before the first token; None of a decoder without a rule.

    Args:
      config: of the decoder.
      batch: B.
    """
    d, layers = config.delta, sum(config.delta_layers)
    if d is None:
        return None
    shape = (layers, batch, d.value_heads, d.key_dim, d.value_dim)
    inputs = (layers, batch, d.taps - 1, d.channels)
    return State(jnp.zeros(inputs, jnp.dtype(config.dtype)), jnp.zeros(shape))


def runs_of(config: DecoderConfig, inputs: Inputs) -> Runs | None:
    """Which tokens of a call follow each other; None of a decoder without a rule.

    Args:
      config: of the decoder.
      inputs: tokens [B, T], and their mask or segments.

    Raises:
      ValueError: if the tokens are a tree.
    """
    if config.delta is None:
        return None
    if inputs.tree is not None:
        raise ValueError(
            "The inputs are a tree of continuations side by side, but the model has "
            "layers of linear attention, whose state is of one text; give one "
            "continuation a row."
        )
    if inputs.segments is not None:
        return Runs(inputs.segments != 0, segments=inputs.segments)
    if inputs.mask is None:
        return Runs()
    mask = inputs.mask.astype(bool)
    return Runs(mask, order=jnp.argsort(jnp.logical_not(mask), axis=1, stable=True))


class Delta(nn.Module):
    """``out_proj(norm(rule(conv(in_proj_qkv x), ...)) silu(in_proj_z x))``."""

    config: DecoderConfig
    route: Route | None = None

    @nn.compact
    def __call__(
        self, x, stored, routing: RoutingInputs, layer: LayerPosition, view: View
    ):
        """Maps x [N, D] to [N, D]; stored the cached :class:`State` or None.

        Returns:
          The output, and what is stored with this call's tokens in it.
        """
        c, (b, t), d = self.config, view.positions.shape, _sizes(self.config)
        runs = Runs() if view.runs is None else view.runs
        parts = self._projections(x, routing)
        qkv, z, beta, a = (y.reshape(b, t, -1) for y in parts)
        slot = layer.index if layer.slot is None else layer.slot
        mine = empty(c, b) if stored is None else stored
        mine = jax.tree.map(lambda s: _at(s, 0 if stored is None else slot), mine)
        qkv, inputs = self._convolved(qkv, mine.inputs, runs)
        tokens = self._tokens(qkv, a, beta, runs.live)
        matrices = mine.matrices.reshape(b, d.key_heads, -1, d.key_dim, d.value_dim)
        y, matrices = gated_delta_rule(tokens, matrices, runs.segments)
        if stored is not None:
            new = State(inputs, matrices.reshape(mine.matrices.shape))
            stored = jax.tree.map(lambda s, x: s.at[slot].set(x), stored, new)
        y = y.astype(qkv.dtype).reshape(b * t, d.value_heads, d.value_dim)
        y = GatedNorm(c, name="norm")(y, z.reshape(y.shape)).reshape(b * t, -1)
        y = layout.by_batch(y, b)
        return output(c, self.route, y, routing, "out_proj"), stored

    def _projections(self, x, routing: RoutingInputs):
        """Queries, keys and values side by side [N, C], gates, rates and decays."""
        d = _sizes(self.config)
        project = projector(self.config, self.route, x, routing)
        if not d.fused:
            qkv = project("in_proj_qkv", d.channels), project("in_proj_z", d.values)
            return *qkv, *(project(f"in_proj_{y}", d.value_heads) for y in "ba")
        heads = (x.shape[0], d.key_heads, -1)  # of a key head all is side by side
        each = d.values // d.key_heads
        mixed = project("in_proj_qkvz", d.channels + d.values).reshape(heads)
        cuts = (d.key_dim, 2 * d.key_dim, 2 * d.key_dim + each)
        *qkv, z = jnp.split(mixed, cuts, axis=-1)
        qkv = jnp.concatenate([y.reshape(x.shape[0], -1) for y in qkv], axis=-1)
        both = project("in_proj_ba", 2 * d.value_heads).reshape(heads)
        return qkv, z, *jnp.split(both, 2, axis=-1)

    def _convolved(self, x: jax.Array, before: jax.Array, runs: Runs):
        """The silu of the convolution of x [B, T, C], and the inputs that go on."""
        c, d = self.config, _sizes(self.config)
        kernel = Taps((d.taps, 1, d.channels), c, name="conv")()[:, 0]
        if runs.live is not None:
            x = jnp.where(runs.live[..., None], x, 0)
        if runs.order is not None:  # tokens first, and padding after them
            x = jnp.take_along_axis(x, runs.order[..., None], axis=1)
        y = nn.silu(convolve(x, kernel, before, runs.segments)).astype(x.dtype)
        if runs.order is not None:
            back = jnp.argsort(runs.order, axis=1)
            y = jnp.take_along_axis(y, back[..., None], axis=1)
        return y, _last(jnp.concatenate([before, x], axis=1), runs, d.taps - 1)

    def _tokens(self, qkv, a, beta, live: jax.Array | None) -> Tokens:
        c, d, (b, t, _) = self.config, _sizes(self.config), qkv.shape
        dtype = jnp.dtype(c.param_dtype)
        rate = self.param("a_log", _log_uniform, (d.value_heads,), dtype)
        ones = nn.initializers.ones_init()
        bias = self.param("dt_bias", ones, (d.value_heads,), dtype)
        rate, bias = (x.astype(jnp.float32)[None, None] for x in (rate, bias))
        g = -jnp.exp(rate) * nn.softplus(a.astype(jnp.float32) + bias)
        beta = nn.sigmoid(beta.astype(jnp.float32))
        if live is not None:
            g, beta = (jnp.where(live[..., None], x, 0.0) for x in (g, beta))
        q, k, v = jnp.split(qkv, (d.keys, 2 * d.keys), axis=-1)
        q, k = (x.reshape(b, t, d.key_heads, d.key_dim) for x in (q, k))
        v = v.reshape(b, t, d.key_heads, -1, d.value_dim)
        g, beta = (x.reshape(b, t, d.key_heads, -1) for x in (g, beta))
        return Tokens(*(layout.by_batch(x, b) for x in (q, k, v, g, beta)))


class Taps(nn.Module):
    """The kernel of a convolution of each channel alone, as ``nn.Conv`` has it."""

    shape: tuple[int, ...]
    config: DecoderConfig

    @nn.compact
    def __call__(self) -> jax.Array:
        """Returns it, [W, 1, C]."""
        init = nn.initializers.normal(self.shape[0] ** -0.5)
        dtype = jnp.dtype(self.config.param_dtype)
        return self.param("kernel", init, self.shape, dtype)


class GatedNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * scale * silu(z)``, of each head."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array, z: jax.Array) -> jax.Array:
        """Normalises the last axis of x [N, H, V], gated by z of its shape."""
        c, ones = self.config, nn.initializers.ones_init()
        scale = self.param("scale", ones, x.shape[-1:], jnp.dtype(c.param_dtype))
        y = x.astype(jnp.float32)
        mean = jnp.mean(y * y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(mean + c.norm_eps) * scale.astype(jnp.float32)[None, None]
        return (y * nn.silu(z.astype(jnp.float32))).astype(x.dtype)


def _sizes(config: DecoderConfig) -> DeltaConfig:
    assert config.delta is not None  # checked by the config
    return config.delta


def _at(stored: jax.Array, slot) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(stored, slot, keepdims=False)


def _last(x: jax.Array, runs: Runs, count: int) -> jax.Array:
    """The last ``count`` inputs of x [B, count + T, C] that are of tokens."""
    if runs.order is None or runs.live is None:
        return x[:, x.shape[1] - count :]
    sizes = jnp.sum(runs.live, axis=1)

    def row(x: jax.Array, size: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x, size, count)

    return jax.vmap(row)(x, sizes)


def _log_uniform(key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    """Logarithms of decays spread over 0.01 to 16."""
    rates = jax.random.uniform(key, shape, minval=0.01, maxval=16.0)
    return jnp.log(rates).astype(dtype)
