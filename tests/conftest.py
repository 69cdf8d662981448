"""Strict from day one: 8 virtual devices, no silent promotion of dtype or rank."""

import os

os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def compile_quickly():
    """Most of the time of many modules is LLVM's; the values hardly depend on it.

    Caches are emptied on both sides: a program that was compiled the other way rounds
    otherwise, and a test of bit-equality must not meet one of each.
    """
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
