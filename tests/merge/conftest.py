"""Libraries with two sites, two scanned layers, three experts and unequal scales."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora

E, L, R = 3, 2, 2
SIZES = {"k_proj": (7, 5), "q_proj": (5, 7)}


def _weight(rng, experts, layers, size, rank):
    d, f = size
    normal = rng.standard_normal
    return lora.LoraWeight(
        a=jnp.asarray(normal((experts, layers, d, rank)), jnp.float32),
        b=jnp.asarray(normal((experts, layers, rank, f)), jnp.float32),
        scale=jnp.asarray(rng.uniform(0.5, 2.0, (experts, layers)), jnp.float32),
    )


@pytest.fixture(scope="session")
def make_library():
    """A function ``(seed, experts, layers, rank) -> library``."""

    def make(seed=0, experts=E, layers=L, rank=R):
        rng = np.random.default_rng(seed)
        return {
            site: {"kernel": _weight(rng, experts, layers, size, rank)}
            for site, size in SIZES.items()
        }

    return make


@pytest.fixture(scope="session")
def dense():
    """A function from any tree of LoraWeight to ``{site: delta}``, in float64 NumPy."""

    def delta(weight):
        a, b, s = (
            np.asarray(x, np.float64) for x in (weight.a, weight.b, weight.scale)
        )
        return s[..., None, None] * (a @ b)

    return lambda tree: {name: delta(w) for name, w in lora.sites(tree).items()}
