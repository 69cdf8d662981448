"""A study that is too small to compose, but runs end to end in seconds."""

import dataclasses
from typing import NamedTuple

import jax
import pytest

from jaxlora.lora import LoraConfig
from jaxlora.models import DecoderConfig
from jaxlora.studies.two_hop import blocks, protocol
from jaxlora.studies.two_hop.config import ExpertsConfig, PretrainConfig, TwoHopConfig
from jaxlora.tasks.two_hop.world import WorldConfig

GATES = ("min_one_hop", "min_two_hop", "min_copy", "min_format")
TINY = TwoHopConfig(
    seeds=2,
    methods=("mean", "arrow", "oracle"),
    retention_items=8,
    resamples=50,
    oracle_starts=1,
    oracle_sweeps=1,
    world=WorldConfig(entities=16, relations=6, pairs=1, people=3, context_rows=8),
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
    experts=ExpertsConfig(steps=5, full_steps=2, min_own=0.0),
)


class Ran(NamedTuple):
    """A finished study, its folders, and everything that progress was told."""

    config: TwoHopConfig
    results: protocol.Results
    out: object
    cache: object
    told: list


@pytest.fixture(scope="module", autouse=True)
def _optax_promotes():
    """Optax itself mixes floats and integer counts; tests/models is strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly(compile_quickly):
    """Every test of these modules; see tests/conftest.py."""


@pytest.fixture(scope="session")
def tiny():
    """The config; two seeds, three methods, every gate at 0."""
    return TINY


@pytest.fixture(scope="session")
def small():
    """One seed and one method, for the many runs of the resume tests."""
    return dataclasses.replace(TINY, seeds=1, methods=("mean",))


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """The tiny study, run once."""
    root = tmp_path_factory.mktemp("study")
    told = []
    with jax.numpy_dtype_promotion("standard"):
        results = protocol.run(
            TINY, root / "out", root / "cache", lambda *x: told.append(x)
        )
    return Ran(TINY, results, root / "out", root / "cache", told)


@pytest.fixture
def counted(monkeypatch):
    """The (library, method) of every block that is computed, as it happens."""
    calls = []
    run = blocks.run

    def count(setting, library, method):
        calls.append((str(library), str(method)))
        return run(setting, library, method)

    monkeypatch.setattr(blocks, "run", count)
    return calls
