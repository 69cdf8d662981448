"""The trial of CONTRIBUTING: help alone answers what people ask first."""

import pathlib
import re

import pytest

import jaxlora
from jaxlora import cli

GUIDE = pathlib.Path(jaxlora.__file__).parents[1] / "CONTRIBUTING.md"
TITLE = "## Trial: ten first questions"


def questions():
    """Question, command and answers of each row of the table."""
    part = GUIDE.read_text(encoding="utf-8").partition(TITLE)[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| ?(.*?) ?\| (.+?) \|$", part, re.MULTILINE)
    return [(asked, command, said.split("; ")) for asked, command, said in rows[1:]]


def words(text):
    """One line, without the marks of code."""
    return " ".join(text.replace("`", "").split())


@pytest.mark.parametrize(("question", "command", "answers"), questions())
def test_help_answers(capsys, question, command, answers):
    assert cli.main([*command.split(), "--help"]) == 0
    shown = words(capsys.readouterr().out)
    for answer in answers:
        assert words(answer) in shown, question


def test_there_are_ten():
    assert len(questions()) == 10
