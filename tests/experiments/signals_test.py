"""Signals while a training begins: exit codes, no traceback, the same bytes."""

import importlib.util
import json
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HF, WORDS = ROOT / "tests/data/hf/llama/base", ROOT / "tests/data/tokenizer/plain"


@pytest.fixture(scope="module")
def signals():
    path = ROOT / "experiments" / "benchmarks" / "signals.py"
    spec = importlib.util.spec_from_file_location("signals", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def command(signals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    model = folder / "model"
    model.mkdir()
    for path in (*HF.iterdir(), *WORDS.iterdir()):
        (model / path.name).write_bytes(path.read_bytes())
    data = folder / "sums.jsonl"
    lines = [
        {"prompt": f"{a} + {b}?", "answer": f"{a + b}"}
        for a in range(9)
        for b in range(9)
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["train", "--model", str(model), "--data", str(data), *signals.FLAGS]
    return [sys.executable, "-m", "jaxlora.cli", *words]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_in_import_and_loading(signals, command, tmp_path, monkeypatch, number):
    """Of whole processes; tests/commands/kills_test.py has the time after that."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    starts, bad, ended = signals.storm(command, tmp_path, number, 8, 0.5)
    assert bad == []
    assert ended
    assert {x.code for x in starts} >= {signals.CODES[number]}
    assert "import: nothing begun" in {x.kind() for x in starts}
    for this in starts:
        assert this.kind() != "other", this


def test_what_is_wrong_is_seen(signals, tmp_path):
    def wrong(code, said, number=signal.SIGINT):
        return signals.wrong(signals.Start(1.0, code, said, 0.1), number, tmp_path)

    (tmp_path / ".checkpoint" / "8").mkdir(parents=True)
    assert wrong(-11, "") == "exit code -11"
    assert wrong(130, "Traceback (most recent call last)") == "a traceback"
    assert wrong(130, "", signal.SIGTERM) == "exit code 130"
    assert "on the disk: ['8']" in wrong(130, "Stopped: update 16 of 20 is saved")
    assert wrong(130, "Stopped: update 8 of 20 is saved; ...") == ""
    assert wrong(130, "?").startswith("said")
    assert wrong(0, "") == ""
    late = signals.Start(1.0, 0, "", 2 * signals.LATE)
    assert "swallowed" in signals.wrong(late, signal.SIGINT, tmp_path)
