"""One small model, and facts for eight experts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora.models import Decoder, DecoderConfig, init
from jaxlora.train.step import Batch

V, PAD, E, N, T = 12, 0, 8, 3, 3


@pytest.fixture(scope="module", autouse=True)
def _setting(optax_promotes):
    """Every test of these modules; see tests/conftest.py."""


@pytest.fixture(scope="session")
def model():
    return Decoder(
        DecoderConfig(
            vocab_size=V,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            num_kv_heads=2,
            head_dim=8,
            mlp_size=16,
            max_length=5,
        )
    )


@pytest.fixture(scope="session")
def base(model):
    return jax.jit(init, static_argnums=1)(jax.random.key(0), model)


@pytest.fixture(scope="session")
def rows():
    """Three facts an expert, ``h r <pad>`` answered at position 2, [E, N, T]."""
    rng = np.random.default_rng(0)
    tokens = np.zeros((E, N, T), np.int32)
    tokens[:, :, 0] = np.arange(1, N + 1)
    tokens[:, :, 1] = 11
    targets = np.zeros((E, N, T), np.int32)
    targets[:, :, 2] = rng.integers(1, V, (E, N))
    weights = np.zeros((E, N, T), np.float32)
    weights[:, :, 2] = 1
    return Batch(jnp.asarray(tokens), jnp.asarray(targets), jnp.asarray(weights))
