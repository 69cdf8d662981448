"""Flags of sampling: what they stand for, and what is refused."""

import pytest

from jaxlora.commands.flags import Sampling
from jaxlora.reuse.decode import TextDecoding


def test_flags_say_how_texts_are_continued():
    assert Sampling().texts(3) == TextDecoding(max_new_tokens=3)
    sampling = Sampling(temperature=2.0, top_k=4, top_p=0.5, seed=1)
    wanted = TextDecoding(max_new_tokens=3, temperature=2.0, top_k=4, top_p=0.5)
    assert sampling.texts(3) == wanted


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": -1.0}, "--temperature is -1.0, expected 0 or more"),
        ({"temperature": float("nan")}, "--temperature is nan"),
        ({"temperature": 1.0, "top_p": 0.0}, "--top-p is 0.0, expected above 0"),
        ({"temperature": 1.0, "top_k": -1}, "--top-k is -1"),
        ({"top_p": 0.5}, "--temperature is 0, which samples none"),
        ({"top_k": 5}, "--temperature is 0, which samples none"),
    ],
)
def test_sampling_out_of_range_is_refused(options, expected):
    with pytest.raises(ValueError, match=expected):
        Sampling(**options)
