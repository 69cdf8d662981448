"""Locks: one holder at a time, and none that outlives its process."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from jaxlora import locks, stopping

HOLD = """
import sys, time
from pathlib import Path
from jaxlora import locks, stopping
with locks.folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds a folder."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_holds_it_and_since_when(tmp_path, holder):
    with (
        pytest.raises(locks.BusyError, match=f"process {holder.pid} on .*, since 20"),
        locks.folder(tmp_path / "out"),
    ):
        pytest.fail("two hold it")


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / locks.NAME).exists()
    with locks.folder(tmp_path / "out"):
        pass
    assert not list((tmp_path / "out").iterdir())


def test_a_process_id_that_is_in_use_again_blocks_nobody(tmp_path):
    # Our id: a process of this number does live.
    text = f'{{"pid": {os.getpid()}, "host": "here", "since": "now"}}'
    (tmp_path / locks.NAME).write_text(text)
    with locks.folder(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 999, '{"pid": 1}', "\0\xff"])
def test_what_a_lock_says_may_be_anything(tmp_path, text):
    with locks.held(tmp_path / "x.lock", tmp_path / "x"):
        (tmp_path / "x.lock").write_text(text)
        second = locks.held(tmp_path / "x.lock", tmp_path / "x")
        with pytest.raises(locks.BusyError, match="has not said who it is"), second:
            pytest.fail("two hold it")


def test_a_folder_that_stays_empty_goes_with_its_lock(tmp_path):
    with locks.folder(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
    with locks.folder(tmp_path / "used"):
        (tmp_path / "used" / "mine").touch()
    assert os.listdir(tmp_path / "used") == ["mine"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="is a file, expected a folder"),
        locks.folder(tmp_path / "file"),
    ):
        pass


def test_those_who_wait_take_turns(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(25):
            with locks.held(tmp_path / "lock", tmp_path, wait=True):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 100
    assert set(most) == {1}
    assert not list(tmp_path.iterdir())


def test_who_comes_second_waits_for_what_the_first_makes(tmp_path, capsys, monkeypatch):
    first, second = tmp_path / "b", tmp_path / "a"
    done = []

    def wait(_):  # the first ends while the second sleeps
        done.append(1)
        holder.close()

    monkeypatch.setattr(locks.time, "sleep", wait)
    with contextlib.ExitStack() as holder:
        holder.enter_context(locks.making(first))
        with locks.making(first, second):
            assert len(os.listdir(tmp_path)) == 2
    assert done == [1]
    said = capsys.readouterr().err
    assert f"{first} is made by another run (process {os.getpid()} on" in said
    assert said.endswith("this one waits for it.\n")
    assert said.count("\n") == 1
    assert not os.listdir(tmp_path)


def test_a_signal_ends_the_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(locks.time, "sleep", lambda _: pytest.fail("it waits"))

    def stop():
        raise stopping.Stop(signal.SIGTERM)

    monkeypatch.setattr(stopping, "check", stop)
    entry = tmp_path / "entry"
    with (
        locks.making(entry),
        pytest.raises(stopping.Stop),
        locks.making(tmp_path / "other", entry),
    ):
        pytest.fail("two make it")
    assert not os.listdir(tmp_path)  # nor is the other one still held


def test_a_cache_that_is_not_ours_to_write_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with locks.making(tmp_path / "entry"):
        assert not os.listdir(tmp_path)
