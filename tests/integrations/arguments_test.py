"""What a harness passes, read as what was meant."""

import dataclasses
import os

import pytest

from jaxlora.integrations import arguments
from jaxlora.models import tokenizer as tokenizers


def test_values_are_split_at_the_path_separator():
    assert arguments.split(os.pathsep.join(["a/b", "c"])) == ["a/b", "c"]
    assert arguments.split("") == arguments.split(()) == []
    assert arguments.split(["a:b"]) == ["a:b"]
    assert arguments.split(-0.5) == [-0.5]


def test_length_is_the_models_or_less():
    assert arguments.length(None, 128) == 128
    assert arguments.length(5, 128) == 5
    for bad in (0, 129):
        with pytest.raises(ValueError, match=f"{bad}, expected 1 to 128"):
            arguments.length(bad, 128)


def test_rows():
    assert [arguments.rows(x) for x in ("auto", "auto:4", "8", 3)] == [16, 16, 8, 3]
    for bad in (0, "many", "-1"):
        with pytest.raises(ValueError, match="expected a number or 'auto'"):
            arguments.rows(bad)


def test_prefix_is_as_given_or_the_bos_or_the_eos(checkpoint, chatting):
    plain, chatml = tokenizers.load(checkpoint), tokenizers.load(chatting)
    assert arguments.prefix(plain, None) == plain.bos_id == 1
    assert arguments.prefix(plain, 0) == 0
    assert chatml.bos_id is None
    assert arguments.prefix(chatml, None) == chatml.eos_ids[0]
    none = dataclasses.replace(chatml, eos_ids=())
    with pytest.raises(ValueError, match="neither a bos nor an eos"):
        arguments.prefix(none, None)
