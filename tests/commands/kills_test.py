"""Killed at any moment, a command ends with the same bytes, and leaves nothing."""

import pytest

from killing import survive

TRAINING = ["--length", "48", "--batch", "4", "--warmup", "0"]


@pytest.fixture(scope="module")
def files(colours):
    """Data of two adapters."""
    return colours(12, 8)


@pytest.mark.slow
def test_training_survives_25_kills(speaking, files, tmp_path):
    words = ["train", "--model", str(speaking("plain")), "--data", *files]
    words += ["--out", "OUT/library", "--rank", "2", "--epochs", "24", *TRAINING]
    parts = ("adapter_model.safetensors", "adapter_config.json")
    names = [f"{x}/{part}" for x in "ab" for part in parts]
    names = [f"library/{x}" for x in (*names, "losses.csv")]
    print(survive(tmp_path / "x", words, 25, 6, names))


@pytest.mark.slow
def test_a_gate_survives_10_kills(speaking, hf, files, tmp_path):
    folders = [str(hf / "llama" / x) for x in ("plain", "plain2")]
    words = ["gate", str(speaking("plain")), "--adapter", *folders, "--route", "linear"]
    words += ["--data", files[0], "--out", "OUT/gate.safetensors", "--steps", "24"]
    print(survive(tmp_path / "x", [*words, *TRAINING], 10, 4, ["gate.safetensors"]))
