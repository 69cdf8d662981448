"""Checkpoint folders with a tokenizer in them, for tests that write text."""

import json
import pathlib
import shutil

import tokenizers
from safetensors import numpy as safetensors

DATA = pathlib.Path(__file__).parent / "data"
ADAPTERS = [str(DATA / "hf" / "llama" / name) for name in ("plain", "plain2")]
"""Two adapters for the Llama."""


def llama(folder):
    """A tiny Llama whose tokenizer puts a bos before a text; it writes letters only."""
    _folder(folder, "llama", "plain")
    _silence(folder)
    return folder


def qwen2(folder):
    """A tiny Qwen 2 with a chat template and no bos."""
    return _folder(folder, "qwen2", "chatml")


def _folder(folder, family, tokenizer):
    for source in (DATA / "hf" / family / "base", DATA / "tokenizer" / tokenizer):
        shutil.copytree(source, folder, dirs_exist_ok=True)
    _name_plainly(folder / "tokenizer_config.json")
    return folder


def _name_plainly(path):
    """Names special tokens by their text alone, so that transformers reads it too."""
    config = json.loads(path.read_text())
    for name, value in config.items():
        config[name] = value["content"] if isinstance(value, dict) else value
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config))


def _silence(folder):
    """Zeroes the head of tokens that no text of letters has: others are likelier."""
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tensors = safetensors.load_file(folder / "model.safetensors")
    head = tensors["lm_head.weight"].copy()
    for i in range(len(head)):
        text = backend.decode([i])
        if not text.isascii() or not text.strip().isalpha():
            head[i] = 0
    tensors["lm_head.weight"] = head
    safetensors.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
