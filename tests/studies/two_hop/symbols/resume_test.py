"""Killed at random, a study still ends with the rows of one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxlora.studies.harness.config import plain


def start(config, root: Path) -> subprocess.Popen:
    """The command itself, in a process of its own."""
    root.mkdir(exist_ok=True)
    given = root / "config.json"
    given.write_text(json.dumps({"study": "two-hop", "config": plain(config)}))
    words = ["--from", given, "--out", root / "out", "--cache-dir", root / "cache"]
    command = [sys.executable, "-m", "jaxlora.cli", "study", "two-hop", *words]
    env = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)


def csv(root: Path) -> bytes:
    return (root / "out" / "results.csv").read_bytes()


@pytest.mark.slow
def test_killed_at_random_it_still_ends_the_same(small, tmp_path):
    """SIGKILL leaves no time to tidy up: whatever is on the disk must do."""
    began = time.monotonic()
    assert start(small, tmp_path / "whole").wait() == 0
    lasts = time.monotonic() - began
    rng = random.Random(0)
    kills = 0
    for _ in range(5):
        process = start(small, tmp_path / "killed")
        try:
            process.wait(timeout=rng.uniform(0.1, 0.6) * lasts)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert start(small, tmp_path / "killed").wait() == 0
    assert kills > 0
    assert csv(tmp_path / "killed") == csv(tmp_path / "whole")
