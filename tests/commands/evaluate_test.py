"""``jaxlora eval`` counts right answers, and says what it left out."""

import json

import pytest

from jaxlora import cli
from jaxlora.commands import evaluate
from jaxlora.evaluate.statistics import wilson
from jaxlora.reuse import decode
from jaxlora.reuse.decode import Continuation

ASKED = [
    {"question": "Who is Ann's wife?", "answer": "Bo"},
    {"prompt": "2 + 2?", "completion": "4"},
    {
        "messages": [
            {"role": "user", "content": "City?"},
            {"role": "assistant", "content": "Rome"},
        ]
    },
]


@pytest.fixture
def data(tmp_path):
    def write(*records):
        path = tmp_path / "data.jsonl"
        lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
        path.write_text("\n".join(lines), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def run(speaking, tmp_path, capsys, monkeypatch):
    """Runs the command; returns its table as {name: value}, and the rows it wrote."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words, name="plain"):
        out = tmp_path / "rows.jsonl"
        given = ["--model", str(speaking(name)), "--max-new-tokens", "6"]
        assert cli.main(["eval", *given, *words, "--out", str(out), "--force"]) == 0
        lines = capsys.readouterr().out.splitlines()
        table = [line.strip().split("  ", 1) for line in lines]
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        return {name: value.strip() for name, value in table}, rows

    return call


@pytest.fixture
def answering(monkeypatch):
    """Replaces decoding by given answers; returns what was asked."""
    asked = []

    def answer(*texts):
        def continuations(reuse, tokenizer, prompts, how, **options):
            asked.extend(tokenizer.decode(p, skip_special=False) for p in prompts)
            return [Continuation(text, 3, text != "cut") for text in texts]

        monkeypatch.setattr(decode, "continuations", continuations)
        return asked

    return answer


def test_it_counts_right_answers(run, data, answering):
    answering("bo.", "5", "Rome")
    table, rows = run("--data", data(*ASKED), "--metric", "exact")
    found = wilson(2, 3)
    interval = f"{found.value:.3f}   95% interval {found.lo:.3f} to {found.hi:.3f}"
    assert table["accuracy (exact)"] == interval
    assert table["right"] == "2 of 3"
    assert table["skipped as bad"] == table["left out as too long"] == "0"
    assert table["answers cut at the limit"] == "0"
    assert [row["correct"] for row in rows] == [True, False, True]
    assert rows[0]["messages"] == [{"role": "user", "content": "Who is Ann's wife?"}]
    assert (rows[0]["answer"], rows[0]["text"]) == ("Bo", "bo.")
    assert (rows[1]["extracted"], rows[1]["wanted"]) == ("5", "4")
    assert rows[2]["where"].endswith("data.jsonl:3")


def test_numbers_are_compared_by_value(run, data, answering):
    records = [
        {"question": "a", "answer": "so 2 * 36 = 72\n#### 72"},
        {"question": "b", "answer": "#### 1,000"},
        {"question": "c", "answer": "#### 3"},
    ]
    answering("It is $72.00.", "cut", "4 of 3")
    table, rows = run("--data", data(*records), "--metric", "number")
    assert table["right"] == "2 of 3"
    assert table["answers cut at the limit"] == "1"
    assert [row["extracted"] for row in rows] == ["72", None, "3"]


def test_it_judges_what_the_model_says(run, data, speaking):
    _, rows = run("--data", data(*ASKED), "--metric", "exact")
    said = [row["text"] for row in rows]
    right = [ASKED[0], {"prompt": "2 + 2?", "completion": said[1]}, ASKED[2]]
    table, rows = run("--data", data(*right), "--metric", "exact")
    assert table["right"] == "1 of 3"
    assert [row["text"] for row in rows] == said
    assert [row["correct"] for row in rows] == [False, True, False]


def test_it_asks_as_training_did(run, data, answering):
    asked = answering("a", "b", "c")
    run("--data", data(*ASKED), "--metric", "exact")
    assert asked == ["<bos>Who is Ann's wife?\n", "<bos>2 + 2?", "<bos>City?\n"]
    asked.clear()
    run("--data", data(*ASKED), "--metric", "exact", name="chatml")
    assert "<|im_start|>user\nWho is Ann's wife?<|im_end|>" in asked[0]
    assert asked[0].endswith("<|im_start|>assistant\n")
    asked.clear()
    run("--data", data(*ASKED), "--metric", "exact", "--no-chat", name="chatml")
    assert asked[0] == "Who is Ann's wife?\n"


def test_adapters_change_the_answers(run, data, hf):
    folders = [str(hf / "llama" / name) for name in ("plain", "plain2")]
    words = ("--data", data(*ASKED), "--metric", "exact")
    texts = []
    for flags in (
        [],
        ["--adapter", folders[0]],
        ["--adapter", *folders, "--merge", "sum", "--weights", "1", "-2"],
        ["--adapter", *folders, "--route", "arrow", "--route-temperature", "0.1"],
    ):
        _, rows = run(*flags, *words)
        texts.append(tuple(row["text"] for row in rows))
    assert len(set(texts)) == 4


def test_records_takes_the_first(run, data, answering):
    asked = answering("bo")
    table, _ = run("--data", data(*ASKED), "--metric", "exact", "--records", "1")
    assert table["right"] == "1 of 1"
    assert len(asked) == 1


def test_bad_records_are_skipped_on_request_and_counted(run, data, answering, capsys):
    bad = ['{"prompt": ', {"text": "plain"}, {"question": "a", "answer": "no number"}]
    path = data(*bad, {"question": "a", "answer": "3"})
    answering("3")
    words = ("--data", path, "--metric", "number")
    table, rows = run(*words, "--skip-bad")
    assert table["right"] == "1 of 1"
    assert table["skipped as bad"] == "3"
    assert len(rows) == 1
    assert cli.main(["eval", "--model", "no model", *words]) == 2
    assert f"{path}:1: not JSON" in capsys.readouterr().err


def test_what_is_too_long_is_counted(run, data, answering):
    asked = answering("bo")
    long = {"question": "x" * 300, "answer": "y"}
    table, _ = run("--data", data(long, ASKED[0]), "--metric", "exact")
    assert table["left out as too long"] == "1"
    assert table["right"] == "1 of 1"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("records", "words", "expected"),
    [
        ([{"text": "a"}], [], "data.jsonl:1: The record has no answer"),
        ([{"text": "a"}], ["--skip-bad"], "no record with an answer"),
        ([{"question": "a"}], [], "data.jsonl:1"),
        ([ASKED[0]], ["--metric", "number"], "'Bo' has no number"),
        ([{"question": "x" * 300, "answer": "y"}], [], "1 leave no room"),
        ([ASKED[0]], ["--batch", "0"], "--batch is 0"),
        ([ASKED[0]], ["--records", "-1"], "--records is -1, expected 0 or more"),
        ([ASKED[0]], ["--route", "oracle"], "The route 'oracle'"),
        ([ASKED[0]], ["--metrics", "number"], "Did you mean --metric?"),
        ([ASKED[0]], ["--temperature", "1"], "it is --route-temperature now"),
        ([ASKED[0]], ["--out", "."], "is a folder"),
    ],
)
def test_a_bad_request_is_one_sentence(
    speaking, data, capsys, records, words, expected
):
    metric = [] if "--metric" in words else ["--metric", "exact"]
    given = ["--model", str(speaking("plain")), "--data", data(*records)]
    assert cli.main(["eval", *given, *metric, *words]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_the_examples_work(hf, tmp_path, monkeypatch, shown, speaking, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("test.jsonl", "gsm8k.jsonl"):
        line = {"question": "2 + 2?", "answer": "#### 4"}
        (tmp_path / name).write_text(json.dumps(line))
    places = {"A": hf / "llama" / "plain", "B": hf / "llama" / "plain2"}
    places["MODEL"] = speaking("chatml")
    commands = shown(evaluate.DESCRIPTION)
    assert len(commands) == 3
    for words in commands:
        words = [
            "6" if word == "400" else str(places.get(word, word)) for word in words
        ]
        short = [] if "6" in words else ["--max-new-tokens", "6"]
        assert cli.main(words + short) == 0
        assert "of 1" in capsys.readouterr().out
    assert (tmp_path / "rows.jsonl").is_file()
