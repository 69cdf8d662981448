"""A model of random weights that can be asked: a tiny checkpoint and its tokenizer."""

import pathlib
import shutil

import jax
import pytest

from jaxlora.lora import LoraConfig
from jaxlora.studies.two_hop.text.config import (
    AskConfig,
    CriteriaConfig,
    TextConfig,
    TrainConfig,
)

DATA = pathlib.Path(__file__).parents[3] / "data"


@pytest.fixture(scope="module", autouse=True)
def _optax_promotes():
    """Optax itself mixes floats and integer counts; tests/models is strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A checkpoint folder: the Qwen2 fixture with a tokenizer of its vocabulary."""
    out = tmp_path_factory.mktemp("model")
    parts = (DATA / "hf" / "qwen2" / "base", DATA / "tokenizer" / "plain")
    for path in (path for part in parts for path in part.iterdir()):
        shutil.copy(path, out / path.name)
    return out


@pytest.fixture(scope="session")
def tiny(folder):
    """Three people of one cell; every criterion at 0, two sites of seven."""
    return TextConfig(
        model=str(folder),
        dtype="float32",
        cells=("F-OO",),
        people=3,
        pairs=1,
        phrasings=2,
        methods=("mean", "arrow"),
        resamples=50,
        lora=LoraConfig(rank=2, targets=(r"layers/attn/[qv]_proj/kernel",)),
        train=TrainConfig(steps=4, batch=2, length=256, warmup=1),
        ask=AskConfig(
            phrasings=1, batch=6, candidates_at_once=6, new_tokens=4, written_tokens=6
        ),
        criteria=CriteriaConfig(min_own=0, min_context=0, min_two_hop=0),
    )
