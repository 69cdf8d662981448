"""Building blocks: projections that read the ``lora`` collection, and norms.

Activations are flattened to tokens [N, D], N = B * T, before every product: on XLA:CPU
the gradient of a [B, T, D] product is several times slower than that of [N, D].
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora.lora import LoraWeight, computed
from jaxlora.models.config import DecoderConfig
from jaxlora.models.routing import RoutingInputs, weigh
from jaxlora.parallel import layout
from jaxlora.route import Route


def declared(
    module: nn.Module, name: str, init: Callable, shape: tuple[int, ...], dtype: Any
) -> jax.Array:
    """Returns a parameter of a module, which is drawn if it is not there.

    Flax traces the draw of one that is there too, to compare their shapes: 9 of the 31
    ms that it takes to trace a tiny decoder.

    Args:
      module: that has it.
      name: of the parameter.
      init: ``init(key, shape, dtype)``.
      shape: that it must have.
      dtype: of the draw.
    """
    if module.has_variable("params", name) and not module.is_initializing():
        there = module.get_variable("params", name)
        if jnp.shape(there) == shape:
            return there
    return module.param(name, init, shape, dtype)


class Projection(nn.Module):
    """``x W (gain) (+ bias) (+ x delta)``: [N, D] to [N, F].

    Reads ``lora/.../kernel`` if it is there, and ``gain`` and ``bias`` beside it.
    Without a route that is one adapter (a [D, R]); with one, a library (a [E, D, R])
    and ``gate/.../kernel`` its state.
    """

    features: int
    config: DecoderConfig
    route: Route | None = None
    use_bias: bool = False
    kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array, routing: RoutingInputs | None = None) -> jax.Array:
        """Applies the projection.

        Args:
          x: [N, D].
          routing: what the route of this site gets from above; None is nothing.
        """
        dtype = jnp.dtype(self.config.dtype)
        param_dtype = jnp.dtype(self.config.param_dtype)
        shape = (x.shape[-1], self.features)
        kernel = declared(self, "kernel", self.kernel_init, shape, param_dtype)
        where = f"{self.name}/kernel"
        y = x @ layout.gathered(kernel.astype(dtype), where)
        routing = self._weighed(x, routing or RoutingInputs())
        if self.has_variable("lora", "gain"):
            gain = 1.0 + self._row("gain", x, routing)
            y = (y.astype(jnp.float32) * gain).astype(dtype)
        if self.use_bias:
            zeros = nn.initializers.zeros_init()
            bias = declared(self, "bias", zeros, (self.features,), param_dtype)
            y = y + bias.astype(dtype)[None, :]
        if self.has_variable("lora", "kernel"):
            weight = layout.gathered_weight(self.get_variable("lora", "kernel"), where)
            y = y + self._update(weight, x, routing)
        if self.has_variable("lora", "bias"):
            y = y + self._row("bias", x, routing).astype(dtype)
        return y

    def _weighed(self, x: jax.Array, routing: RoutingInputs) -> RoutingInputs:
        """What this site's route makes of x, once for all that is adapted here."""
        if self.route is None or not self.has_variable("lora", "kernel"):
            return routing
        weights = routing.weights
        if weights is None:
            weights = weigh(self, self.route, "kernel", x, routing)
        self.sow("routes", "kernel", weights)  # a no-op unless it is asked for
        return routing._replace(weights=weights)

    def _update(
        self, weight: LoraWeight, x: jax.Array, routing: RoutingInputs
    ) -> jax.Array:
        if self.route is None or routing.weights is None:
            return apply_lora(weight, x)
        # Those chosen would be fetched from the devices that have them.
        dense = layout.cuts_experts()
        return self.route.mix(weight, x, routing.weights, dense=dense)

    def _row(self, name: str, x: jax.Array, routing: RoutingInputs) -> jax.Array:
        """A gain or bias, whose only input is 1: [1, F], or [N, F] by a route."""
        rows = 1 if self.route is None else x.shape[0]
        weight = self.get_variable("lora", name)
        return self._update(weight, jnp.ones((rows, 1), jnp.float32), routing)


def apply_lora(weight: LoraWeight, x: jax.Array) -> jax.Array:
    """Returns ``scale * (x a) b`` in the dtype of x, whatever that of the factors.

    Args:
      weight: a [D, R], b [R, F], scale [].
      x: [..., D].
    """
    weight = computed(weight, x.dtype)
    dtype = weight.a.dtype
    flat = x.reshape(-1, x.shape[-1]).astype(dtype)
    y = _update(flat, weight.a, weight.b, weight.scale.astype(dtype))
    return y.reshape(*x.shape[:-1], -1).astype(x.dtype)


@jax.custom_vjp
def _update(x, a, b, scale):
    return ((x @ a) * scale) @ b


def _update_forward(x, a, b, scale):
    low = x @ a
    return (low * scale) @ b, (x, low, a, b, scale)


def _update_backward(kept, g):
    x, low, a, b, scale = kept
    back = g @ b.T
    turned = back * scale
    # XLA:CPU would fold the transposes into x^T @ turned, whose few columns it
    # multiplies up to ten times slower than the few rows of turned^T @ x.
    grad_a = jax.lax.optimization_barrier(turned.T @ x).T
    return turned @ a.T, grad_a, (low * scale).T @ g, jnp.sum(low * back)


_update.defvjp(_update_forward, _update_backward)


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * scale`` in float32 (arXiv 1910.07467).

    With ``norm_plus_one`` the factor is ``1 + scale``, and scale starts at 0.
    """

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis of x [..., D]."""
        shifted = self.config.norm_plus_one
        start = nn.initializers.constant(0.0 if shifted else 1.0)
        dtype = jnp.dtype(self.config.param_dtype)
        scale = declared(self, "scale", start, (x.shape[-1],), dtype)
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(
            jnp.mean(y * y, axis=-1, keepdims=True) + self.config.norm_eps
        )
        scale = scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
        scale = scale + 1.0 if shifted else scale
        return (y * scale).astype(x.dtype)


class LayerNorm(nn.Module):
    """``(x - mean) / sqrt(var + eps) * scale + bias`` in float32 (arXiv 1607.06450)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis of x [..., D]."""
        dtype = jnp.dtype(self.config.param_dtype)
        init, width = nn.initializers, (x.shape[-1],)
        scale = declared(self, "scale", init.ones_init(), width, dtype)
        bias = declared(self, "bias", init.zeros_init(), width, dtype)
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(
            jnp.mean(y * y, axis=-1, keepdims=True) + self.config.norm_eps
        )
        scale, bias = (
            p.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
            for p in (scale, bias)
        )
        return (y * scale + bias).astype(x.dtype)


def norm(config: DecoderConfig, **options: Any) -> nn.Module:
    """Returns the norm of a decoder, a module that maps [..., D] to [..., D].

    Args:
      config: of the decoder.
      **options: of the module, its name say.
    """
    kind = LayerNorm if config.norm == "layer" else RMSNorm
    return kind(config, **options)


def activation(name: str) -> Callable[[Any], jax.Array]:
    """The MLP's non-linearity by its name in :class:`DecoderConfig`."""
    return {
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "gelu_tanh": jax.nn.gelu,
        "silu": jax.nn.silu,
    }[name]
