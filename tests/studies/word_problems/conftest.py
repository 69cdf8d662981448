"""A word-problem study that is too small to solve any, but runs end to end in seconds.

Modulo 5 and with three levels, questions are few; all modules share shapes, so that
most programs are compiled once.
"""

import dataclasses
import pathlib

import jax
import pytest

from jaxlora.lora import LoraConfig
from jaxlora.models import DecoderConfig
from jaxlora.studies.word_problems import bases, protocol
from jaxlora.studies.word_problems.config import WordProblemsConfig
from jaxlora.studies.word_problems.recipes import (
    ExpertsConfig,
    PretrainConfig,
    WorldConfig,
)

TINY = WordProblemsConfig(
    seeds=2,
    map_seeds=0,
    overlaps=(0.0, 1.0),
    axes=(),
    coverages=(),
    methods=("mean",),
    ranked=(),
    resamples=50,
    predictions=pathlib.Path(__file__).with_name("predictions.json"),
    world=WorldConfig(modulus=5, known_unary=3, new=3, levels=3),
    model=DecoderConfig(
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        mlp_size=32,
    ),
    pretrain=PretrainConfig(
        rows=400,
        answer_rows=100,
        warmup=5,
        batch=16,
        answer_batch=8,
        answer_every=5,
        chunk=10,
        max_steps=10,
        items=20,
        min_known=0.0,
        min_answer=0.0,
    ),
    # Two sites of six: most of the time here is compilation.
    lora=LoraConfig(rank=2, targets=(r"layers/attn/[qv]_proj/kernel",)),
    experts=ExpertsConfig(rows=32, draw=8, steps=3, min_own=0.0, at_once=3),
)


@pytest.fixture(scope="module", autouse=True)
def _optax_promotes():
    """Optax itself mixes floats and integer counts; tests/models is strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def tiny():
    """Two bases, two regimes, every criterion at 0."""
    return TINY


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where all modules run the tiny study, and find what it cached."""
    return tmp_path_factory.mktemp("word-problems")


@pytest.fixture(scope="module")
def base(tiny, folder):
    """The first base of the tiny study, trained by whoever asks first."""
    how = (tiny.model, tiny.pretrain, tiny.first_seed, folder / "cache")
    return bases.train(tiny.world, *how, lambda *_: None)


@pytest.fixture(scope="module")
def ended(tiny, folder):
    """The tiny study, run by whoever asks first and then read from its blocks."""
    return protocol.run(tiny, folder / "out", folder / "cache")


@pytest.fixture(scope="session")
def small(tiny):
    """One base and one regime, for runs that are thrown away."""
    return dataclasses.replace(tiny, seeds=1, overlaps=(1.0,))
