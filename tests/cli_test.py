"""The command line itself: help, misspellings, exit codes, errors in one sentence."""

import errno
import os
import signal
import sys

import pytest

import jaxlora
from jaxlora import cli, stopping


def test_help_names_every_command(capsys):
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(words) == 0
        said = capsys.readouterr()
        for command in cli.COMMANDS:
            assert f"\n  {command}  " in said.out
        assert said.err == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["study", "two-hop", "--help"], "--world.coverage FLOAT"),
        (["data", "two-hop", "--help"], "--world.people INT"),
        (["study", "two-hop", "--model", "x", "--help"], "--ask.new-tokens INT"),
        (["study", "word-problems", "--help"], "--overlaps [FLOAT [FLOAT ...]]"),
        (["info", "--help"], "--cache-dir PATH"),
        (["forward", "--help"], "--tokens FILE.json"),
        (["generate", "--help"], "--top-k INT"),
        (["fuse", "--help"], "ADAPTER..."),
        (["merge", "--help"], "--density D"),
        (["inspect", "--help"], "--table FILE"),
        (["eval", "--help"], "--metric {exact,number}"),
        (["gate", "--help"], "--out FILE.safetensors"),
        (["diagnose", "--help"], "--ask {direct,written}"),
    ],
)
def test_help_of_a_command_returns_0(capsys, words, expected):
    assert cli.main(words) == 0
    assert expected in capsys.readouterr().out


def test_help_lists_every_field_with_its_words(capsys):
    cli.main(["study", "two-hop", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for field in ("--lora.rank", "--pretrain.min-two-hop", "--model.num-layers"):
        assert field in said
    for words in ("Ways to combine a library", "Share of the study's known second"):
        assert words in said
    assert "config." not in said


@pytest.mark.parametrize(
    "words",
    [["--help"], ["studdy", "two-hop"], ["study"], [], ["forwrd"]],
)
def test_help_and_misspellings_do_not_wait_for_jax(starts_lightly, words):
    assert starts_lightly(words)


def refused(capsys, *words) -> str:
    """The one sentence of a refusal."""
    assert cli.main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("jaxlora: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["studdy", "two-hop"], "did you mean `jaxlora study two-hop`?"),
        (["study", "two-hops"], "did you mean `jaxlora study two-hop`?"),
        (["inf"], "did you mean `jaxlora info`?"),
        (["zzzz"], "No command 'zzzz'; there are study two-hop, study theory, "),
        (["forwrd", "two-hop"], "did you mean `jaxlora forward`?"),
        (["evaluate", "--model"], "did you mean `jaxlora eval`?"),
        (["study"], "there are two-hop, theory, boundary and word-problems."),
        (["data"], "there are two-hop, word-problems and questions."),
        (["study", "--hlep"], "No command 'study --hlep'; there are"),
    ],
)
def test_an_unknown_command_names_what_exists(capsys, words, expected):
    assert expected in refused(capsys, *words)


def failing(monkeypatch, error):
    def find(words):
        def run(rest):
            raise error

        return run, words

    monkeypatch.setattr(cli, "_find", find)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("Got 3, expected 4."), "Got 3, expected 4."),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/x"),
            "No room left on the disk (/full/x)",
        ),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "(while writing)"),
        (PermissionError(errno.EACCES, "Permission denied", "/srv/x"), "/srv/x"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/gone"), "/gone"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/tmp"), "/tmp"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/a/b"), "/a/b"),
    ],
)
def test_errors_that_a_user_can_mend_are_one_sentence(
    capsys, monkeypatch, error, expected
):
    failing(monkeypatch, error)
    assert expected in refused(capsys, "study", "two-hop")


@pytest.mark.parametrize(
    ("words", "error", "expected"),
    [
        (
            ["generate"],
            RuntimeError(
                "RESOURCE_EXHAUSTED: Out of memory allocating 5368709120 bytes."
            ),
            "Out of memory (for 5.0 GiB more); lower --batch or --max-new-tokens, or",
        ),
        (
            ["fuse"],
            MemoryError(),
            "Out of memory; use --dtype bfloat16, a smaller model, or a larger machine",
        ),
        (
            ["study", "two-hop", "--model=x"],
            RuntimeError("INTERNAL: RESOURCE_EXHAUSTED"),
            "Out of memory; lower --train.batch, --train.together or --ask.batch, or",
        ),
        (
            ["eval"],
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/x"),
            "(/full/x); free some, or choose another --out: nothing half-written",
        ),
    ],
)
def test_what_to_do_depends_on_the_command(capsys, monkeypatch, words, error, expected):
    failing(monkeypatch, error)
    assert expected in refused(capsys, *words)


def test_errors_of_ours_keep_their_traceback(monkeypatch):
    failing(monkeypatch, OSError("no file, no number"))
    with pytest.raises(OSError, match="no file"):
        cli.main(["info"])
    failing(monkeypatch, RuntimeError("INTERNAL: a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["generate"])
    failing(monkeypatch, KeyError("x"))
    with pytest.raises(KeyError):
        cli.main(["info"])


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        (KeyboardInterrupt(), 130),
        (stopping.Stop(signal.SIGINT), 130),
        (stopping.Stop(signal.SIGTERM), 75),
    ],
)
def test_what_is_said_of_an_interruption_is_true(capsys, monkeypatch, stop, code):
    failing(monkeypatch, stop)
    assert cli.main(["study", "two-hop"]) == code
    assert "nothing was saved yet" in capsys.readouterr().err
    stop.add_note("update 8 of 20 is saved")
    assert cli.main(["study", "two-hop"]) == code
    said = capsys.readouterr().err
    assert "update 8 of 20 is saved; the same command goes on from there" in said
    assert cli.main(["generate"]) == code
    assert "nothing half-written is left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "module", "rest"),
    [
        ("study two-hop --preset full", "study", 2),
        ("study two-hop --model.num-layers 2", "study", 2),
        ("study two-hop --model DIR --seeds 2", "study_text", 2),
        ("study two-hop --seeds 2 --model=DIR", "study_text", 2),
        ("forward MODEL --out x", "forward", 1),
        ("merge --list", "merge_choice", 1),
        ("merge --list ties", "merge", 1),
        ("eval --model DIR", "evaluate", 1),
    ],
)
def test_a_command_is_run_by_its_module(words, module, rest):
    words = words.split()
    command, left = cli._find(words)
    assert command.__module__ == f"jaxlora.commands.{module}"
    assert left == words[rest:]


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (2, 2), ("words", 2)])
def test_an_exit_of_the_parser_becomes_a_code(monkeypatch, code, expected):
    failing(monkeypatch, SystemExit(code))
    assert cli.main(["info"]) == expected


def test_the_version_is_said(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxlora {jaxlora.__version__}\n"


def test_arguments_come_from_the_process_by_default(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["jaxlora", "zzzz"])
    assert cli.main() == 2
    assert "'zzzz'" in capsys.readouterr().err
