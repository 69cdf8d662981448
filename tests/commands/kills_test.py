"""Stopped at any moment, a command ends with the same bytes, and leaves nothing."""

import signal

import pytest

from killing import survive

TRAINING = ["--length", "48", "--batch", "4", "--warmup", "0"]
NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(scope="module")
def files(colours):
    """Data of two adapters."""
    return colours(12, 8)


@pytest.fixture
def training(speaking, files):
    """A training, and what it gives."""
    words = ["train", "--model", str(speaking("plain")), "--data", *files]
    words += ["--out", "OUT/library", "--rank", "2", "--epochs", "24", *TRAINING]
    parts = ("adapter_model.safetensors", "adapter_config.json")
    names = [f"{x}/{part}" for x in "ab" for part in parts]
    return words, [f"library/{x}" for x in (*names, "losses.csv")]


@pytest.fixture
def gating(speaking, hf, files):
    """The training of a gate, and what it gives."""
    folders = [str(hf / "llama" / x) for x in ("plain", "plain2")]
    words = ["gate", str(speaking("plain")), "--adapter", *folders, "--route", "linear"]
    words += ["--data", files[0], "--out", "OUT/gate.safetensors", "--steps", "24"]
    return [*words, *TRAINING], ["gate.safetensors"]


@pytest.mark.slow
def test_training_survives_25_kills(training, tmp_path):
    words, results = training
    print(survive(tmp_path / "x", words, 25, 6, results))


@pytest.mark.slow
def test_a_gate_survives_10_kills(gating, tmp_path):
    words, results = gating
    print(survive(tmp_path / "x", words, 10, 4, results))


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_training_stops_at_40_signals_and_goes_on(training, tmp_path, number):
    words, results = training
    print(survive(tmp_path / "x", words, 40, 6, results, number))


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_a_gate_stops_at_10_signals_and_goes_on(gating, tmp_path, number):
    words, results = gating
    print(survive(tmp_path / "x", words, 10, 4, results, number))
