"""Who is gone, by what JAX says; and what is kept of what a child prints."""

import io
import os

import pytest

from jaxlora import cli
from jaxlora.commands import process_loss, processes
from jaxlora.commands.process_loss import Place

FATAL = """\
F1130 10:12:01.123456 2638 client.h:80] Terminating process because the JAX \
distributed service detected fatal errors. This most likely indicates that another \
task died.
The following tasks are unhealthy (stopped sending heartbeats):
3
12
The tasks have crashed. Check the task logs for an earlier error.
*** Check failure stack trace: ***
    @     0x7fdb2d1936c0  absl::lts
"""


LOGGED = """\
E1130 10:12:01.123456 2638 coordination_service.cc:1] Heartbeats:
3

The tasks have crashed. Check the task logs for an earlier error.
"""


@pytest.mark.parametrize(
    ("text", "here", "who"),
    [
        ("Gloo: Connection closed by peer [::1]:2", Place(0, 2), "Process 1"),
        ("Gloo: Connection closed by peer [::1]:2", Place(1, 2), "Process 0"),
        ("Gloo: Connection closed by peer [::1]:2", Place(1, 3), "Another process"),
        (FATAL, Place(1, 16), "Processes 3, 12"),
        (FATAL, Place(3, 16), "Process 12"),  # it cannot be this one
        ("/job:jax_worker/replica:0/task:3 heartbeat", Place(1, 8), "Process 3"),
        ("/task:2 and /task:12", Place(0, 16), "Processes 2, 12"),
        ("Failed to send RPC to coordination service.", Place(2, 4), "Process 0"),
        ("Failed to send RPC to coordination service.", Place(0, 4), "Another process"),
        ("", Place(), "Another process"),
    ],
)
def test_who_is_gone(text, here, who):
    assert process_loss.gone(text, here) == who
    assert process_loss.lost(text, here).startswith(f"{who} of this run ended, or ")


def test_lines_are_labelled_stacks_are_left_out_and_a_fatal_end_is_kept():
    streams, out = process_loss.Streams(), io.StringIO()
    gloo = "[Gloo] Rank 0[Gloo] Rank\n1 is connected to 3 peer ranks. Expected\n"
    text = f"before\n{process_loss.LABEL}1/16\n{gloo}{LOGGED}after\n{FATAL}{gloo}"
    streams.pass_on(io.StringIO("a result\n42\n"), out, results=True)
    streams.pass_on(io.StringIO(text), out, results=False)
    streams.pass_on(io.StringIO("of C++\n"), out, results=True)
    printed = out.getvalue().splitlines()
    assert printed == ["a result", "42", "before", "[1/16] after"]
    assert streams.here == Place(1, 16)
    assert process_loss.gone(streams.fatal, streams.here) == "Processes 3, 12"


def test_an_error_of_ours_does_not_wait_for_the_other_processes(monkeypatch, capsys):
    """At the interpreter's end JAX would, and they wait for this one."""

    def leave(code, *, at_once):
        raise SystemExit((code, at_once))

    def fail():
        raise TypeError("ours")

    monkeypatch.setattr(cli, "main", fail)
    monkeypatch.setattr(cli.stopping, "leave", leave)
    monkeypatch.setattr(cli.programs, "keep", lambda **_: None)
    with pytest.raises(TypeError, match="ours"):
        cli.process()
    monkeypatch.setitem(os.environ, processes.CHILD, "3")
    with pytest.raises(SystemExit) as ended:
        cli.process()
    assert ended.value.code == (1, True)
    assert "TypeError: ours" in capsys.readouterr().err
