"""What commands print goes where a pipe expects it."""

import pytest
from rich.console import Console

from jaxlora.commands import generate, printing
from jaxlora.reuse.decode import Continuation
from jaxlora.tasks import prompts


def test_notes_are_printed_on_stderr(capsys):
    printing.say(("One sentence.", "Another."))
    shown = capsys.readouterr()
    assert shown.err == "jaxlora: One sentence.\njaxlora: Another.\n"
    assert not shown.out


def test_what_acts_on_a_terminal_is_printed_as_text(capsys):
    hostile = "\x1b]0;a\x07\x9b2J"
    printing.say([hostile])
    console = printing.console()
    printing.line(console, hostile)
    printing.table(console, ["name"], [[hostile]])
    printing.facts({hostile: hostile})
    shown = capsys.readouterr()
    text = (shown.out + shown.err).replace("\n", "")
    assert text.isprintable()
    assert text.count(r"\x1b]0;a\x07\x9b2J") == 5


@pytest.mark.parametrize("terminal", [True, False])
def test_generated_text_acts_on_no_terminal(capsys, monkeypatch, terminal):
    monkeypatch.setattr(Console, "is_terminal", terminal)
    record = prompts.plain("Say \x1b[2J")
    generate._print([(record, Continuation("\x1b[2J", 1, True))])
    shown = capsys.readouterr().out
    assert (r"\x1b[2J" in shown) is terminal
    assert ("\x1b[2J" in shown) is not terminal
