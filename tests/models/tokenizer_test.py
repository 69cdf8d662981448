"""What the files of a checkpoint say about its tokenizer is what is used."""

import dataclasses
import json
import pathlib
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxlora.models import chat, padding, tokenizer

DATA = pathlib.Path(__file__).parents[1] / "data" / "tokenizer"
PLAIN = tokenizer.load(DATA / "plain")
CHATML = tokenizer.load(DATA / "chatml")
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def copy(tmp_path):
    """A function ``(name, file=value) -> folder``; files of value None are removed."""

    def make(name, **files):
        folder = tmp_path / name
        shutil.copytree(DATA / name, folder)
        for stem, value in files.items():
            path = folder / f"{stem}.json"
            path.write_text(value if isinstance(value, str) else json.dumps(value))
            if value is None:
                path.unlink()
        return folder

    return make


CHARACTERS = st.characters(exclude_categories=["Cc", "Cs"])


@hypothesis.given(st.text(CHARACTERS, max_size=20))
@hypothesis.settings(max_examples=40, deadline=None)
def test_decoding_gives_the_text_back(text):
    for one in (PLAIN, CHATML):
        ids = one.encode(text)
        assert one.decode(ids) == text
        assert max(ids, default=0) < one.vocab_size == 256


def test_special_tokens_are_those_of_the_files():
    assert (PLAIN.pad_id, PLAIN.bos_id, PLAIN.eos_ids) == (0, 1, (2,))
    assert (CHATML.pad_id, CHATML.bos_id, CHATML.eos_ids) == (253, None, (255, 253))
    assert PLAIN.special_tokens == {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
    }
    assert CHATML.special_ids == {253, 254, 255}


def test_what_stands_around_a_text_is_the_post_processors():
    assert PLAIN.encode("Ann")[0] == PLAIN.bos_id
    assert PLAIN.encode("Ann")[1:] == PLAIN.encode("Ann", special=False)
    assert CHATML.encode("Ann") == CHATML.encode("Ann", special=False)
    ids, offsets = PLAIN.encode_spans("é!")
    assert ids == PLAIN.encode("é!")
    assert offsets[0] == (0, 0)
    assert [offsets[1], offsets[-1]] == [(0, 1), (1, 2)]


def test_a_bos_in_the_template_is_not_doubled():
    source = "{{ bos_token }}" + chat.PLAIN
    one = dataclasses.replace(PLAIN, chat_template=source)
    ids = one.encode(one.render(HELLO), special=False)
    assert ids.count(one.bos_id) == 1
    assert ids[0] == one.bos_id


def test_decoding_leaves_special_tokens_out_on_request():
    ids = np.array(CHATML.encode(CHATML.render(HELLO)))
    assert CHATML.decode(ids, skip_special=False) == CHATML.render(HELLO)
    assert "<|im_start|>" not in CHATML.decode(ids)
    assert "Hello" in CHATML.decode(ids)


def test_a_template_in_another_encoding_is_named(copy):
    folder = copy("plain")
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"chat_template\.jinja is not UTF-8"):
        tokenizer.load(folder)


def test_half_of_a_surrogate_pair_is_no_text():
    for encode in (PLAIN.encode, PLAIN.encode_spans):
        with pytest.raises(ValueError, match=r"'a\\ud800' holds half of a surrogate"):
            encode("a\ud800")


def test_truncation_and_padding_of_the_file_are_off(copy):
    raw = json.loads((DATA / "plain" / "tokenizer.json").read_text())
    raw["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    raw["padding"] = {
        "strategy": {"Fixed": 40},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    one = tokenizer.load(copy("plain", tokenizer=raw))
    assert one.encode("Ann has 3 pens") == PLAIN.encode("Ann has 3 pens")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # tokenizer_config, special_tokens_map, generation_config, config
        (({}, {"bos_token": "<bos>", "eos_token": "<eos>"}, None, None), (2, 1, (2,))),
        (({}, {}, {"eos_token_id": 2}, None), (2, None, (2,))),
        (({}, {}, {"eos_token_id": [5, 2]}, None), (5, None, (5, 2))),
        (({"eos_token": "<eos>"}, {}, {"eos_token_id": [5, 2]}, None), None),
        (({}, {}, None, {"eos_token_id": 2, "bos_token_id": 1}), (2, 1, (2,))),
        (({"bos_token": None}, {}, None, {"bos_token_id": 1}), (0, None, ())),
        (
            ({}, {}, None, {"pad_token_id": 7, "eos_token_id": [2, 5]}),
            (7, None, (2, 5)),
        ),
        (({}, {}, None, None), (0, None, ())),
        (
            ({}, {}, {"eos_token_id": [2, -1]}, {"pad_token_id": -1}),
            (2, None, (2,)),
        ),
    ],
)
def test_fallbacks_of_special_tokens(copy, files, expected):
    names = ("tokenizer_config", "special_tokens_map", "generation_config", "config")
    one = tokenizer.load(copy("plain", **dict(zip(names, files, strict=True))))
    assert (one.pad_id, one.bos_id, one.eos_ids) == (expected or (2, None, (2, 5)))


@pytest.mark.parametrize(
    ("files", "stored"),
    [
        ({"tokenizer_config": {"chat_template": "one"}}, "one"),
        ({"chat_template": {"chat_template": "two"}}, "two"),
        (
            {
                "tokenizer_config": {
                    "chat_template": [
                        {"name": "tools", "template": "no"},
                        {"name": "default", "template": "three"},
                    ]
                }
            },
            "three",
        ),
        (
            {"tokenizer_config": {"chat_template": [{"name": "a", "template": "4"}]}},
            "4",
        ),
    ],
)
def test_forms_of_chat_templates(copy, files, stored):
    folder = copy("plain", **files)
    assert tokenizer.load(folder).chat_template == stored
    (folder / "chat_template.jinja").write_text("file")
    assert tokenizer.load(folder).chat_template == "file"


def test_conversations_with_tools_may_have_a_template_of_their_own(copy):
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools[0].name }}"},
    ]
    folder = copy("plain", tokenizer_config={"chat_template": named})
    for _ in range(2):
        one = tokenizer.load(folder)
        assert one.render(HELLO) == "plain"
        assert one.render(HELLO, tools=[{"name": "f"}]) == "f"
        assert dataclasses.replace(one, chat_template=None).template([{}]) is None
        # The same as files, as newer releases of transformers write it.
        (folder / "tokenizer_config.json").write_text("{}")
        (folder / "chat_template.jinja").write_text("plain")
        (folder / "additional_chat_templates").mkdir(exist_ok=True)
        more = folder / "additional_chat_templates" / "tool_use.jinja"
        more.write_text("{{ tools[0].name }}")


def test_no_template_says_what_to_do():
    with pytest.raises(ValueError, match=r"no chat template.*instruct.*chat\.PLAIN"):
        PLAIN.render(HELLO)


def _named(*names):
    return {"chat_template": [{"name": n, "template": n} for n in names]}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer": None}, r"has no tokenizer.json.*tokenizer_config.json"),
        ({"tokenizer": "{"}, "tokenizer.json is no tokenizer"),
        ({"tokenizer_config": "{"}, "tokenizer_config.json is not JSON"),
        ({"tokenizer_config": "[]"}, "holds a list, expected an object"),
        ({"tokenizer_config": {"eos_token": "</s>"}}, "eos_token is '</s>', which is"),
        (
            {"tokenizer_config": _named("a", "b")},
            "templates ..a., .b.., expected",
        ),
        ({"tokenizer_config": {"chat_template": 3}}, "chat_template 3, expected a"),
        ({"tokenizer_config": {"chat_template": ["x"]}}, r"chat_template \['x'\]"),
        ({"tokenizer_config": {"chat_template": [{"name": "x"}]}}, "a template"),
        ({"config": "[" * 100_000}, "config.json is not JSON"),
        ({"generation_config": {"eos_token_id": "</s>"}}, "eos_token_id '</s>'"),
        ({"generation_config": {"eos_token_id": [True]}}, r"eos_token_id \[True\]"),
    ],
)
def test_bad_files_end_in_one_sentence(copy, files, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.load(copy("plain", **files))


SPM = DATA / "sentencepiece"
# SentencePiece puts its space before a text only; Hugging Face's Llama tokenizers also
# before what follows a special token, and so do we.
APART = "a<|im_end|>b"


@pytest.mark.parametrize("name", ["bpe", "unigram"])
def test_a_sentencepiece_model_alone_encodes_as_sentencepiece_does(tmp_path, name):
    shutil.copyfile(SPM / f"{name}.model", tmp_path / "tokenizer.model")
    known = tokenizer.load(tmp_path)
    ids = json.loads((SPM / "ids.json").read_text())[name]
    assert len(ids) > 8
    for text, expected in ids.items():
        if name == "unigram" or text != APART:
            assert known.encode(text, special=False) == expected, text
    special = {"bpe": ("<s>", "</s>"), "unigram": (None, "</s>")}[name]
    named = known.special_tokens
    assert (named.get("bos_token"), named["eos_token"]) == special
    bos = [known.bos_id] if name == "bpe" else []
    assert known.encode("Ann") == [*bos, *known.encode("Ann", special=False)]
    assert known.decode(known.encode("Who is Ann?")) == "Who is Ann?"
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"add_bos_token": False, "add_eos_token": True})
    )
    framed = tokenizer.load(tmp_path)
    plain = framed.encode("Ann", special=False)
    assert framed.encode("Ann") == [*plain, *framed.eos_ids]


def test_a_model_that_is_none_of_sentencepiece(tmp_path):
    for content in (b"", b"\x00\x01", b"{}", b"\x0a\x05ab"):
        (tmp_path / "tokenizer.model").write_bytes(content)
        with pytest.raises(ValueError, match=r"tokenizer\.model is no tokenizer"):
            tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(ValueError, match="there is nothing"):
        tokenizer.load(tmp_path / "not there")


CHAT = {"<|im_start|>": 256, "<|im_end|>": 257}


@pytest.mark.parametrize(
    "files",
    [
        {
            "tokenizer_config": {
                "eos_token": "<|im_end|>",
                "added_tokens_decoder": {
                    str(i): {"content": token, "special": True}
                    for token, i in CHAT.items()
                },
            }
        },
        {"added_tokens": CHAT, "tokenizer_config": {"eos_token": "<|im_end|>"}},
        {
            "special_tokens_map": {
                "additional_special_tokens": [*CHAT],
                "eos_token": {"content": "<|im_end|>"},
            },
            "tokenizer_config": {},
        },
    ],
)
def test_tokens_that_only_the_files_beside_name_are_added(copy, files):
    known = tokenizer.load(copy("plain", **files))
    text = "<|im_start|>Ann<|im_end|>"
    assert known.encode(text, special=False) == [256, *PLAIN.encode("Ann")[1:], 257]
    assert (known.eos_ids, known.vocab_size) == ((257,), 258)
    assert known.decode([257]) == ""
    assert tokenizer.fitted(known, 258).encode(text) == known.encode(text)


def test_beside_a_sentencepiece_model_tokens_are_added_too(tmp_path):
    shutil.copyfile(SPM / "bpe.model", tmp_path / "tokenizer.model")
    size = tokenizer.load(tmp_path).vocab_size
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|sep|>": size}))
    ids = tokenizer.load(tmp_path).encode("Ann<|sep|>Ann", special=False)
    words = ids[: ids.index(size)]
    assert ids == [*words, size, *words]  # each with a space before
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"legacy": False}))
    later = tokenizer.load(tmp_path).encode("Ann<|sep|>Ann", special=False)
    assert later[: len(words) + 1] == [*words, size]
    assert later != ids


def test_an_added_token_keeps_its_id(copy):
    other = {"added_tokens": {"<x>": 7}}  # the vocabulary has another token there
    assert tokenizer.load(copy("plain", **other)).vocab_size == 256


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"added_tokens": {"<x>": 300}}, "'<x>' should have the id 300, and would h"),
        ({"tokenizer": None, "vocab": {}}, "has no tokenizer.json"),
    ],
)
def test_files_that_do_not_go_together(copy, files, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.load(copy("plain", **files))


def test_a_vocabulary_alone_is_no_tokenizer(copy):
    folder = copy("plain", tokenizer=None, vocab={})
    (folder / "merges.txt").write_text("a b")
    with pytest.raises(ValueError, match=r"vocab\.json and merges\.txt but no token"):
        tokenizer.load(folder)
    (folder / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    with pytest.raises(ValueError, match="list of ranks, as tiktoken has it"):
        tokenizer.load(folder)


@pytest.mark.parametrize("listed", [False, True])
def test_of_two_files_that_differ_one_comes_first(copy, listed):
    """The rule of transformers: the map, unless the other lists its added tokens."""
    config = {"eos_token": "<eos>"} | ({"added_tokens_decoder": {}} if listed else {})
    files = {"tokenizer_config": config, "special_tokens_map": {"eos_token": "<pad>"}}
    assert tokenizer.load(copy("plain", **files)).eos_ids == ((2,) if listed else (0,))


def test_a_tokenizer_of_another_vocabulary_is_refused():
    tokenizer.fitted(PLAIN, 256)
    tokenizer.fitted(PLAIN, 300)
    with pytest.raises(ValueError, match=r"^6 tokens have no row.*id 255.*another"):
        tokenizer.fitted(PLAIN, 250)
    with pytest.raises(ValueError, match=r"end tokens \[999\].*another model"):
        tokenizer.fitted(dataclasses.replace(PLAIN, eos_ids=(999,)), 2000)


def test_of_several_end_tokens_one_must_be_known():
    """A list of ends may serve several tokenizers; what has no row is never drawn."""
    several = dataclasses.replace(PLAIN, eos_ids=(2, 999, 5000))
    assert tokenizer.fitted(several, 2000).eos_ids == (2, 999)


def test_special_tokens_that_no_text_has_need_no_row():
    """Gemma 3 has a token for images, beyond the rows of its text models."""
    known = tokenizer.fitted(dataclasses.replace(CHATML, eos_ids=(253,)), 254)
    assert known.encode("Ann") == CHATML.encode("Ann")
    with pytest.raises(ValueError, match=r"holds '<\|im_start\|>', token 254, for wh"):
        known.encode("<|im_start|>user")
    with pytest.raises(ValueError, match="1 tokens have no row"):
        tokenizer.fitted(dataclasses.replace(CHATML, eos_ids=(255,)), 255)


def test_padding_that_has_no_row_is_another_token():
    known = tokenizer.fitted(dataclasses.replace(PLAIN, pad_id=300), 256)
    assert (known.pad_id, known.rows) == (0, 256)


@pytest.mark.parametrize("special", [True, False])
def test_added_tokens_that_no_text_has_need_no_row(copy, special):
    raw = json.loads((DATA / "plain" / "tokenizer.json").read_text())
    more = [("[PAD]", 256), ("<think>", 257)]
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    raw["added_tokens"] += [
        dict.fromkeys(flags, False) | {"id": i, "content": token, "special": special}
        for token, i in more
    ]
    folder = copy("plain", tokenizer=raw, tokenizer_config={"pad_token": "[PAD]"})
    known = tokenizer.fitted(tokenizer.load(folder), 256)
    assert known.pad_id == 0
    assert known.encode("Ann") == PLAIN.encode("Ann")
    with pytest.raises(ValueError, match="holds '<think>', token 257, for which"):
        known.encode("so <think>")


@pytest.mark.parametrize(
    "named", [{"pad_token": "[PAD]"}, {"unk_token": ""}, {"unk_token": "<unknown>"}]
)
def test_names_of_tokens_that_nothing_needs(copy, named):
    known = tokenizer.load(copy("plain", tokenizer_config=named))
    assert known.encode("Ann") == PLAIN.encode("Ann")
    assert not set(named.values()) & set(known.special_tokens.values())


def test_pad_left():
    tokens, mask = padding.pad_left([[5], [6, 7, 8]], 9, length=4)
    np.testing.assert_array_equal(tokens, [[9, 9, 9, 5], [9, 6, 7, 8]])
    np.testing.assert_array_equal(mask, tokens != 9)
    assert (tokens.dtype, mask.dtype) == (np.int32, bool)
    assert padding.pad_left([[5], [6, 7, 8]], 9)[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "Got 0 prompts"),
        ([[1], []], "1 are empty"),
        ([[1], [1, 2, 3]], "Prompt 1 has 3 tokens, expected at most length = 2"),
    ],
)
def test_pad_left_refuses(ids, message):
    with pytest.raises(ValueError, match=message):
        padding.pad_left(ids, 0, length=2)


def test_buckets_are_few_and_hold_what_they_must():
    sizes = [padding.bucket(n) for n in range(1, 1000)]
    assert all(n <= size < max(17, 2 * n) for n, size in enumerate(sizes, start=1))
    assert set(sizes) == {16, 32, 64, 128, 256, 512, 1024}
    assert padding.bucket(3, least=1) == 4
