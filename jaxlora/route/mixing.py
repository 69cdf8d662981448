"""Mixing: the weighted experts of a library applied to inputs, on the rank axis.

Two matrix products whatever the number of experts: E experts of rank R are one
adapter of rank E * R whose inner activations are weighted per token.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxlora.lora import LoraWeight, computed

Mixing = Literal["outputs", "factors"]


def mix(
    weight: LoraWeight, x: jax.Array, weights: jax.Array, mixing: Mixing = "outputs"
) -> jax.Array:
    """The update of weighted experts.

    ``outputs`` is ``sum_e g_e scale_e x a_e b_e``. ``factors`` is
    ``x (sum_e g_e a_e) (sum_e g_e scale_e b_e)``, with a cross term for every pair of
    experts; it depends on their gauge, and is there to reproduce peers.

    Args:
      weight: one site of a library; a [E, D, R], b [E, R, F], scale [E].
      x: inputs [N, D].
      weights: gate weights g [N, E].
      mixing: what is weighted.

    Returns:
      [N, F] in the dtype of x.

    >>> w = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 4)), jnp.ones(2))
    >>> mix(w, jnp.ones((1, 3)), jnp.array([[1.0, 0.5]])).tolist()
    [[4.5, 4.5, 4.5, 4.5]]
    >>> mix(w, jnp.ones((1, 3)), jnp.array([[1.0, 0.5]]), "factors").tolist()
    [[6.75, 6.75, 6.75, 6.75]]
    """
    weight = computed(weight, x.dtype)
    experts, d, rank = weight.a.shape
    dtype = weight.a.dtype
    a = jnp.moveaxis(weight.a, 0, 1).reshape(d, experts * rank)
    b = weight.b.reshape(experts * rank, -1)
    g = weights.astype(jnp.float32)
    scaled = (g * weight.scale.astype(jnp.float32)[None, :]).astype(dtype)
    # Weighting the R inner activations is weighting a whole update of F outputs.
    low = (x.astype(dtype) @ a).reshape(-1, experts, rank)
    if mixing == "factors":
        # x (sum g a) first: every expert's b then meets every expert's a.
        low = jnp.sum(low * g.astype(dtype)[:, :, None], axis=1, keepdims=True)
    low = low * scaled[:, :, None]
    return (low.reshape(-1, experts * rank) @ b).astype(x.dtype)
