"""Small decoders with adapters of which no part is zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora
from jaxlora.models import init


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly(compile_quickly):
    """Every test of these modules; see tests/conftest.py."""


@pytest.fixture(scope="session")
def trained():
    """A function ``(seed, fresh adapter) -> adapter`` with random a, b and scales."""

    def make(seed, adapter):
        rng = np.random.default_rng(seed)

        def one(w):
            draw = rng.standard_normal
            return lora.LoraWeight(
                a=jnp.asarray(draw(w.a.shape) * 0.5, w.a.dtype),
                b=jnp.asarray(draw(w.b.shape) * 0.5, w.b.dtype),
                scale=jnp.asarray(rng.uniform(0.5, 1.5, w.scale.shape), jnp.float32),
            )

        return lora.lora_map(one, adapter)

    return make


@pytest.fixture(scope="session")
def make_base():
    """A function ``model -> params`` whose norms and biases are not trivial."""
    fresh = jax.jit(init, static_argnums=1)

    def make(model):
        rng = np.random.default_rng(0)

        def shaken(x):
            noise = 0.2 * rng.standard_normal(x.shape)
            return jnp.asarray(np.asarray(x) + noise.astype(x.dtype))

        return jax.tree.map(shaken, fresh(jax.random.key(0), model))

    return make
