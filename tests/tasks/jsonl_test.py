"""A user's file: every refusal names the file, the line, what it got and expected."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks import jsonl


@pytest.fixture
def written(tmp_path):
    def write(content: bytes):
        path = tmp_path / "user.jsonl"
        path.write_bytes(content)
        return path

    return write


def test_yields_line_numbers_and_skips_blank_lines(written):
    path = written(b'\n{"a": 1}\r\n  \n{"b": "\xc3\xa9"}')
    assert list(jsonl.read(path)) == [(2, {"a": 1}), (4, {"b": "é"})]


def test_skips_a_byte_order_mark(written):
    assert list(jsonl.read(written(b'\xef\xbb\xbf{"a": 1}\n'))) == [(1, {"a": 1})]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"a": "\xff"}', "byte 0xff at column 8 is not UTF-8; expected a file saved"),
        (b'{"a": 1', 'not JSON .*got {"a": 1; expected one object a line'),
        (b"[" * 100_000, r"not JSON .*got \[\[.*\.\.\.; expected one object a line"),
        (b"1" * 5000, r"not JSON .*expected one object a line"),
        (b"[1, 2]", r"got \[1, 2\], expected an object in braces"),
        (b"null", "got null, expected an object in braces"),
    ],
)
def test_names_file_and_line(written, line, expected):
    path = written(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}:2: .*{expected}"):
        list(jsonl.read(path))


@pytest.mark.parametrize("content", [b"", b"\n  \n"])
def test_refuses_an_empty_file(written, content):
    path = written(content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + " is empty, expected"):
        list(jsonl.read(path))


def test_refuses_what_is_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"Cannot read .*no\.jsonl: No such file"):
        list(jsonl.read(tmp_path / "no.jsonl"))
    with pytest.raises(ValueError, match="expected a JSON-lines file, one object"):
        list(jsonl.read(tmp_path))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"b": "x"}, "no field 'a', the line has 'b'; expected an example"),
        ({}, "no field 'a', the line has no field at all"),
        ({"a": 7}, "'a' is 7, expected a string, as in an example"),
        ({"a": None}, "'a' is null, expected a string"),
        ({"a": " "}, "'a' is empty, expected some text, as in an example"),
        ({"a": "\ud800"}, "'a' is \"\\\\ud800\", half of a surrogate pair, expected"),
    ],
)
def test_text_refuses(record, expected):
    with pytest.raises(ValueError, match=f"^here:3: {expected}"):
        jsonl.text(record, "a", "here:3", "an example")


def test_text_may_be_empty():
    assert jsonl.text({"a": ""}, "a", "here:3", "an example", empty=True) == ""


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.text(), st.text() | st.integers(), max_size=3),
        min_size=1,
        max_size=5,
    )
)
def test_reads_what_json_writes(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("json") / "user.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), "utf-8")
    assert list(jsonl.read(path)) == list(enumerate(records, start=1))
