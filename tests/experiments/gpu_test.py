"""The script for one GPU, on a machine without one."""

import importlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import tyro

from jaxlora.commands import study
from jaxlora.commands.flags.study import parse_config
from lines import overridden

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "benchmarks" / "gpu.sh"


def run(*words, **extras):
    bash = ["bash", str(SCRIPT), *map(str, words)]
    env = os.environ | {"PYTHON": sys.executable}
    return subprocess.run(bash, capture_output=True, text=True, env=env, **extras)


@pytest.fixture(scope="module")
def parts():
    """``{name: (seconds, words)}`` of both sizes, as a dry run prints them."""
    out = {}
    for size in ((), ("--tiny",)):
        dry = run("out", "--dry-run", *size)
        assert dry.returncode == 0
        lines = re.findall(r"^== (\S+) \(at most (\d+) s\): (.*)$", dry.stdout, re.M)
        out[size] = {name: (int(n), shlex.split(x)) for name, n, x in lines}
    return out


def test_it_has_eight_minutes(parts):
    for size in parts.values():
        names = ["device", "train-1", "train-8", "route", "generate", "two-hop"]
        assert list(size) == names
    assert sum(seconds for seconds, _ in parts[()].values()) <= 480
    assert run("--what").returncode == 2


def test_its_words_are_read_by_the_commands(parts, monkeypatch):
    """A flag that is no longer there is found here."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    device = importlib.import_module("device")
    for size, every in parts.items():
        assert every["device"][1][1:] == ["-m", "jaxlora.cli", "info"]
        for name in ("train-1", "train-8", "route", "generate"):
            given = tyro.cli(device.Arguments, args=every[name][1][2:])
            assert (given.what, given.small) == (name.split("-")[0], bool(size))
        words = every["two-hop"][1]
        assert words[1:5] == ["-m", "jaxlora.cli", "study", "two-hop"]
        asked = parse_config(study.Arguments, "", overridden(words[5:]))
        assert asked.out == pathlib.Path("out/two-hop")
        assert asked.config.pretrain.max_steps == (10 if size else 5000)


@pytest.mark.slow
def test_it_runs_at_a_small_size(tmp_path):
    done = run(tmp_path, "--tiny", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:]
    for name, words in {
        "train-8": r"train E 8: .* memory planned [\d.]+ GiB",
        "route": r"route E 64: .* x the time of none",
        "generate": r"generate, one adapter: [\d,]+ new tokens/s",
    }.items():
        assert re.search(words, (tmp_path / f"{name}.txt").read_text())
    assert (tmp_path / "two-hop" / "results.json").is_file()
