"""Help: written beforehand, the same as commands say now, without JAX, and complete."""

import re
import subprocess

import pytest

from jaxlora import cli
from jaxlora.commands import catalog, completion, merge_choice, pages
from jaxlora.commands.flags import help_text

MANY = 30
"""Flags, fields of merges too, from which help is long."""
WRITE = "the flags changed: run `python -m jaxlora.commands.pages`"


def plain(text):
    """The words; where a line breaks, and how frames are drawn, is tyro's to choose."""
    return [word for word in text.split() if word.strip("-│╭╮╰╯─")]


@pytest.mark.parametrize("name", pages.names())
def test_a_page_is_what_the_command_says(name):
    page = pages.file(name).read_text(encoding="utf-8")
    assert plain(page) == plain(pages.render(name)), WRITE
    assert pages.flags(page) or name == "completion"


@pytest.mark.parametrize("name", pages.names())
def test_a_page_reads_well(name):
    page = pages.file(name).read_text(encoding="utf-8")
    assert page.startswith(f"usage: jaxlora {name.removesuffix(pages.TEXT)} ")
    assert not re.search(r"\(default:\s*(None|'')?\s*\)|\{None\}", page)
    assert "\n\n\n" not in page
    assert max(map(len, page.splitlines())) <= 80


def test_no_page_is_left_of_a_command_that_is_gone():
    assert set(pages.FOLDER.iterdir()) == {pages.file(name) for name in pages.names()}


@pytest.mark.parametrize(
    "words",
    [
        "study two-hop --help",
        "study two-hop --model DIR --help",
        "study --help",
        "data --help",
        "data two-hop -h",
        "merge --help",
        "merge --list",
        "merge --list --all",
        "data questions nowhere.jsonl",
        "completion bash",
        "--version",
    ],
)
def test_what_only_informs_does_not_wait_for_jax(starts_lightly, words):
    assert starts_lightly(words.split())


def test_help_of_a_group_names_its_members_and_the_language_model(capsys):
    for group in ("study", "data"):
        assert cli.main([group, "--help"]) == 0
        shown = capsys.readouterr().out
        for name in catalog.members(group):
            assert f"  {group} {name} " in shown
        assert "--model DIR" in shown or group == "data"
        assert "generate" not in shown


def test_help_with_other_flags_shows_their_defaults():
    assert pages.answer(["study", "two-hop", "--preset", "standard", "--help"]) is None
    assert pages.answer(["study", "two-hop", "--help"]) is not None
    assert pages.answer(["zzzz", "--help"]) is None


def test_the_study_names_the_language_model():
    page = pages.file("study two-hop").read_text(encoding="utf-8")
    assert "--model DIR" in page


@pytest.mark.parametrize("name", pages.names())
def test_ten_common_flags_come_first_where_there_are_many(name):
    page = pages.file(name).read_text(encoding="utf-8")
    every = pages.flags(page)
    # A page may list fields of methods before its options.
    first = pages.flags(page[page.find(" what most runs need") :])[:10]
    common = [f"--{flag}" for flag in help_text.COMMON.get(name, ())]
    assert first == common or not common
    assert len(common) == (10 if len(every) > MANY else len(common))


def test_the_list_of_methods_is_what_the_registry_says():
    assert merge_choice.EVERY.read_text(encoding="utf-8") == pages.methods(), WRITE


def completed(line):
    """What bash offers at the end of a line."""
    code = completion.script("bash") + (
        f"COMP_WORDS=({line.replace('|', chr(34) * 2)}); "
        'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _jaxlora; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("jaxlora mer", ["merge"]),
        ("jaxlora study |", catalog.members("study")),
        ("jaxlora study two-hop --seed", ["--seeds", "--seeds-at-once"]),
        ("jaxlora generate M --max-new", ["--max-new-tokens"]),
        ("jaxlora generate |", []),
        ("jaxlora completion |", ["bash", "zsh"]),
    ],
)
def test_bash_completes_commands_and_flags(line, expected):
    assert completed(line) == expected


def test_a_shell_that_is_not_known_is_refused(capsys):
    assert cli.main(["completion", "zhs"]) == 2
    said = capsys.readouterr().err
    assert "expected bash or zsh" in said
    assert "did you mean 'zsh'?" in said
