"""Tokenizers that mean harm end in one sentence; others are as in the library."""

import json
import pathlib
import shutil

import pytest
import tokenizers

from jaxlora.models import tokenizer

DATA = pathlib.Path(__file__).parents[1] / "data" / "tokenizer"
DOUBLING = {"type": "Replace", "pattern": {"Regex": "."}, "content": "aa"}
SLOW = {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated"}
SLOW |= {"invert": False}
WORDS = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<unk>"}
AROUND = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
    "pair": [{"Sequence": {"id": x, "type_id": 0}} for x in "AB"],
    "special_tokens": {"x": {"id": "x", "ids": [4 * 10**9], "tokens": ["x"]}},
}
PIECES = {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": None}


@pytest.fixture
def changed(tmp_path):
    """A function ``(field=value of tokenizer.json) -> folder``."""

    def make(others=(), **fields):
        folder = tmp_path / "x"
        shutil.copytree(DATA / "plain", folder)
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
        for name, value in dict(others).items():
            (folder / name).write_text(json.dumps(value))
        return folder

    return make


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"normalizer": {"type": "Sequence", "normalizers": [DOUBLING] * 60}},
            r"is refused: it needs more (memory|time) than is allowed",
        ),
        ({"pre_tokenizer": SLOW}, "is refused: its library fails .PanicException"),
        (
            {"normalizer": {"type": "Prepend", "prepend": "a" * 10**5}},
            "cannot be used on this text .it makes 1000[0-9]+ tokens of 61",
        ),
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
            "is refused: its library fails .PanicException: Precompiled",
        ),
        ({"post_processor": AROUND}, "puts the id 4000000000 around a text, expected"),
        ({"version": "\x1b[2J"}, r"is no tokenizer .*version '.x1b.2J'"),
        ({"model": WORDS, "added_tokens": [], "post_processor": None}, "unk|UNK"),
        ({"model": PIECES, "added_tokens": [], "post_processor": None}, "unk_id"),
    ],
)
def test_harm_ends_in_one_sentence(changed, fields, message):
    folder = changed(fields.pop("others", ()), **fields)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)

    def use():
        return tokenizer.load(folder).encode("a" * 60 + "!")

    with pytest.raises(ValueError, match=message) as caught:
        use()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_what_harmed_once_is_not_run_again(changed):
    chain = {"type": "Sequence", "normalizers": [DOUBLING] * 60}
    words = tokenizer.load(changed(normalizer=chain))
    with pytest.raises(ValueError, match="is refused") as first:
        words.encode("a" * 60)
    with pytest.raises(ValueError, match="is refused") as second:
        words.encode("a")
    assert str(first.value) == str(second.value)


@pytest.mark.parametrize("eos", [2**31, 10**19, 10**39, True, "2", 2.0])
def test_an_absurd_end_token(changed, eos):
    folder = changed({"generation_config.json": {"eos_token_id": eos}})
    with pytest.raises(ValueError, match=r"has eos_token_id .*, expected a token id"):
        tokenizer.load(folder)


@pytest.mark.parametrize("template", [3, [{"name": "default", "template": 3}], [], [3]])
def test_a_template_that_is_no_text(changed, template):
    folder = changed({"tokenizer_config.json": {"chat_template": template}})
    with pytest.raises(
        ValueError, match=r"has the chat_template .*, expected a string"
    ):
        tokenizer.load(folder)


def test_all_is_as_the_library_gives_it():
    ours = tokenizer.load(DATA / "chatml").backend
    theirs = tokenizers.Tokenizer.from_file(str(DATA / "chatml" / "tokenizer.json"))
    for text in ("", "Hi there", "é名\x00\n", "<|im_start|>user", "a" * 5000):
        for special in (True, False):
            one = ours.encode(text, add_special_tokens=special)
            other = theirs.encode(text, add_special_tokens=special)
            assert (one.ids, one.offsets) == (other.ids, other.offsets)
            decoded = ours.decode(one.ids, skip_special_tokens=special)
            assert decoded == theirs.decode(other.ids, skip_special_tokens=special)
    assert ours.get_vocab() == theirs.get_vocab()
    tokens = [ours.id_to_token(i) for i in range(-1, 300)]
    assert tokens == [None, *(theirs.id_to_token(i) for i in range(300))]
