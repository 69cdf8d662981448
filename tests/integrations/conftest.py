"""Checkpoint folders with a tokenizer in them; see tests/checkpoints.py."""

import pytest

import checkpoints


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny Llama whose tokenizer puts a bos before a text; it writes letters only."""
    return checkpoints.llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def chatting(tmp_path_factory):
    """A tiny Qwen 2 with a chat template and no bos."""
    return checkpoints.qwen2(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="session")
def adapters():
    """Two adapters for the Llama."""
    return checkpoints.ADAPTERS
