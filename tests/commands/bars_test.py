"""Progress: bars on a terminal, a line now and then elsewhere, out of pipes' way."""

import functools
import io

import pytest
from rich.console import Console

from jaxlora.commands import bars

STAGES = {"pretrain": "base", "questions": "questions"}


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


@pytest.fixture
def shown(monkeypatch):
    """Replaces the terminal; returns a function that returns what it showed."""

    def make(terminal):
        replacement = console(terminal)
        monkeypatch.setattr(bars, "Console", lambda stderr: replacement)
        return replacement.file.getvalue

    return make


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    return functools.partial(now.__setitem__, 0)


def test_a_terminal_has_a_bar(shown):
    read = shown(True)
    with bars.bar("loading") as move:
        move("model [red]", 1, 4)
    for words in ("loading", "25%", "model [red]"):
        assert words in read()


def test_elsewhere_there_is_a_line_now_and_then(shown, clock):
    read = shown(False)
    with bars.bar("loading") as move:
        for step in range(31):
            clock(float(step))
            move(f"part {step} [red]", step, 40)
    assert read().splitlines() == [
        "loading 25%  part 10 [red]",
        "loading 50%  part 20 [red]",
        "loading 75%  part 30 [red]",
    ]


def test_a_terminal_has_a_bar_for_each_stage():
    terminal = console(True)
    with bars.stages(terminal, STAGES) as move:
        move("pretrain", 1, 4, "step [red]")
        move("questions", 2, 3, "mean")
    for words in ("base", "1/4", "step [red]", "questions", "2/3"):
        assert words in terminal.file.getvalue()


def test_elsewhere_stages_are_lines_from_the_first_move_on(clock):
    pipe = console(False)
    with bars.stages(pipe, STAGES) as move:
        for step in range(12):
            clock(float(step))
            move("pretrain", step, 40, "ties[peft]")
    assert pipe.file.getvalue().splitlines() == [
        "base 0/40  ties[peft]",
        "base 10/40  ties[peft]",
    ]


def test_standard_output_is_left_alone(capsys, monkeypatch):
    monkeypatch.setattr(bars, "EVERY", 0.0)
    with bars.bar("loading") as move:
        move("model", 1, 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "loading 50%  model" in shown.err
