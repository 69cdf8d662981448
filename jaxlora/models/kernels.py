"""Which program computes attention: an explicit choice, made where a model is placed.

``plain`` is :func:`jaxlora.models.attention.attend`. ``flash`` is XLA's form of
``jax.nn.dot_product_attention``, ``cudnn`` its fused form on a GPU, and ``splash`` the
kernel for TPUs that JAX ships: neither of the last two ever holds the scores. What runs
where is a field of :class:`DecoderConfig`, so that a program can be compiled for a
device that this machine does not have.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxlora.models import folding
from jaxlora.models.config import DecoderConfig
from jaxlora.parallel import BATCH, layout

LANES = 128
"""Of a TPU: rows and heads of a multiple of this many fit its kernel."""


def on(config: DecoderConfig, platform: str, capability: float = 0.0) -> DecoderConfig:
    """The config with the kernel that is best on a platform, if ``attention`` is auto.

    Args:
      config: of the decoder.
      platform: ``cpu``, ``gpu``, ``cuda`` or ``tpu``.
      capability: of a GPU, for example 9.0 of Hopper.

    >>> on(DecoderConfig(head_dim=128, dtype="bfloat16"), "gpu").attention
    'cudnn'
    >>> on(DecoderConfig(head_dim=128), "tpu").attention
    'splash'
    """
    if config.attention != "auto":
        return config
    kernel = "auto"
    if platform in ("gpu", "cuda"):
        widest = 256 if capability >= 9 else 128
        fits = config.head_dim <= widest and config.head_dim % 8 == 0
        if config.dtype == "bfloat16" and fits and not config.attn_softcap:
            kernel = "cudnn"
    # Which layers are local is not known when the kernel is made: they are scanned.
    if platform == "tpu" and not any(config.local_layers):
        kernel = "splash" if config.head_dim % LANES == 0 else "auto"
    return dataclasses.replace(config, attention=kernel)


def of(config: DecoderConfig, device: Any) -> DecoderConfig:
    """As :func:`on`, for a device.

    Args:
      config: of the decoder.
      device: where its parameters lie.
    """
    capability = getattr(device, "compute_capability", None) or "0"
    return on(config, device.platform, float(capability))


def chosen(
    config: DecoderConfig, length: int, *, causal: bool, cached: bool
) -> Literal["plain", "flash", "cudnn", "splash"]:
    """The kernel of one call.

    Args:
      config: of the decoder.
      length: T; cuDNN's gradient with a mask is for even ones only.
      causal: is there no other mask?
      cached: are there keys of earlier calls?
    """
    kernel = config.attention
    fits = {"cudnn": causal or length % 2 == 0, "splash": length % LANES == 0}
    if kernel == "auto" or cached or not fits.get(kernel, True):
        return "plain"
    return kernel


def flash(
    q, k, v, allowed: jax.Array | None, *, scale: float, fused: bool = False
) -> jax.Array:
    """As :func:`jaxlora.models.attention.attend`; None is causal.

    Args:
      q: queries [B, T, H, K].
      k: keys [B, G, S, K].
      v: values [B, G, S, K].
      allowed: [B, T, S], or None.
      scale: factor on the scores.
      fused: by cuDNN.
    """
    k, v = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
    kernel = "cudnn" if fused else "xla"

    def local(q, k, v, *mask) -> jax.Array:
        return jax.nn.dot_product_attention(
            q,
            k,
            v,
            mask=mask[0][:, None] if mask else None,
            is_causal=not mask,
            scale=scale,
            implementation=kernel,
        )

    masks = () if allowed is None else (allowed,)
    if not fused:
        return local(q, k, v, *masks)
    local = _cut(folding.folded(local), q.shape[0], masks)
    return local(q, k, v, *masks)


def _cut(local, batch: int, masks: tuple[jax.Array, ...]):
    """A kernel that works on each device's rows and heads; compilers cannot cut one."""
    if not layout.sizes():
        return local
    rows = BATCH if batch % layout.batch_parts() == 0 else None
    heads = jax.P(rows, None, "tensor")
    return jax.shard_map(
        local,
        in_specs=(heads, heads, heads, *(jax.P(rows) for _ in masks)),
        out_specs=heads,
        check_vma=False,
    )


def splash(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: tuple[jax.Array, jax.Array],
    *,
    scale: float,
    softcap: float = 0.0,
    interpret: bool = False,
) -> jax.Array:
    """Causal attention within segments, by the TPU kernel; T is a multiple of 128.

    A query without any key gets some numbers, not zeros; nobody reads them.

    Args:
      q: queries [B, T, H, K].
      k: keys [B, G, T, K].
      v: values [B, G, T, K].
      segments: of queries and of keys, [B, T] each.
      scale: factor on the scores.
      softcap: c in ``c tanh(score / c)``, or 0 for none.
      interpret: run the kernel without a TPU, slowly.

    Returns:
      [B, T, H, K].
    """
    q = jnp.swapaxes(q * jnp.asarray(scale, q.dtype), 1, 2)

    def local(q, k, v, ids):
        return _each(q, k, v, ids, softcap, interpret)

    sizes, ids = layout.sizes(), tuple(map(jnp.int32, segments))
    if sizes:
        # The compiler cannot cut a kernel; heads and rows are apart in any case.
        rows = BATCH if q.shape[0] % layout.batch_parts() == 0 else None
        heads = jax.P(rows, "tensor")
        local = jax.shard_map(
            local,
            in_specs=(heads, heads, heads, (jax.P(rows), jax.P(rows))),
            out_specs=heads,
            check_vma=False,
        )
    return jnp.swapaxes(local(q, k, v, ids), 1, 2)


def _each(q, k, v, ids, softcap: float, interpret: bool) -> jax.Array:
    from jax.experimental.pallas.ops.tpu import splash_attention as library

    heads, length = q.shape[1], q.shape[2]
    mask = library.MultiHeadMask([library.CausalMask((length, length))] * heads)
    size = next(n for n in (512, 256, LANES) if length % n == 0)
    blocks = library.BlockSizes(
        block_q=size,
        block_kv=size,
        block_kv_compute=size,
        block_q_dkv=size,
        block_kv_dkv=size,
        block_kv_dkv_compute=size,
        block_q_dq=size,
        block_kv_dq=size,
    )
    kernel = library.make_splash_mha_single_device(
        mask,
        block_sizes=blocks,
        attn_logits_soft_cap=softcap or None,
        interpret=interpret,
    )

    def row(q, k, v, of_queries, of_keys) -> Any:
        return kernel(q, k, v, library.SegmentIds(of_queries, of_keys))

    return jax.vmap(row)(q, k, v, *ids)
