import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxlora.merge import threshold

SHAPE = (2, 4, 8)
floats = st.one_of(
    st.floats(-4, 4, width=32), st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-42, -1e-45])
)
trimmed = jax.jit(
    lambda x, keep: threshold.largest(
        {"": threshold.as_bits(x)}, {"": jnp.full(x.shape[:1], keep)}, "leaf"
    )[""]
)


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(np.float32, SHAPE, elements=floats), st.integers(0, 32))
def test_bisection_finds_the_order_statistic(x, keep):
    got = np.asarray(trimmed(x, keep))
    for mask, values in zip(got, np.abs(x), strict=True):
        limit = np.partition(values.ravel(), 32 - keep)[32 - keep] if keep else np.inf
        np.testing.assert_array_equal(mask, values >= limit)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 99), st.lists(st.integers(1, 300_000), min_size=64, max_size=64))
def test_density_counts_as_decimals_do(percent, sizes):
    got = threshold.share(percent / 100, jnp.asarray(sizes))
    np.testing.assert_array_equal(got, np.asarray(sizes, np.int64) * percent // 100)
