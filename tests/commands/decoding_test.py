"""Batches of prompts: what a prompt is answered does not depend on its company."""

import pytest

from jaxlora import reuse
from jaxlora.commands import decoding
from jaxlora.commands.decoding import Sampling
from jaxlora.tasks.text import Record

PROMPTS = ["Ann", "x" * 20, "Bo is"]  # two of them in a batch of one length


@pytest.fixture(autouse=True, scope="module")
def _compile_quickly(compile_quickly):
    """See tests/conftest.py."""


@pytest.fixture(scope="module")
def asked(speaking, _compile_quickly):
    found = reuse.load(speaking("plain"))
    text = decoding.load_tokenizer(speaking("plain"), found)
    return found, text, [text.encode(prompt) for prompt in PROMPTS]


def decode(asked, prompts=None, **options):
    found, text, every = asked
    options = {"max_new_tokens": 6, "batch": 2} | options
    return decoding.decode(found, text, prompts or every, **options)


def test_order_and_batch_do_not_matter(asked):
    together = decode(asked)
    assert len({said.text for said in together}) > 1
    for i in (0, 1):
        assert decode(asked, [asked[2][i]]) == [together[i]]
    assert decode(asked, asked[2][::-1]) == together[::-1]


def test_it_tells_how_many_are_done(asked):
    told = []
    decode(asked, tell=told.append)
    assert told == [2, 3]


def test_sampling_follows_the_seed(asked):
    def said(**options):
        sampling = Sampling(temperature=2.0, **options)
        return decode(asked, asked[2][::2], sampling=sampling)

    assert said(seed=1) == said(seed=1)
    assert said(seed=1) != said(seed=2)
    for narrow in ({"sample_top_k": 1}, {"top_p": 1e-6}):
        assert said(**narrow) == decode(asked, asked[2][::2])


def test_a_row_ends_at_the_context(asked):
    found = asked[0]
    context = found.model.config.max_length
    prompts = [[3] * (context - 2), [4] * (context - 5)]
    said = decode(asked, prompts)
    assert [one.tokens for one in said] == [2, 5]
    assert not any(one.ended for one in said)
    assert decoding.room(found, [3] * context) == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": -1.0}, "--temperature is -1.0, expected 0 or more"),
        ({"temperature": float("nan")}, "--temperature is nan"),
        ({"temperature": 1.0, "top_p": 0.0}, "--top-p is 0.0, expected above 0"),
        ({"temperature": 1.0, "sample_top_k": -1}, "--sample-top-k is -1"),
        ({"top_p": 0.5}, "--temperature is 0, which samples none"),
        ({"sample_top_k": 5}, "--temperature is 0, which samples none"),
    ],
)
def test_sampling_out_of_range_is_refused(options, expected):
    with pytest.raises(ValueError, match=expected):
        Sampling(**options)


def test_where_a_prompt_came_from_is_told(asked):
    odd = Record(messages=({"role": "robot", "content": "x"},) * 2, where="a.jsonl:3")
    with pytest.raises(ValueError, match=r"^a.jsonl:3: .*chat"):
        decoding.encode(odd, asked[1])
