"""Killed at any moment, a command ends with the same bytes, and leaves nothing."""

import json

import pytest

from killing import survive

TRAINING = ["--length", "48", "--batch", "4", "--warmup", "0"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Data of two adapters."""
    folder = tmp_path_factory.mktemp("data")
    for name, word, count in (("a", "red", 12), ("b", "blue", 8)):
        lines = [{"prompt": f"Who is {name}{i}?", "answer": word} for i in range(count)]
        data = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(data)
    return [str(folder / f"{name}.jsonl") for name in "ab"]


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
