"""The ground of all other tests: on one device every sharding test would pass."""

import os

import jax
import jax.numpy as jnp
import pytest

FOLDER = "JAX_COMPILATION_CACHE_DIR"  # what child processes see


def test_there_are_eight_devices():
    assert jax.device_count() == 8
    assert {device.platform for device in jax.devices()} == {"cpu"}


def test_programs_are_kept_however_small():
    assert jax.config.jax_compilation_cache_dir == os.environ[FOLDER]
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
    assert jax.config.jax_persistent_cache_min_entry_size_bytes == 0


def test_dtypes_are_never_promoted_silently():
    assert jax.config.jax_numpy_dtype_promotion == "strict"
    with pytest.raises(jax.dtypes.TypePromotionError):
        _ = jnp.ones(2, jnp.float32) + jnp.ones(2, jnp.bfloat16)


def test_ranks_are_never_promoted_silently():
    assert jax.config.jax_numpy_rank_promotion == "raise"
    with pytest.raises(ValueError, match="rank_promotion"):
        _ = jnp.ones((2, 2)) + jnp.ones(2)
