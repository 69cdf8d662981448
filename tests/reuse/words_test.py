"""The tokenizer that an adapter brings is used, and said to be; or said not to be."""

import json
import pathlib
import shutil

import pytest

from jaxlora.models import tokenizer
from jaxlora.reuse import words

DATA = pathlib.Path(__file__).parents[1] / "data" / "tokenizer"
ASKED = [{"role": "user", "content": "hello"}]
TEMPLATE = "{% for m in messages %}[{{ m.content }}]{% endfor %}"


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(DATA / "plain", tmp_path / "model")


def bringing(folder, source=None, **files):
    folder.mkdir()
    if source is not None:
        shutil.copytree(DATA / source, folder, dirs_exist_ok=True)
    for name, content in files.items():
        suffix = "jinja" if name == "chat_template" else "json"
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.{suffix}").write_text(text)
    return folder


def load(source):
    return tokenizer.load(source.folder, source.rest)


def test_a_model_alone_or_with_bare_adapters(model, tmp_path):
    bare = bringing(tmp_path / "a")
    same = bringing(tmp_path / "b", "plain")
    for adapters in ([], [bare], [same], [bare, same]):
        assert words.source(model, adapters) == (model, None, ())


def test_what_an_adapter_brings_is_used_and_said(model, tmp_path):
    adapter = bringing(tmp_path / "a", "chatml")
    source = words.source(model, [adapter])
    assert source[:2] == (adapter, model)
    (note,) = source.notes
    assert f"{adapter} brings tokenizer.json, tokenizer_config.json" in note
    known, theirs = load(source), tokenizer.load(adapter)
    assert known.render(ASKED) == theirs.render(ASKED)
    assert known.eos_ids == theirs.eos_ids


@pytest.mark.parametrize(
    "files",
    [{"chat_template": TEMPLATE}, {"tokenizer_config": {"chat_template": TEMPLATE}}],
)
def test_a_template_alone_is_used_with_the_tokenizer_of_the_model(
    model, tmp_path, files
):
    known = load(words.source(model, [bringing(tmp_path / "a", **files)]))
    assert known.render(ASKED) == "[hello]"
    assert known.encode("Ann") == tokenizer.load(model).encode("Ann")


def test_a_generation_config_alone_adds_its_end(model, tmp_path):
    before = tokenizer.load(model).eos_ids
    adapter = bringing(tmp_path / "a", generation_config={"eos_token_id": 9})
    source = words.source(model, [adapter])
    assert "brings generation_config.json" in source.notes[0]
    assert set(load(source).eos_ids) == {*before, 9}


def test_adapters_that_differ_are_said_to_be_ignored(model, tmp_path):
    one = bringing(tmp_path / "a", "chatml")
    two = bringing(tmp_path / "b", chat_template=TEMPLATE)
    bare = bringing(tmp_path / "c")
    for adapters in ([one, two], [one, bare]):
        folder, rest, notes = words.source(model, adapters)
        assert (folder, rest, len(notes)) == (model, None, 1)
        assert "--tokenizer DIR" in notes[0]
    alike = bringing(tmp_path / "d", "chatml")
    assert words.source(model, [one, alike]).folder == one


def test_a_folder_that_is_named_wins(model, tmp_path):
    adapter = bringing(tmp_path / "a", "chatml")
    other = bringing(tmp_path / "b", chat_template=TEMPLATE)
    source = words.source(model, [adapter], asked=other)
    assert source == (other, model, ())
    assert load(source).render(ASKED) == "[hello]"
    assert words.source(model, [adapter], asked=model).folder == model
    with pytest.raises(ValueError, match=r"has none of tokenizer\.json"):
        words.source(model, [], asked=bringing(tmp_path / "c"))


def test_files_are_put_beside_an_adapter(model, tmp_path):
    adapter = bringing(tmp_path / "a")
    words.bring(None, adapter)
    assert not list(adapter.iterdir())
    words.bring(DATA / "chatml", adapter)
    assert words.source(model, [adapter]).folder == adapter


def test_parts_of_a_tokenizer_without_it_are_said_to_be_left_out(model, tmp_path):
    alone = bringing(tmp_path / "a", special_tokens_map={"eos_token": "<x>"})
    source = words.source(model, [alone])
    assert source.folder == model
    (note,) = source.notes
    assert note.endswith(
        "special_tokens_map.json without a tokenizer.json; they are not read."
    )
    shutil.copy(alone / "special_tokens_map.json", model)
    assert not words.source(model, [alone]).notes
