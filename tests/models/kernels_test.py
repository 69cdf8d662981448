"""Which program computes attention where, and the TPU's own beside ours."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import models, parallel, train
from jaxlora.models import DecoderConfig, kernels
from jaxlora.models.attention import attend, seen
from jaxlora.models.kernels import chosen, of, on, splash

WIDE = {"head_dim": 128, "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("fields", "platform", "capability", "kernel"),
    [
        (WIDE, "cpu", 0.0, "auto"),
        (WIDE, "gpu", 8.0, "cudnn"),
        (WIDE | {"dtype": "float32"}, "gpu", 9.0, "auto"),
        (WIDE | {"attn_softcap": 30.0}, "gpu", 9.0, "auto"),
        (WIDE | {"attention": "plain"}, "gpu", 9.0, "plain"),
        (WIDE | {"head_dim": 256}, "gpu", 9.0, "cudnn"),
        (WIDE | {"head_dim": 256}, "gpu", 8.0, "auto"),  # Gemma 3 on an A100
        (WIDE | {"head_dim": 264}, "gpu", 9.0, "auto"),
        (WIDE | {"head_dim": 60}, "gpu", 9.0, "auto"),
        (WIDE, "tpu", 0.0, "splash"),
        (WIDE | {"dtype": "float32", "attn_softcap": 30.0}, "tpu", 0.0, "splash"),
        (WIDE | {"head_dim": 64}, "tpu", 0.0, "auto"),
        (WIDE | {"attention": "plain"}, "tpu", 0.0, "plain"),
        (
            WIDE | {"num_layers": 2, "local_layers": (True, False), "window": 4},
            "tpu",
            0.0,
            "auto",
        ),
    ],
)
def test_the_kernel_follows_the_platform(fields, platform, capability, kernel):
    assert on(DecoderConfig(**fields), platform, capability).attention == kernel


def test_the_kernel_of_this_machine_is_plain():
    assert of(DecoderConfig(**WIDE), jax.devices()[0]).attention == "auto"
    config = DecoderConfig(**WIDE)
    assert chosen(config, 128, causal=True, cached=False) == "plain"


@pytest.mark.parametrize(
    ("kernel", "length", "causal", "cached", "expected"),
    [
        ("cudnn", 7, True, False, "cudnn"),
        ("cudnn", 8, False, False, "cudnn"),
        ("cudnn", 7, False, False, "plain"),  # a gradient that cuDNN does not have
        ("cudnn", 8, True, True, "plain"),
        ("splash", 256, False, False, "splash"),
        ("splash", 200, False, False, "plain"),
        ("splash", 256, False, True, "plain"),
        ("flash", 7, False, False, "flash"),
        ("plain", 256, True, False, "plain"),
    ],
)
def test_a_call_that_a_kernel_cannot_do_is_plain(
    kernel, length, causal, cached, expected
):
    config = DecoderConfig(attention=kernel)
    assert chosen(config, length, causal=causal, cached=cached) == expected


def test_no_model_asks_where_it_happens_to_run():
    """A program is compiled for devices that are not here, too."""
    folders = (pathlib.Path(part.__file__).parent for part in (models, train, parallel))
    for path in (file for folder in folders for file in folder.glob("*.py")):
        assert "default_backend" not in path.read_text(encoding="utf-8"), path


def test_experts_are_more_rows_to_cudnn(monkeypatch):
    """Values and gradients, mapped over experts; cuDNN's part is played by XLA."""
    keys = jax.random.split(jax.random.key(0), 4)
    q = jax.random.normal(keys[0], (3, 2, 4, 2, 8))
    k, v = (jax.random.normal(key, (3, 2, 1, 4, 8)) for key in keys[1:3])
    weight = jax.random.normal(keys[3], q.shape[1:])
    ids = jnp.array([[[1, 1, 2, 2], [1, 2, 2, 2]]] * 3)
    library, rows = jax.nn.dot_product_attention, []

    def fused(q, *args, implementation, **named):
        assert implementation == "cudnn"
        rows.append(q.shape[0])
        return library(q, *args, implementation="xla", **named)

    def slopes(fn):
        def value(args, ids):
            return jnp.sum(weight * fn(*args, seen(ids, ids, 0), scale=0.3))

        return jax.jit(jax.vmap(jax.value_and_grad(value)))((q, k, v), ids)

    want = slopes(kernels.flash)
    monkeypatch.setattr(kernels.jax.nn, "dot_product_attention", fused)
    got = slopes(functools.partial(kernels.flash, fused=True))
    assert rows[-1] == 6
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), got, want)


@pytest.mark.slow
def test_the_kernel_of_a_tpu_equals_attention():
    """Values and gradients, without a TPU: JAX's kernel as it is written."""
    keys = jax.random.split(jax.random.key(0), 4)
    q = jax.random.normal(keys[0], (1, 128, 2, 128))
    k, v = (jax.random.normal(key, (1, 1, 128, 128)) for key in keys[1:3])
    ids = jnp.where(jnp.arange(128) < 50, 1, 2)[None]
    weight = jax.random.normal(keys[3], q.shape)
    allowed = seen(ids, ids, 0)

    def slopes(fn):
        def value(args):
            out = fn(*args)
            return jnp.sum(weight * out), out

        return jax.grad(value, has_aux=True)((q, k, v))

    got = slopes(lambda *x: splash(*x, (ids, ids), scale=0.1, interpret=True))
    want = slopes(lambda *x: attend(*x, allowed, scale=0.1))
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5)
