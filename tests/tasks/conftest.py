"""Tiny tokenizers, one with a chat template and one without."""

import pathlib

import pytest

from jaxlora.models import tokenizer

DATA = pathlib.Path(__file__).parents[1] / "data" / "tokenizer"


@pytest.fixture(scope="session")
def plain():
    return tokenizer.load(DATA / "plain")


@pytest.fixture(scope="session")
def chatml():
    return tokenizer.load(DATA / "chatml")
