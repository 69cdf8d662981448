"""Progress goes to stderr: a bar on a terminal, a line now and then elsewhere."""

import functools
import io

import pytest
from rich.console import Console

from jaxlora.commands import bars


@pytest.fixture
def shown(monkeypatch):
    """Replaces the terminal; returns a function that says what it showed."""

    def make(terminal):
        file = io.StringIO()
        console = functools.partial(Console, file=file, force_terminal=terminal)
        monkeypatch.setattr(bars, "Console", lambda stderr: console(width=100))
        return file.getvalue

    return make


def test_a_terminal_has_a_bar(shown):
    read = shown(True)
    with bars.bar("loading") as tell:
        tell("model [red]", 1, 4)
    for words in ("loading", "25%", "model [red]"):
        assert words in read()


def test_elsewhere_there_is_a_line_now_and_then(shown, monkeypatch):
    read, now = shown(False), [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    with bars.bar("loading") as tell:
        for step in range(31):
            now[0] = float(step)
            tell(f"part {step} [red]", step, 40)
    assert read().splitlines() == [
        "loading 25%  part 10 [red]",
        "loading 50%  part 20 [red]",
        "loading 75%  part 30 [red]",
    ]


def test_standard_output_is_left_alone(capsys, monkeypatch):
    monkeypatch.setattr(bars, "EVERY", 0.0)
    with bars.bar("loading") as tell:
        tell("model", 1, 2)
    said = capsys.readouterr()
    assert said.out == ""
    assert "loading 50%  model" in said.err
