"""Progress: bars on a terminal, a line now and then elsewhere, out of pipes' way."""

import functools
import io
import os
import signal
import time

import pytest
from rich.console import Console

from jaxlora import stopping
from jaxlora.commands import bars, talk

STAGES = {"pretrain": "base", "questions": "questions"}


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


@pytest.fixture
def shown(monkeypatch):
    """Replaces the terminal; returns a function that returns what it showed."""

    def make(terminal):
        replacement = console(terminal)
        monkeypatch.setattr(bars, "Console", lambda file: replacement)
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
        "loading 25%  part 10 [red], 0:30 left",
        "loading 50%  part 20 [red], 0:20 left",
        "loading 75%  part 30 [red], 0:10 left",
    ]


def test_before_the_first_report_a_bar_says_what_takes_so_long(shown):
    for terminal in (True, False):
        read = shown(terminal)
        with bars.bar("training", first=bars.COMPILING) as move:
            assert terminal or read() == "training: compiling ...\n"
            time.sleep(0.3 * terminal)  # a bar is drawn ten times a second
            move("loss 1", 2, 4)
        assert "compiling ..." in read()


def test_a_terminal_has_a_bar_for_each_stage(shown):
    read = shown(True)
    with bars.stages(STAGES) as move:
        move("pretrain", 1, 4, "step [red]")
        move("questions", 2, 3, "mean")
    for words in ("base", "1/4", "step [red]", "questions", "2/3"):
        assert words in read()


def test_elsewhere_stages_are_lines_from_the_first_move_on(shown, clock):
    read = shown(False)
    with bars.stages(STAGES) as move:
        for step in range(12):
            clock(float(step))
            move("pretrain", step, 40, "ties[peft]")
    assert read().splitlines() == [
        "base 0/40  ties[peft]",
        "base 10/40  ties[peft], 0:30 left",
    ]


def test_the_next_base_has_a_pace_of_its_own(shown, clock):
    read = shown(False)
    with bars.stages(STAGES) as move:
        for now, done in ((0, 0), (100, 30), (110, 0), (130, 20)):
            clock(float(now))
            move("pretrain", done, 40, "base")
    assert read().splitlines()[1:] == [
        "base 30/40  base, 0:33 left",
        "base 0/40  base",
        "base 20/40  base, 0:20 left",
    ]


@pytest.mark.parametrize(("word", "lines"), [("-q", 0), ("-v", 3)])
def test_less_or_more_is_said_and_all_is_noted(shown, tmp_path, word, lines):
    for terminal in (True, False):
        read = shown(terminal)
        _, said = talk.split(["train", word])
        folder = tmp_path / f"{terminal}"
        with talk.heard(said), bars.bar("training", log=folder) as move:
            for step in range(1, 4):
                move("loss 1", step, 4)
        assert len(read().splitlines()) == lines
        log = (folder / talk.LOG).read_text()
        assert f"$ jaxlora train {word}\n" in log
        assert log.count("training") == lines


@pytest.mark.parametrize("terminal", [True, False])
def test_a_report_is_where_a_signal_is_read(shown, capfd, terminal):
    shown(terminal)
    with stopping.handled() as asked:
        asked.at_once = False
        with bars.bar("training") as move:
            move("", 1, 4)
            os.kill(os.getpid(), signal.SIGTERM)
            while asked.number is None:
                time.sleep(0.001)
            with pytest.raises(stopping.Stop):
                move("", 2, 4)


def test_standard_output_is_left_alone(capsys, monkeypatch):
    monkeypatch.setattr(bars, "EVERY", 0.0)
    with bars.bar("loading") as move:
        move("model", 1, 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "loading 50%  model" in shown.err
