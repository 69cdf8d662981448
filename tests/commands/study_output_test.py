"""What a study cannot decide is said when it starts; a signal stops what it draws."""

import io
import os
import signal
import time
import types

import pytest
from rich.console import Console

from jaxlora import stopping
from jaxlora.commands import study_output


def test_a_study_is_warned_of_once_and_only_when_it_moves():
    written, moves = io.StringIO(), []
    console = Console(file=written, width=200)
    move = study_output.warned(
        console, ["few [a]", "fewer"], lambda *x: moves.append(x)
    )
    assert not written.getvalue()
    move("pretrain", 0, 10, "")
    move("pretrain", 5, 10, "")
    lines = written.getvalue().splitlines()
    assert lines == ["Too few to decide: few [a]", "Too few to decide: fewer"]
    assert [x[1] for x in moves] == [0, 5]


@pytest.mark.parametrize(("module", "name"), [("figures", "save_all"), (None, "")])
def test_a_signal_while_a_study_is_drawn_stops_it(tmp_path, monkeypatch, module, name):
    """In figures before its page, and before anything is drawn if it came earlier."""
    drawn = []

    def send(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        while asked.number is None:
            time.sleep(0.001)
        drawn.append(name)

    monkeypatch.setattr(study_output.figures, "save_all", lambda *_: drawn.append(name))
    monkeypatch.setattr(study_output.page, "write", lambda *_: drawn.append("page"))
    with stopping.handled() as asked:
        asked.at_once = False
        if module:
            monkeypatch.setattr(getattr(study_output, module), name, send)
        else:
            send()
        results = types.SimpleNamespace(rows=None, summary=None)
        with pytest.raises(stopping.Stop, match="SIGTERM") as stopped:
            study_output.write(Console(), results, tmp_path)
    assert drawn == [name]
    (note,) = stopped.value.__notes__
    assert note == "all rows are saved, and not all figures and pages"
    assert not list(tmp_path.iterdir())
