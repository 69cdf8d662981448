"""A boundary study that is too small to compose, but runs end to end in seconds."""

import jax
import pytest

from jaxlora.lora import LoraConfig
from jaxlora.models import DecoderConfig
from jaxlora.studies.boundary.config import BoundaryConfig
from jaxlora.studies.two_hop import ExpertsConfig, PretrainConfig
from jaxlora.tasks.two_hop.world import WorldConfig

TINY = BoundaryConfig(
    seeds=2,
    map_seeds=0,
    methods=("mean",),
    ranked=(),
    retention_items=8,
    min_written=0.0,
    resamples=50,
    world=WorldConfig(entities=16, relations=6, pairs=2, people=3, context_rows=8),
    model=DecoderConfig(
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        mlp_size=32,
        max_length=9,
    ),
    pretrain=PretrainConfig(
        batch=16,
        extra_batch=8,
        warmup=5,
        chunk=10,
        max_steps=10,
        format_steps=10,
        min_one_hop=0.0,
        min_two_hop=0.0,
        min_copy=0.0,
        min_format=0.0,
    ),
    # Two sites of six: most of the time here is compilation.
    lora=LoraConfig(rank=2, targets=(r"layers/attn/[qv]_proj/kernel",)),
    experts=ExpertsConfig(steps=3, draw=4, min_own=0.0),
)


@pytest.fixture(scope="module", autouse=True)
def _optax_promotes():
    """Optax itself mixes floats and integer counts; tests/models is strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="package")
def tiny():
    """Two bases of one point, three regimes, every criterion at 0."""
    return TINY
