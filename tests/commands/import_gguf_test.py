"""``jaxlora import``, and what other commands say of a dequantised base."""

import json

import pytest

from jaxlora import cli

gguf = pytest.importorskip("gguf")
import gguf_files  # noqa: E402
from jaxlora.commands import import_gguf  # noqa: E402

ADAPTER = gguf_files.DATA / "llama" / "plain"


@pytest.fixture
def quantised(tmp_path):
    kind = gguf.GGMLQuantizationType.Q8_0
    return gguf_files.write(tmp_path / "m.gguf", "llama", kind)


def test_imports_and_says_what_it_was(quantised, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["import", str(quantised), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "Q8_0" in said.out
    assert "dequantised" in said.err
    files = {file.name for file in out.iterdir()}
    assert {"config.json", "tokenizer.json", "chat_template.jinja"} <= files


def test_other_commands_say_that_the_base_is_dequantised(quantised, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["import", str(quantised), "--out", str(out)]) == 0
    capsys.readouterr()
    fused = str(tmp_path / "fused")
    assert cli.main(["fuse", str(out), str(ADAPTER), "--out", fused]) == 0
    assert "weights were Q8_0" in capsys.readouterr().err
    # What is fused into it stays dequantised.
    raw = json.loads((tmp_path / "fused" / "config.json").read_text())
    assert raw["jaxlora_dequantised"]["types"]["Q8_0"] > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["absent.gguf"], "There is no file"),
        (["no-such-package-here"], "no installed package"),
        (["numpy"], "brings 0 GGUF files"),
        (["."], "is a folder"),
    ],
)
def test_wrong_names(words, sentence, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["import", *words, "--out", str(out)]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_without_the_library_it_says_what_to_install(quantised, monkeypatch, capsys):
    monkeypatch.setattr(import_gguf.importlib.util, "find_spec", lambda name: None)
    out = quantised.parent / "out"
    assert cli.main(["import", str(quantised), "--out", str(out)]) == 2
    assert "pip install 'jaxlora[gguf]'" in capsys.readouterr().err
