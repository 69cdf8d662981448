"""Any changed byte is seen, and so is a file that belongs elsewhere."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.io import trust

CONTENT = {"answer": [0, 1, 0.5], "notes": 'a\n"content": b'}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "values").write_bytes(b"values")
    (tmp_path / "facts").write_bytes(b"facts")
    trust.seal(tmp_path, "entry/3")
    return tmp_path


def test_a_sound_folder_passes(folder):
    trust.check(folder, "entry/3")
    (folder / ".DS_Store").touch()  # which some systems put everywhere
    trust.check(folder, "entry/3")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("deep/values", b"valueS", "deep/values has another SHA-256"),
        ("deep/values", b"", "deep/values has another SHA-256"),
        ("facts", None, "facts is missing"),
        ("manifest.json", None, "manifest.json is missing"),
        ("manifest.json", b"{}", "manifest.json is not what was written"),
        ("manifest.json", b"\xff", "manifest.json is no text"),
        ("manifest.json", b"", "manifest.json is not what was written"),
    ],
)
def test_the_bad_file_is_named(folder, name, data, message):
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)
    with pytest.raises(trust.DamagedError, match=message):
        trust.check(folder, "entry/3")


@pytest.mark.parametrize("name", ["manifest.json", "deep/values"])
@pytest.mark.parametrize("kind", ["pipe", "loop", "folder", "link"])
def test_what_is_no_file_is_named_and_not_waited_for(folder, name, kind):
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.name if kind == "loop" else "nowhere")
    with pytest.raises(trust.DamagedError, match=f"{name} is missing, or no file"):
        trust.check(folder, "entry/3")
    trust.check_sealed(folder / "deep", "entry/3")  # no manifest


@pytest.mark.parametrize("key", ["entry/2", "other/3", ""])
def test_another_entry_is_refused(folder, key):
    with pytest.raises(trust.DamagedError, match="of another entry"):
        trust.check(folder, key)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_byte_of_a_file_may_change(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("x") / "file.json"
    path.write_text(trust.dumps(CONTENT, "key"))
    assert trust.loads(path, "key") == CONTENT
    text = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255).filter(lambda x: x != text[at]))
    path.write_bytes(text)
    with pytest.raises(trust.DamagedError):
        trust.loads(path, "key")


def test_the_file_is_json_for_others(tmp_path):
    (tmp_path / "x").write_text(trust.dumps(CONTENT, "key"))
    assert json.loads((tmp_path / "x").read_text())["content"] == CONTENT


def test_a_json_object_with_its_hash(tmp_path):
    fields = {"seed": 1}
    sealed = fields | {"sha256": trust.json_hash(fields)}
    trust.check_json(tmp_path, sealed)
    with pytest.raises(trust.DamagedError, match="another sha256 than it says"):
        trust.check_json(tmp_path, sealed | {"seed": 2})


def test_where_a_model_lies_does_not_count(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    one, two = ([tmp_path / x] for x in "ab")
    assert trust.folders_hash(one) == trust.folders_hash(two)
    (tmp_path / "b" / "config.json").write_text("[]")
    assert trust.folders_hash(one) != trust.folders_hash(two)
