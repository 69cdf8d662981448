"""Small decoders, and a checkpoint with a tokenizer; see tests/decoders.py."""

import pytest

import checkpoints
import decoders


@pytest.fixture(scope="session")
def trained():
    """A function ``(seed, fresh adapter) -> adapter`` with random a, b and scales."""
    return decoders.trained


@pytest.fixture(scope="session")
def make_base():
    """A function ``model -> params`` whose norms and biases are not trivial."""
    return decoders.shaken


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny Llama whose tokenizer puts a bos before a text; it writes letters only."""
    return checkpoints.llama(tmp_path_factory.mktemp("llama"))
