"""A study that is too small to compose, but runs end to end in seconds."""

import dataclasses
from typing import NamedTuple

import jax
import pytest

from jaxlora.lora import LoraConfig
from jaxlora.models import DecoderConfig
from jaxlora.studies.harness import Results
from jaxlora.studies.two_hop.symbols import answer, protocol
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig
from jaxlora.studies.two_hop.symbols.pretraining import PretrainConfig
from jaxlora.studies.two_hop.symbols.recipes import ExpertsConfig
from jaxlora.tasks.two_hop.world import WorldConfig

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
    """A finished study, its folders, and every call of progress."""

    config: TwoHopConfig
    results: Results
    out: object
    cache: object
    progress: list


@pytest.fixture(scope="module", autouse=True)
def _optax_promotes():
    """Optax itself mixes floats and integer counts; tests/models is strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def tiny():
    """The config; two seeds, three methods, every criterion at 0."""
    return TINY


@pytest.fixture(scope="session")
def small():
    """One seed and one method, for the many runs of the resume tests."""
    return dataclasses.replace(TINY, seeds=1, methods=("mean",))


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """The tiny study, run once."""
    root = tmp_path_factory.mktemp("study")
    calls = []
    with jax.numpy_dtype_promotion("standard"):
        results = protocol.run(
            TINY, root / "out", root / "cache", lambda *x: calls.append(x)
        )
    return Ran(TINY, results, root / "out", root / "cache", calls)


@pytest.fixture
def counted(monkeypatch):
    """The (arm, method) of every block that is computed, as it happens."""
    calls = []
    run = answer.answer

    def count(setting, arm, method):
        calls.append((str(arm), str(method)))
        return run(setting, arm, method)

    monkeypatch.setattr(answer, "answer", count)
    return calls
