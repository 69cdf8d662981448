"""What is no JSON, or more than fits, is one sentence; all else is as json reads it."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.strangers import data

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**39), 10**39)
    | st.text(max_size=5)
    # No infinity: it is refused.
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_json_is_read_as_json_reads_it(value):
    text = json.dumps(value)
    assert data.loads(text) == json.loads(text)


HOSTILE = [
    ("NaN", "NaN is no number of JSON"),
    ("[-Infinity]", "-Infinity is no number"),
    ("[1e999]", "the number 1e999 is too large"),
    ("[" * 200_000, "nested more than 64 deep"),
    ('{"a":' * 900 + "1" + "}" * 900, "nested more than 64 deep"),
    ("[" * 65 + "]" * 65, "nested more than 64 deep"),
    ('{"a": {"b": 1, "b": 2}}', "the key 'b' is there twice"),
    ("9" * 5000, "the number 99999999... has 5000 digits"),
    ("-" + "9" * 41, "has 41 digits"),
    ("[" + "[]," * 2**20 + "[]]", "more than 1048576 lists and objects"),
    ("[1,\n2", "expecting ',' delimiter at line 2, column 2"),
    ("", "expecting value at line 1"),
]


@pytest.mark.parametrize(("text", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_refused(text, message, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        data.read(tmp_path / "x.json", what="a list")
    shown = str(caught.value)
    assert shown.startswith(f"{tmp_path / 'x.json'} is not JSON: ")
    assert shown.endswith("; expected a list.")
    assert len(shown) < 300 + len(str(tmp_path))


def test_64_deep_is_deep_enough():
    text = "[" * 64 + "]" * 64
    assert data.loads(text) == json.loads(text)


def test_our_own_files_may_hold_what_is_not_defined():
    assert str(data.loads("[NaN, Infinity]", finite=False)) == "[nan, inf]"


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(2**34)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"x\.json has more than 1000 bytes"):
            data.read(tmp_path / "x.json", most=1000)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "x.json").write_bytes(b'"\xff"')
    with pytest.raises(ValueError, match="byte 0xff at offset 1 is no UTF-8"):
        data.read(tmp_path / "x.json")


def test_a_file_of_text_is_bounded_too(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("é\n".encode())
    assert data.text(path) == "é\n"
    with pytest.raises(ValueError, match=r"x\.txt has more than 2 bytes, expected hi"):
        data.text(path, most=2, what="hi")
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"x\.txt is not UTF-8 .invalid start byte"):
        data.text(path)
