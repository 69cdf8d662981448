"""Small decoders with adapters of which no part is zero; see tests/decoders.py."""

import pytest

import decoders


@pytest.fixture(scope="session")
def trained():
    """A function ``(seed, fresh adapter) -> adapter`` with random a, b and scales."""
    return decoders.trained


@pytest.fixture(scope="session")
def make_base():
    """A function ``model -> params`` whose norms and biases are not trivial."""
    return decoders.shaken
