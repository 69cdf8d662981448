"""``jaxlora data questions`` says what a file of questions can measure."""

import json

import pytest

from jaxlora import cli

ASKED = [
    ("Ann's wife?", "Bo", ""),
    ("Cid's wife?", "Di", ""),
    ("Eli's wife?", "Fay", ""),
    ("city of Ann's wife?", "Rome", "Bo"),
    ("city of Cid's wife?", "Oslo [red]", "Di"),
    ("city of Gus's wife?", "Rome", "Hal"),
    ("river of Gus's wife?", "Po", "Hal"),
    ("city of Ivo's wife?", "Oslo [red]", "Jan"),
]


@pytest.fixture
def written(tmp_path):
    def write(asked):
        path = tmp_path / "questions.jsonl"
        names = ("question", "answer", "bridge")
        lines = [json.dumps(dict(zip(names, q, strict=True))) for q in asked]
        path.write_text("\n".join(lines), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def table(written, capsys, monkeypatch):
    """Rows of the table of some questions, as {name: value}."""
    monkeypatch.setenv("COLUMNS", "200")

    def read(asked):
        assert cli.main(["data", "questions", written(asked)]) == 0
        lines = capsys.readouterr().out.splitlines()
        rows = [line.strip().split("  ", 1) for line in lines]
        return {name: value.strip() for name, value in rows}

    return read


def test_it_counts_and_looks_up(table):
    assert table(ASKED) == {
        "one-hop questions": "3",
        "two-hop questions": "5",
        "majority baseline": "0.400, by always answering 'Rome' or 'Oslo [red]'",
        "bridge not asked for": "3",
        "such bridges": "'Hal', 'Jan'",
    }


def test_one_hop_alone_has_no_baseline(table):
    found = table(ASKED[:3])
    assert found["two-hop questions"] == "0"
    assert found["majority baseline"] == "none, as there is no two-hop question"
    assert found["bridge not asked for"] == "0"
    assert found["such bridges"] == "none"


def test_many_bridges_and_long_ones_are_cut(table):
    found = table([("q?", "x" * 500, f"bridge {i}") for i in range(9)])
    assert found["bridge not asked for"] == "9"
    assert "'bridge 5' and 3 more" in found["such bridges"]
    assert "bridge 6" not in found["such bridges"]
    assert found["majority baseline"].endswith("xxx...")
    assert len(found["majority baseline"]) < 100


def test_control_characters_do_not_reach_the_terminal(table):
    assert r"'\x1b[31m'" in table([("q?", "a", "\x1b[31m")])["such bridges"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "Got no FILE (JSON lines with question, answer and bridge"),
        (["a.jsonl", "b.jsonl"], "Got 'b.jsonl', which belongs to no option"),
        (["--file", "a.jsonl"], "No option --file: FILE stands without it, as in `"),
        (["gone.jsonl"], "Cannot read gone.jsonl: No such file"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(capsys, words, expected):
    assert cli.main(["data", "questions", *words]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_a_bad_line_is_named(written, capsys):
    path = written([("q?", "a", ""), ("q?", "", "")])
    assert cli.main(["data", "questions", path]) == 2
    assert f"{path}:2: 'answer' is empty, expected" in capsys.readouterr().err


def test_help_shows_lines_that_it_takes(tmp_path, capsys):
    assert cli.main(["data", "questions", "--help"]) == 0
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("{")]
    path = tmp_path / "shown.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert cli.main(["data", "questions", str(path)]) == 0
    assert "0.000" not in capsys.readouterr().out
    assert len(lines) == 2


def test_jaxlora_knows_the_command(capsys):
    assert cli.main(["--help"]) == 0
    assert "data questions" in capsys.readouterr().out
    assert cli.main(["data", "question"]) == 2
    assert "did you mean `jaxlora data questions`?" in capsys.readouterr().err
    assert cli.main(["data"]) == 2
    assert (
        "needs a name; there are two-hop, word-problems and questions."
        in capsys.readouterr().err
    )


def test_it_does_not_wait_for_jax(starts_lightly, written):
    assert starts_lightly(["data", "questions", written(ASKED)])


def test_an_error_without_words_keeps_its_traceback(monkeypatch):
    def find(words):
        raise ValueError

    monkeypatch.setattr(cli, "_find", find)
    with pytest.raises(ValueError, match=r"^$"):
        cli.main(["info"])
