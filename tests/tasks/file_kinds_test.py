"""A file that is no JSON is refused as what it is."""

import gzip
import json

import pytest

from jaxlora.tasks import prompts, text

LINE = b'{"prompt":"q","answer":"a"}\n'


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jsonl.gz", gzip.compress(LINE), "compressed by gzip"),
        ("a.parquet", b"PAR1\x15\x04", "a Parquet file"),
        ("a.zip", b"PK\x03\x04\0", "a zip archive"),
        ("a.arrow", b"ARROW1\0\0\xff", "an Arrow file"),
        ("a.jsonl", LINE.decode().encode("utf-16"), "text in UTF-16"),
        ("a.jsonl", LINE.decode().encode("utf-16-le"), "text in UTF-16, or damaged"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git"),
        ("a.jsonl", b"<!DOCTYPE html>", "a page of HTML"),
        ("a.jsonl", b"\n <!doctype html>", "a page of HTML"),
        ("a.jsonl", b"\x80\x05\x95\0", "a pickle"),
        ("a.jsonl", b"%PDF-1.7", "a PDF"),
        ("a.CSV", b"prompt,answer\nq,a\n", "a table of comma-separated values"),
        ("a.yaml", b"- prompt: q", "YAML"),
    ],
)
def test_the_cause_is_what_the_file_is(tmp_path, name, content, kind):
    path = tmp_path / name
    path.write_bytes(content)
    for read in (text.read, prompts.read):
        with pytest.raises(
            ValueError, match=rf"{name} is .*{kind}.*; expected .*UTF-8"
        ):
            read(path)


@pytest.mark.parametrize("content", [b"", b" \n", b"\xef\xbb\xbf", b"[]", b"[ ]\n"])
def test_a_file_without_records_is_empty(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for read in (text.read, prompts.read):
        with pytest.raises(ValueError, match=r"a\.json is empty"):
            read(path)


def test_numbers_that_are_none_matter_only_where_they_are_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt":"q","answer":"a","score":NaN,"meta":[1e999]}')
    assert text.read(path).records[0].answer == "a"
    path.write_bytes(b'{"prompt":"q","answer":NaN}')
    with pytest.raises(ValueError, match=r"a\.jsonl:1: 'answer' is nan, expected"):
        text.read(path)


@pytest.mark.parametrize("name", ["p.jsonl", "p.JSONL", "p.json", "p.ndjson"])
def test_prompts_are_objects_if_the_file_is_named_so(tmp_path, name):
    rows = [{"prompt": "q"}, {"question": "q"}, {"instruction": "q", "input": "x"}]
    rows += [{"context": "c", "question": "q"}, {"prompt": "q", "output": None}]
    path = tmp_path / name
    path.write_text("\n".join(map(json.dumps, rows)))
    said = [record.messages[-1]["content"] for record in prompts.read(path)]
    assert said == ["q", "q", "q\nx", "c\nq", "q"]
    path.write_text(json.dumps(rows, indent=1))
    assert [x.messages[-1]["content"] for x in prompts.read(path)] == said


def test_lines_of_prompts_end_where_lines_end(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes("\ufeffWho?\r\nWhat\u2028is\x0cit?\n\n".encode())
    said = [record.messages[-1]["content"] for record in prompts.read(path)]
    assert said == ["Who?", "What\u2028is\x0cit?"]
