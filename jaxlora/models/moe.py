"""A layer of several MLPs, of which a router picks a few for each token.

Shazeer et al., Outrageously Large Neural Networks (arXiv 1701.06538); Jiang et al.,
Mixtral of Experts (arXiv 2401.04088). Elsewhere its MLPs are called experts; here an
expert is an adapter, so they are MLPs, X of them. The router belongs to the base and
chooses for the base: it has nothing to do with a :class:`Route` over adapters.

Tokens are sorted by MLP and multiplied group by group: work grows with the tokens that
are sent, not with X (:mod:`jaxlora.models.grouped`).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora import periods
from jaxlora.lora import LoraWeight, computed
from jaxlora.models.config import DecoderConfig
from jaxlora.models.grouped import Groups, grouped
from jaxlora.models.layers import Projection, activation
from jaxlora.models.mlp import Mlp
from jaxlora.models.routing import RoutingInputs
from jaxlora.route import Route

MOE = "moe"
"""The name of such a layer's MLPs and router."""
STACKED = tuple(f"layers/{MOE}/{name}/kernel" for name in ("gate", "up", "down"))
"""Kernels [L, X, D, F] of the MLPs."""


def refuse_stacked(names: Iterable[str], what: str) -> None:
    """Refuses sites of the MLPs, which see only the tokens that are sent to them.

    Args:
      names: of sites.
      what: does not work there.

    Raises:
      ValueError: if one of them is such a site.
    """
    odd = sorted(name for name in {*names} if periods.split(name)[0] in STACKED)
    if odd:
        raise ValueError(
            f"Sites {', '.join(odd)} are of MLPs of which a token sees a few, where "
            f"{what} is not supported; expected sites of attention or of the router, "
            f"or a merge of the adapters."
        )


class Choice(NamedTuple):
    """Which MLPs each token is sent to."""

    mlps: jax.Array
    """[N, K] int32."""
    weights: jax.Array
    """[N, K] float32, of their outputs."""


class Moe(nn.Module):
    """``sum_k w_k down_k(act(gate_k x) * up_k x)`` over the picked MLPs k.

    Where all tokens share one more, ``sigmoid(shared_gate x) shared(x)`` is added.
    """

    config: DecoderConfig
    route: Route | None = None

    @nn.compact
    def __call__(self, x, routing: RoutingInputs):
        """Applies the layer to x [N, D]."""
        c = self.config
        router = Projection(c.moe_mlps, c, self.route, name="router")
        choice = pick(c, router(x, routing))
        wide, back = c.hidden_size, 0.5 / (c.num_layers * c.passes)
        stacked = {
            "gate": _Stacked(c, (wide, c.mlp_size), 1.0, name="gate")(),
            "up": _Stacked(c, (wide, c.mlp_size), 1.0, name="up")(),
            "down": _Stacked(c, (c.mlp_size, wide), back, name="down")(),
        }
        y = mixed(c, x, choice, stacked)
        if not c.moe_shared:
            return y
        shared = Mlp(c, self.route, c.moe_shared, name="shared")(x, routing)
        gate = Projection(1, c, self.route, name="shared_gate")(x, routing)
        return y + nn.sigmoid(gate) * shared


def pick(config: DecoderConfig, scores: jax.Array) -> Choice:
    """Returns the moe_top_k most likely MLPs of each token.

    Args:
      config: of the decoder.
      scores: of the router, [N, X].
    """
    shares = jax.nn.softmax(scores.astype(jnp.float32), axis=-1)
    weights, mlps = jax.lax.top_k(shares, config.moe_top_k)
    if config.moe_normalize:
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return Choice(mlps, weights)


def mixed(
    config: DecoderConfig,
    x: jax.Array,
    choice: Choice,
    stacked: Mapping[str, tuple[jax.Array, Mapping[str, LoraWeight]]],
) -> jax.Array:
    """Returns the weighted sum of the picked MLPs' outputs, [N, D].

    Args:
      config: of the decoder.
      x: [N, D].
      choice: the MLPs of each token.
      stacked: of gate, up and down, the kernel [X, D, F] and what the adapter has
        there: the weight of the ``kernel`` (a [X, D, R]), a ``gain``, a ``bias``.
    """
    act = activation(config.activation)

    def mlp(groups: Groups, x: jax.Array) -> jax.Array:
        def project(name: str, x: jax.Array) -> jax.Array:
            kernel, parts = stacked[name]
            return _adapted(groups, x, groups.dot(x, kernel), parts)

        return project("down", act(project("gate", x)) * project("up", x))

    n, k = choice.mlps.shape
    flat = choice.mlps.reshape(-1)
    order = jnp.argsort(flat)  # stable
    sizes = jnp.sum(flat[:, None] == jnp.arange(config.moe_mlps)[None], axis=0)
    y = grouped(mlp, x[order // k], sizes.astype(jnp.int32))
    weights = choice.weights.reshape(-1)[order].astype(y.dtype)
    sums = jnp.zeros((n, y.shape[-1]), y.dtype)
    return sums.at[order // k].add(y * weights[:, None])


def _adapted(
    groups: Groups, x: jax.Array, y: jax.Array, parts: Mapping[str, LoraWeight]
) -> jax.Array:
    """The outputs y of kernels with an adapter, as in :class:`Projection`."""
    ones = jnp.ones((len(x), 1), jnp.float32)  # the only input of a gain or bias
    if "gain" in parts:
        gain = 1.0 + _update(groups, parts["gain"], ones)
        y = (y.astype(jnp.float32) * gain).astype(y.dtype)
    if "kernel" in parts:
        y = y + _update(groups, parts["kernel"], x)
    if "bias" in parts:
        y = y + _update(groups, parts["bias"], ones).astype(y.dtype)
    return y


def _update(groups: Groups, weight: LoraWeight, x: jax.Array) -> jax.Array:
    weight = computed(weight, x.dtype)
    dtype = weight.a.dtype
    a = weight.a * weight.scale.astype(dtype)[:, None, None]
    return groups.dot(groups.dot(x.astype(dtype), a), weight.b).astype(x.dtype)


class _Stacked(nn.Module):
    """The kernels [X, D, F] of one projection of all MLPs, and what adapts them."""

    config: DecoderConfig
    shape: tuple[int, int]
    gain: float

    @nn.compact
    def __call__(self) -> tuple[jax.Array, dict[str, LoraWeight]]:
        c = self.config
        init = nn.initializers.variance_scaling(
            self.gain, "fan_in", "normal", batch_axis=(0,)
        )
        shape = (c.moe_mlps, *self.shape)
        kernel = self.param("kernel", init, shape, jnp.dtype(c.param_dtype))
        names = ("kernel", "gain", "bias")
        there = [name for name in names if self.has_variable("lora", name)]
        parts = {name: self.get_variable("lora", name) for name in there}
        return kernel.astype(jnp.dtype(c.dtype)), parts
