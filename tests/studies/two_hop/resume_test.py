"""An interrupted study goes on where it stopped, and ends with identical rows."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxlora.studies.two_hop import blocks, protocol, store

PLAN = [(str(x), str(m)) for x, m in blocks.plan(("mean",))]


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """Rows of a run that nothing interrupted, and its cache."""
    root = tmp_path_factory.mktemp("whole")
    protocol.run(small, root / "out", root / "cache")
    return root


def csv(out: Path) -> bytes:
    return (out / "results.csv").read_bytes()


def stop_before(block: int):
    def progress(stage, done, total, text):
        if (stage, done) == ("questions", block):
            raise KeyboardInterrupt

    return progress


def files(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "blocks").iterdir()}


def test_no_block_is_computed_twice_and_the_rows_are_identical(
    small, whole, tmp_path, counted
):
    out = tmp_path / "out"
    kept: dict[str, int] = {}
    for stop in (1, 6, len(PLAN) - 1):
        with pytest.raises(KeyboardInterrupt):
            protocol.run(small, out, whole / "cache", stop_before(stop))
        assert counted == PLAN[:stop]
        assert len(files(out)) == stop
        assert files(out).items() >= kept.items()
        kept = files(out)
    results = protocol.run(small, out, whole / "cache")
    assert counted == PLAN
    assert files(out).items() >= kept.items()
    assert results.summary["timings"]["blocks_resumed"] == len(PLAN) - 1
    assert csv(out) == csv(whole / "out")
    # A finished study asks nothing again, and says the same.
    before = files(out)
    again = protocol.run(small, out, whole / "cache")
    assert counted == PLAN
    assert files(out) == before
    assert csv(out) == csv(whole / "out")
    for name in ("verdicts", "gates", "own_facts", "predictions"):
        assert again.summary[name] == results.summary[name]


def test_a_damaged_or_missing_block_is_computed_again(small, whole, tmp_path, counted):
    out = tmp_path / "out"
    protocol.run(small, out, whole / "cache")
    counted.clear()
    plan = [store.Block(1.0, 0, *names) for names in blocks.plan(("mean",))]
    damaged = store.path_of(out, plan[4])
    damaged.write_bytes(damaged.read_bytes()[:-40])
    store.path_of(out, plan[9]).unlink()
    protocol.run(small, out, whole / "cache")
    assert counted == [PLAN[4], PLAN[9]]
    assert csv(out) == csv(whole / "out")


KILLED = """
import dataclasses, json, sys
from pathlib import Path
from jaxlora.studies.two_hop import protocol
from jaxlora.studies.two_hop.config import TwoHopConfig, from_plain
config = from_plain(TwoHopConfig, json.loads(sys.argv[1]))
protocol.run(config, Path(sys.argv[2]), Path(sys.argv[3]))
"""


def start(config, root: Path) -> subprocess.Popen:
    text = json.dumps(store.plain(config))
    command = [sys.executable, "-c", KILLED, text, str(root / "out"), str(root / "c")]
    env = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_killed_at_random_it_still_ends_the_same(small, tmp_path):
    """SIGKILL leaves no time to tidy up: whatever is on the disk must do."""
    began = time.monotonic()
    assert start(small, tmp_path / "whole").wait() == 0
    lasts = time.monotonic() - began
    rng = random.Random(0)
    root = tmp_path / "killed"
    kills = 0
    for _ in range(5):
        process = start(small, root)
        try:
            process.wait(timeout=rng.uniform(0.3, 1.0) * lasts)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert start(small, root).wait() == 0
    assert kills > 0
    assert csv(root / "out") == csv(tmp_path / "whole" / "out")
