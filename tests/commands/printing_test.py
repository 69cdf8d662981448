"""What commands print goes where a pipe expects it."""

from jaxlora.commands import printing


def test_notes_are_printed_on_stderr(capsys):
    printing.say(("One sentence.", "Another."))
    shown = capsys.readouterr()
    assert shown.err == "jaxlora: One sentence.\njaxlora: Another.\n"
    assert not shown.out
