"""Libraries of two sites with unequal scales."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora.lora import LoraWeight

E, D, F, R = 3, 6, 4, 2


@pytest.fixture(scope="session")
def make_site():
    """A function ``(seed, leading axes...) -> LoraWeight``, one site of a library."""

    def make(seed, *lead):
        rng = np.random.default_rng(seed)
        return LoraWeight(
            a=jnp.asarray(rng.standard_normal((*lead, D, R)), jnp.float32),
            b=jnp.asarray(rng.standard_normal((*lead, R, F)), jnp.float32),
            scale=jnp.asarray(rng.uniform(0.5, 2.0, lead), jnp.float32),
        )

    return make
