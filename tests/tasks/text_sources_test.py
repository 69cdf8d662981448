"""Records of every form are read; a bad one is named by file and line."""

import json
import pathlib

import numpy as np
import pytest

from jaxlora.tasks import text, tfds_source
from jaxlora.tasks.text import Record

SUM = {"question": "Ann has 3 pens and buys 4. How many?", "answer": "3+4=7\n#### 7"}
TURNS = [
    {"role": "system", "content": ""},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
]


def _write(path, *lines):
    text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    path.write_text(text + "\n")
    return path


def _pair(prompt, answer, glue="\n", system=None):
    turns = [("system", system)] if system else []
    turns += [("user", prompt), ("assistant", answer)]
    made = tuple({"role": role, "content": text} for role, text in turns)
    return Record(messages=made, glue=glue, where="f:1")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"messages": TURNS, "id": 3}, Record(messages=tuple(TURNS), where="f:1")),
        (
            {"messages": {k: [t[k] for t in TURNS] for k in ("role", "content")}},
            Record(messages=tuple(TURNS), where="f:1"),
        ),
        (SUM, _pair(SUM["question"], SUM["answer"])),
        ({"prompt": "a", "answer": "b"}, _pair("a", "b")),
        ({"prompt": "a", "completion": " b"}, _pair("a", " b", glue="")),
        ({"instruction": "a", "output": "b", "input": ""}, _pair("a", "b")),
        ({"instruction": "a", "output": "b", "input": "c"}, _pair("a\nc", "b")),
        ({"prompt": "a", "answer": "b", "system": "s"}, _pair("a", "b", system="s")),
        ({"text": "abc"}, Record(text="abc", where="f:1")),
        ({"text": "abc", "prompt": "a", "answer": "b"}, _pair("a", "b")),
    ],
)
def test_forms_are_told_by_their_fields(fields, expected):
    assert text.record(fields, "f:1") == expected


def test_the_answer_is_the_last_turn_of_the_assistant():
    record = text.record({"messages": TURNS}, "f:1")
    assert record.answer == "Yes?"
    assert record.asked == tuple(TURNS[:2])
    open_end = text.record({"messages": TURNS[:2]}, "f:1")
    assert open_end.answer == ""
    assert open_end.asked == tuple(TURNS[:2])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "f:1: the record has no field at all; expected {.messages"),
        ({"q": 1, "prompt": "a"}, "the record has 'q', 'prompt'; expected .*question/"),
        ({"prompt": "a", "answer": True}, "f:1: 'answer' is true, expected a string"),
        ({"prompt": 3, "answer": "b"}, "f:1: 'prompt' is 3, expected a string"),
        ({"prompt": "a", "answer": " "}, "f:1: 'answer' is empty"),
        ({"text": ""}, "f:1: 'text' is empty"),
        ({"messages": []}, "f:1: 'messages' is no list of turns"),
        ({"messages": "a"}, "f:1: 'messages' is no list of turns"),
        (
            {"messages": {"role": ["user"], "content": []}},
            "f:1: 'messages' has role, content of unequal lengths",
        ),
        ({"messages": ["a"]}, "f:1, turn 0: got 'a'"),
        ({"messages": [{"role": "user"}]}, "f:1, turn 0: no field 'content'"),
        (
            {"messages": [TURNS[1], {"role": "assistant", "content": ""}]},
            "turn 1: 'con",
        ),
        ({"messages": [{**TURNS[2], "tool_calls": [1]}]}, "turn 0: 'tool_calls' of 'a"),
    ],
)
def test_bad_records_say_where_and_what_is_expected(fields, message):
    with pytest.raises(ValueError, match=message):
        text.record(fields, "f:1")


def test_a_file_and_a_folder_in_order(tmp_path):
    _write(tmp_path / "b.jsonl", {"text": "3"})
    _write(tmp_path / "a.jsonl", {"text": "1"}, "", {"text": "2"})
    _write(tmp_path / "c.txt", "no")
    one = text.read(tmp_path / "a.jsonl")
    assert [r.text for r in one.records] == ["1", "2"]
    assert one.records[1].where == f"{tmp_path / 'a.jsonl'}:3"
    assert [r.text for r in text.read(str(tmp_path)).records] == ["1", "2", "3"]
    assert (one.skipped, one.first_error) == (0, "")


def test_bad_lines_stop_or_are_counted(tmp_path):
    path = _write(tmp_path / "a.jsonl", SUM, "{", {"q": 1}, SUM, "[1]")
    with pytest.raises(ValueError, match=r"a\.jsonl:2: not JSON"):
        text.read(path)
    found = text.read(path, skip_bad=True)
    assert [r.where[-2:] for r in found.records] == [":1", ":4"]
    assert found.skipped == 3
    assert "a.jsonl:2: not JSON" in found.first_error


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n{"text": "\xff"}\n')
    found = text.read(path, skip_bad=True)
    assert [r.text for r in found.records] == ["a"]
    assert "a.jsonl:2: byte 0xff" in found.first_error


def test_nothing_to_read(tmp_path):
    empty = _write(tmp_path / "a.jsonl", "")
    with pytest.raises(ValueError, match=r"a\.jsonl is empty; expected"):
        text.read(empty)
    bad = _write(tmp_path / "b.jsonl", "{", "{")
    with pytest.raises(ValueError, match=r"\(2 bad\).*The first: .*b\.jsonl:1: not"):
        text.read(bad, skip_bad=True)
    with pytest.raises(ValueError, match=r"no\.jsonl is not there, expected a JSON"):
        text.read(tmp_path / "no.jsonl")
    with pytest.raises(ValueError, match=r"no\.jsonl is not there"):
        text.read("no.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"is a folder without \*\.jsonl"):
        text.read(tmp_path / "folder")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A prepared dataset of sums and one of chats, in array_record."""
    import tensorflow_datasets as tfds

    from jaxlora.tasks.tfds_writing import OfflineInfo, quiet

    class Base(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            words = tfds.features.Text()
            turn = {"role": words, "content": words}
            features = {
                "question": words,
                "answer": words,
                "messages": tfds.features.Sequence(turn),
            }
            if self.chat:
                del features["question"], features["answer"]
            else:
                del features["messages"]
            columns = tfds.features.FeaturesDict(features)
            info = OfflineInfo(builder=self, features=columns)
            info.set_file_format("array_record")
            return info

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(9)}

        def _generate_examples(self, n):
            for i in range(n):
                sums = {"question": f"{i} + 1?", "answer": f"#### {i + 1}"}
                yield i, {"messages": TURNS} if self.chat else sums

    class TinySums(Base, skip_registration=True):
        chat = False

    class TinyChats(Base, skip_registration=True):
        chat = True

    root = tmp_path_factory.mktemp("tfds")
    options = tfds.download.DownloadConfig(
        try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP
    )
    with quiet():
        for kind in (TinySums, TinyChats):
            kind(data_dir=root).download_and_prepare(download_config=options)
    return root


@pytest.mark.parametrize(
    "name", ["tfds:tiny_sums", "tiny_sums:train", "tiny_sums/1.0.0", "tiny_sums"]
)
def test_a_prepared_dataset_is_read_without_tensorflow(stored, name):
    import sys

    found = text.read(name, data_dir=stored)
    asked = {r.asked[0]["content"]: r.answer for r in found.records}
    assert asked == {f"{i} + 1?": f"#### {i + 1}" for i in range(9)}
    assert found.records[2].where.endswith(":train[2]")
    assert found == text.read(name, data_dir=stored)
    assert "tensorflow" not in sys.modules


def test_chats_of_a_prepared_dataset(stored):
    found = text.read("tfds:tiny_chats", data_dir=stored)
    assert found.records[0].messages == tuple(TURNS)


def test_the_newest_version_is_read(stored, tmp_path):
    import shutil

    old = stored / "tiny_sums" / "1.0.0"
    for version in ("0.9.0", "0.10.0"):
        shutil.copytree(old, tmp_path / "tiny_sums" / version)
    folder = tfds_source.newest(tmp_path, "tiny_sums", "tiny_sums")
    assert folder.name == "0.10.0"


def test_datasets_that_cannot_be_read_say_what_to_do(stored, tmp_path):
    with pytest.raises(ValueError, match=r"no file or folder.*download_and_prepare"):
        text.read("gsm8k/main:train", data_dir=stored)
    with pytest.raises(ValueError, match=r"no split 'test', expected one of train"):
        text.read("tiny_sums:test", data_dir=stored)
    import shutil

    folder = tmp_path / "tiny_sums" / "1.0.0"
    shutil.copytree(stored / "tiny_sums" / "1.0.0", folder)
    info = pathlib.Path(folder / "dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match=r"stored as tfrecord, expected array_record"):
        text.read("tiny_sums", data_dir=tmp_path)
    for config in ("a", "b"):
        shutil.copytree(folder, tmp_path / "two" / config / "1.0.0")
    with pytest.raises(ValueError, match=r"one of several, expected one of two/a, two"):
        text.read("two", data_dir=tmp_path)


def test_numpy_rows_become_plain_values():
    row = {"a": b"\xc3\xa9", "b": np.array([b"x"], object), "c": {"d": np.int64(3)}}
    assert tfds_source.plain(row) == {"a": "é", "b": ["x"], "c": {"d": 3}}
