"""Killed, stopped, or beside another one, a study still ends with the same rows."""

import contextlib
import csv
import json
import signal
import subprocess
import sys
import time

import pytest

from jaxlora.studies.harness.config import plain
from killing import survive


@pytest.fixture
def given(small, tmp_path):
    """A results file of the study, as ``--from`` takes it."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"study": "two-hop", "config": plain(small)}))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_stopped_ten_times_it_still_ends_the_same(given, tmp_path, number):
    """SIGKILL leaves no time to tidy up: whatever is on the disk must do."""
    words = ["study", "two-hop", "--from", str(given)]
    words += ["--out", "OUT/out", "--cache-dir", "OUT/cache"]
    print(survive(tmp_path / "x", words, 10, 5, ["out/results.csv"], number))


@pytest.fixture
def start(given, tmp_path, monkeypatch):
    """Starts a study with an output of its own and one cache."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "programs"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    with contextlib.ExitStack() as stack:

        def run(name, *words):
            out = ["--out", str(tmp_path / name)]
            if not words:
                words = ["study", "two-hop", "--from", str(given)]
                words += ["--cache-dir", str(tmp_path / "cache")]
            words = [*words, *out]
            with (tmp_path / f"{name}.err").open("w") as said:
                command = [sys.executable, "-m", "jaxlora.cli", *words]
                child = subprocess.Popen(command, stdout=said, stderr=said)
            stack.callback(child.wait)
            stack.callback(child.kill)
            return child

        yield run


def until(check, seconds=600):
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_two_studies_that_need_one_base_train_it_once(start, tmp_path):
    """The second says for whom it waits, can be stopped, and takes over from a dead."""
    first = start("first")
    locks = (tmp_path / "cache" / "bases").glob
    until(lambda: any(str(first.pid) in x.read_text() for x in locks(".*.lock")))
    first.send_signal(signal.SIGSTOP)
    second, third, fourth = (start(name) for name in ("second", "third", "fourth"))

    def waits(name):
        said = (tmp_path / f"{name}.err").read_text()
        return f"is made by another run (process {first.pid} on" in said

    until(lambda: all(map(waits, ("second", "third", "fourth"))))
    third.send_signal(signal.SIGTERM)
    fourth.send_signal(signal.SIGINT)
    assert (third.wait(600), fourth.wait(600)) == (75, 130)
    first.kill()
    fifth = start("fifth")
    assert (second.wait(900), fifth.wait(900)) == (0, 0)
    rows = [(tmp_path / x / "results.csv").read_bytes() for x in ("second", "fifth")]
    assert rows[0] == rows[1]
    steps = []
    for name in ("second", "fifth"):
        with (tmp_path / name / "progress.csv").open() as file:
            seen = [
                row["done"]
                for row in csv.DictReader(file)
                if row["stage"] == "pretrain"
            ]
        # Each says once more how it ended, and 0 before it compiles.
        steps += [step for step in seen[:-1] if step != "0"]
    assert steps
    assert len(steps) == len(set(steps))
    assert not list((tmp_path / "cache").rglob(".*"))


@pytest.mark.slow
def test_two_processes_do_a_share_each_and_a_report_joins_them(start, given, tmp_path):
    study = json.loads(given.read_text())
    study["config"]["seeds"] = 2
    given.write_text(json.dumps(study))
    words = ["study", "two-hop", "--from", str(given), "--share"]
    parts = [start(f"part{i}", *words, f"{i}/2") for i in range(2)]
    assert [part.wait(900) for part in parts] == [0, 0]
    blocks = [list((tmp_path / f"part{i}" / "blocks").rglob("*")) for i in range(2)]
    folders = [str(tmp_path / f"part{i}") for i in range(2)]
    assert start("joined", "report", *folders).wait(900) == 0
    assert start("whole").wait(900) == 0
    names = ("results.csv", "tables.md")
    joined, whole = (
        [(tmp_path / name / x).read_bytes() for x in names]
        for name in ("joined", "whole")
    )
    assert joined == whole
    timings = json.loads((tmp_path / "joined" / "results.json").read_text())["timings"]
    files = sum(path.is_file() for some in blocks for path in some)
    assert timings["blocks_resumed"] == files > 0
