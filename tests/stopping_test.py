"""Signals: a flag read where it is safe, a second one at once, and no traceback."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxlora import stopping

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 75)]


def send(number, asked):
    """Sends this process a signal, and waits until it was read."""
    os.kill(os.getpid(), number)
    while asked.number is None:
        time.sleep(0.001)


@contextlib.contextmanager
def working():
    """Signals are handled, and there is something to save."""
    with stopping.handled() as asked:
        asked.at_once = False
        yield asked


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_is_read_where_it_is_looked_for(capfd, number, code):
    with working() as asked:
        stopping.check()
        send(number, asked)
        done = sum(range(100_000))  # nothing is raised here
        with pytest.raises(stopping.Stop) as stopped:
            stopping.check()
    assert done == 4_999_950_000
    assert stopping.code_of(stopped.value) == code
    said = capfd.readouterr().err
    assert said.startswith("jaxlora: Stopping after the step that runs now.")
    assert ("Ctrl-C once more" in said) == (number == signal.SIGINT)


def test_what_was_there_before_comes_back(capfd):
    handlers = [signal.getsignal(number) for number, _ in CODES]
    threads = threading.active_count()
    with working() as asked:
        send(signal.SIGINT, asked)
    assert [signal.getsignal(number) for number, _ in CODES] == handlers
    assert threading.active_count() == threads
    stopping.check()  # the flag went with its block


def test_the_first_signal_counts(capfd):
    with working() as asked:
        send(signal.SIGTERM, asked)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        with pytest.raises(stopping.Stop, match="SIGTERM"):
            stopping.check()


def test_one_ctrl_c_that_arrives_twice_is_one(capfd, monkeypatch):
    monkeypatch.setattr(stopping, "TWICE", 60.0)
    with working() as asked:
        send(signal.SIGINT, asked)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        with pytest.raises(stopping.Stop):
            stopping.check()


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with working() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            assert asked.number is None
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_elsewhere_than_in_the_main_thread_nothing_is_handled():
    handlers = []

    def work():
        with stopping.handled():
            handlers.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]


CHILD = """
import sys, time
from jaxlora import stopping

with stopping.handled() as asked:
    asked.at_once = sys.argv[1] == "import"
    print("ready", flush=True)
    time.sleep(600)  # as a compilation: Python runs no handler before it ends
"""


@contextlib.contextmanager
def started(*words):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize(("number", "code"), CODES)
def test_before_anything_is_begun_a_signal_ends_the_process(number, code):
    with started("import") as child:
        time.sleep(0.1)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
    assert child.returncode == code
    assert said.startswith("jaxlora: Stopped before anything was begun")
    assert "Traceback" not in said


def test_a_second_ctrl_c_ends_at_once():
    with started("work") as child:
        child.send_signal(signal.SIGINT)
        assert "Stopping after the step" in child.stderr.readline()
        time.sleep(2 * stopping.TWICE)
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said == "jaxlora: Ended at once; what was saved before is kept.\n"
