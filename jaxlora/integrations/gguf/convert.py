"""GGUF files written as Hugging Face checkpoints, one tensor in memory at a time."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxlora.integrations.gguf import config, names, tokenizer, values
from jaxlora.integrations.gguf.values import Model
from jaxlora.io import origin, shards
from jaxlora.io.header import DTYPES, Entry

Dtype = Literal["float32", "bfloat16"]
_STORED = {"float32": "F32", "bfloat16": "BF16"}


def convert(
    path: Path,
    out: Path,
    *,
    dtype: Dtype = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Writes config.json, safetensors, tokenizer and chat template of a GGUF file.

    Args:
      path: the file; of a split model, any of its files.
      out: new folder.
      dtype: of the tensors written; float32 holds what was quantised exactly.
      progress: called with (tensors written, tensors in all) after each.

    Returns:
      How many tensors there are of each stored type.

    Raises:
      ValueError: if the file is damaged, its architecture, types or tokenizer are not
        supported, its parts contradict each other, or ``out`` holds something.
    """
    model = values.open_model(path)
    raw = config.from_metadata(model) | {"torch_dtype": dtype}
    kinds = Counter(map(model.kind, model.blocks))
    raw[origin.FIELD] = {"file": path.name, "types": dict(kinds)}
    texts = tokenizer.files(model.metadata)
    _check_vocabulary(model, raw)
    sources = names.hugging_face(model.blocks, raw["model_type"])
    entries = {
        name: Entry(model.blocks[source].shape, _STORED[dtype])
        for name, source in sources.items()
    }
    written = 0

    def read(name: str) -> np.ndarray:
        nonlocal written
        written += 1
        if progress is not None:
            progress(written, len(entries))
        return restored(model, raw, sources[name]).astype(DTYPES[_STORED[dtype]])

    with shards.new_folder(out) as new:
        shards.write_folder(new, entries, read)
        text = json.dumps(raw, indent=2, sort_keys=True) + "\n"
        for name, content in (texts | {"config.json": text}).items():
            (new / name).write_text(content, encoding="utf-8")
    return dict(kinds)


def restored(model: Model, raw: dict[str, Any], source: str) -> np.ndarray:
    """Returns a tensor as Hugging Face keeps it, float32.

    Args:
      model: as opened.
      raw: its config.json.
      source: the tensor, as GGUF names it.

    Raises:
      ValueError: if its rows are no heads.
    """
    keys = ".attn_k." in source
    heads = raw["num_key_value_heads" if keys else "num_attention_heads"]
    block = model.blocks[source]
    if ".attn_q." in source or keys:
        rows = heads * raw["head_dim"]
        if block.shape[:1] != (rows,):
            raise ValueError(
                f"Tensor {source!r} has the shape {block.shape}, expected {rows} rows: "
                f"{heads} heads of {raw['head_dim']}; file and metadata disagree."
            )
    return names.restored(model.read(source), source, raw["model_type"], heads)


def _check_vocabulary(model: Model, raw: dict[str, Any]) -> None:
    tokens, rows = len(model.metadata["tokenizer.ggml.tokens"]), raw["vocab_size"]
    if tokens > rows:
        raise ValueError(
            f"The file's vocabulary has {tokens} tokens and its embedding {rows} rows, "
            f"expected a row for each token; they are of different models."
        )
