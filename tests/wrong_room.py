"""A folder of right and wrong inputs, for the corpus of wrong command lines.

Small texts stand in the corpus itself, `commands/wrong_inputs.toml`. Here is what must
be made: two good adapters A and B of a good model `base`, another family's `other` with
its adapter G, and copies of them that are each broken in one way.
"""

import json
import pathlib
import shutil
from collections.abc import Callable, Mapping

import numpy as np
from safetensors import numpy as safetensors

import checkpoints

Tensors = dict[str, np.ndarray]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TINY = {"A": ("llama", "plain"), "B": ("llama", "plain2"), "G": ("gemma2", "plain")}


def make(room: pathlib.Path, texts: Mapping[str, str]) -> None:
    """Fills a folder.

    Args:
      room: the folder.
      texts: contents of small files by path.
    """
    checkpoints.llama(room / "base")
    hf = checkpoints.DATA / "hf"
    shutil.copytree(hf / "gemma2" / "base", room / "other")
    for name, (family, adapter) in TINY.items():
        shutil.copytree(hf / family / adapter, room / name)
    for path, text in texts.items():
        (room / path).parent.mkdir(parents=True, exist_ok=True)
        (room / path).write_text(text, encoding="utf-8")
    (room / "data" / "latin1.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    (room / "data" / "hollow").mkdir()
    (room / "full").mkdir()
    (room / "full" / "precious.txt").write_text("kept")
    for number, change in enumerate(ADAPTERS.items()):
        _broken(room / "A", room / f"adapter_{change[0]}", change[1], number)
    for number, change in enumerate(BASES.items()):
        _broken(room / "base", room / f"base_{change[0]}", change[1], number)


def _broken(source, target, change, number):
    shutil.copytree(source, target)
    # One time for all files of a copy, so that no test depends on when it was made.
    change(target)


def _file(name: str, content: bytes | None) -> Callable[[pathlib.Path], None]:
    """A change that replaces a file, or removes it."""

    def change(folder):
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)

    return change


def _cut(name: str) -> Callable[[pathlib.Path], None]:
    """A change that keeps the first half of a file."""

    def change(folder):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])

    return change


def _as_folder(name: str) -> Callable[[pathlib.Path], None]:
    """A change that puts an empty folder in the place of a file."""

    def change(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


def _renamed(old: str, new: str) -> Callable[[pathlib.Path], None]:
    return lambda folder: (folder / old).rename(folder / new)


def _fields(file: str, **values) -> Callable[[pathlib.Path], None]:
    """A change of fields of a JSON file; None removes one."""

    def change(folder):
        config = json.loads((folder / file).read_text())
        config |= values
        kept = {key: value for key, value in config.items() if value is not None}
        (folder / file).write_text(json.dumps(kept))

    return change


def _tensors(file: str, edit: Callable[[Tensors], Tensors]):
    """A change of the tensors of a file."""

    def change(folder):
        tensors = edit(safetensors.load_file(folder / file))
        safetensors.save_file(tensors, folder / file, {"format": "pt"})

    return change


def _first(edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensors], Tensors]:
    """An edit of the first tensor alone."""
    return lambda tensors: tensors | {(name := min(tensors)): edit(tensors[name])}


def _with_nan(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flat[0] = np.nan
    return x


def _without_first(tensors: Tensors) -> Tensors:
    return {name: x for name, x in tensors.items() if name != min(tensors)}


def _modules(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k.replace(old, new): x for k, x in tensors.items()}


ADAPTERS = {
    "cut": _cut(WEIGHTS),
    "garbage": _file(WEIGHTS, b"\x93garbage" * 50),
    "hollow": _file(WEIGHTS, b""),
    "no_config": _file(CONFIG, None),
    "no_weights": _file(WEIGHTS, None),
    "json": _file(CONFIG, b'{"r": 8,'),
    "json_list": _file(CONFIG, b"[8]"),
    "json_empty": _file(CONFIG, b""),
    "json_latin1": _file(CONFIG, b'{"r": "\xe9"}'),
    "folder": _as_folder(WEIGHTS),
    "config_folder": _as_folder(CONFIG),
    "bin": _renamed(WEIGHTS, "adapter_model.bin"),
    "ia3": _fields(CONFIG, peft_type="IA3"),
    "no_type": _fields(CONFIG, peft_type=None),
    "dora": _fields(CONFIG, use_dora=True),
    "rank": _fields(CONFIG, r=4),
    "rank_zero": _fields(CONFIG, r=0),
    "rank_words": _fields(CONFIG, r="eight"),
    "no_rank": _fields(CONFIG, r=None),
    "alpha": _fields(CONFIG, lora_alpha="sixteen"),
    "nan": _tensors(WEIGHTS, _first(_with_nan)),
    "whole_numbers": _tensors(WEIGHTS, _first(lambda x: x.astype(np.int32))),
    "flat": _tensors(WEIGHTS, _first(np.ravel)),
    "unpaired": _tensors(WEIGHTS, _without_first),
    "no_tensors": _tensors(WEIGHTS, lambda _: {}),
    "narrow": _tensors(WEIGHTS, _first(lambda x: x[:, :-1].copy())),
    "renamed": _tensors(WEIGHTS, _modules("q_proj", "query")),
    "deep": _tensors(WEIGHTS, _modules("layers.1", "layers.9")),
}
"""Copies of the adapter A, each broken in one way."""
MODEL = "model.safetensors"
BASES = {
    "cut": _cut(MODEL),
    "garbage": _file(MODEL, b"\x93garbage" * 50),
    "no_config": _file("config.json", None),
    "no_weights": _file(MODEL, None),
    "json": _file("config.json", b"{"),
    "json_list": _file("config.json", b"[]"),
    "mamba": _fields("config.json", model_type="mamba"),
    "no_type": _fields("config.json", model_type=None),
    "no_layers": _fields("config.json", num_hidden_layers=None),
    "layers": _fields("config.json", num_hidden_layers=3),
    "few_layers": _fields("config.json", num_hidden_layers=1),
    "heads": _fields("config.json", num_attention_heads=3),
    "width": _fields("config.json", hidden_size="wide"),
    "act": _fields("config.json", hidden_act="sine"),
    "quantised": _fields("config.json", quantization_config={"quant_method": "gptq"}),
    "lacking": _tensors(MODEL, _without_first),
    "shape": _tensors(MODEL, _first(lambda x: x[:-1].copy())),
    "bin": _renamed(MODEL, "pytorch_model.bin"),
    "index": _renamed(MODEL, "model-00001-of-00002.safetensors"),
    "mute": _file("tokenizer.json", None),
    "stammering": _file("tokenizer.json", b"{"),
    "stranger": _file("tokenizer.json", b"{}"),
}
"""Copies of the model, each broken in one way."""
