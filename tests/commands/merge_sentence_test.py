"""The sentence after a merge, against merges of which the answer is known."""

import numpy as np
import pytest

from jaxlora import lora
from jaxlora.commands.merge_sentence import sentence
from jaxlora.merge import groups


def expert(a, b):
    return np.asarray(a, np.float32)[None, :, None], np.asarray(b, np.float32)[
        None, None
    ]


def said(method, deltas, merged, weights=(1, 1)):
    """Deltas are pairs of vectors; merged is a pair, or a list of them."""
    a, b = (np.stack(x) for x in zip(*(expert(*d) for d in deltas), strict=True))
    library = {"k": lora.LoraWeight(a, b, np.ones(a.shape[:2], np.float32))}
    a, b = zip(*(expert(*d) for d in merged), strict=True)
    out = lora.LoraWeight(np.concatenate(a, 2), np.concatenate(b, 1), np.ones(1))
    totals = groups.totals({"k": out}, library, weights)
    return sentence(method, ["x", "y"], weights, totals)


X, Y = ([1.0, 0, 0], [2.0, 0]), ([0, 1.0, 0], [0, 3.0])


def scaled(pair, by):
    return (np.multiply(pair[0], by), pair[1])


@pytest.mark.parametrize(
    ("method", "deltas", "merged", "expected"),
    [
        (
            "mean",
            [X, Y],
            [scaled(X, 0.5), scaled(Y, 0.5)],
            "exact mean: each expert acts at half strength, nothing else is lost; the "
            "experts are nearly orthogonal (largest cosine 0.00)",
        ),
        ("sum", [X, Y], [X, Y], "exact sum: each expert acts in full, nothing is lost"),
        ("tsv", [X, Y], [X, Y], "tsv: each expert acts in full, nothing is lost"),
        ("mean", [X, X], [X], "acts in full, nothing is lost; the experts overlap"),
        ("sum", [X, X], [X, X], "each expert acts at 2.00 of its strength"),
        ("ties", [X, Y], [X], "x acts in full, y acts at 0.00 of its strength, and"),
        ("ties", [X, Y], [X], "direction is 0.83 off the exact sum's"),
    ],
)
def test_what_a_merge_did(method, deltas, merged, expected):
    assert expected in said(method, deltas, merged)


def test_experts_that_are_left_out_are_not_spoken_of():
    text = said("sum", [X, Y], [X], weights=(1, 0))
    assert text == "exact sum: x acts in full, nothing is lost"


def test_nothing_is_compared_with_nothing():
    text = said("sum", [X, X], [scaled(X, 0)], weights=(1, -1))
    assert "nothing to compare" in text
