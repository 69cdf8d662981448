"""LoRA adapters written in the format of PEFT.

The other half of :mod:`jaxlora.io.peft`. Every scale is reproduced exactly: a module of
rank R and scale s has alpha = s R, which PEFT divides by R again; where modules differ,
``rank_pattern`` and ``alpha_pattern`` name them in full.
"""

import collections
import functools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxlora.files import write_text
from jaxlora.io import shards, trust
from jaxlora.io.header import Entry
from jaxlora.io.peft import SEAL, WEIGHTS, PeftAdapter, PeftModule, Rows
from jaxlora.io.peft_checks import CONFIG


def write(
    folder: Path, adapter: PeftAdapter, *, targets: Iterable[str] | None = None
) -> None:
    """Writes an adapter.

    Args:
      folder: new, or empty.
      adapter: factors of one float type each, float32 or bfloat16.
      targets: entries of target_modules; by default every module path in full, so that
        no other module is adapted.

    Raises:
      ValueError: if the folder holds something, or the adapter is empty.
    """
    with shards.new_folder(folder) as new:
        fill(new, adapter, targets=targets)


class Replaced(Protocol):
    """What an adapter replaces of its base, read when its turn comes."""

    @property
    def replaced(self) -> Mapping[str, str]:
        """Keys by the names of the tensors in the base."""

    def replacement(self, name: str) -> np.ndarray:
        """Returns a tensor by its name in the base."""

    def rows(self) -> Mapping[str, Rows]:
        """Returns rows of embeddings by module path."""

    def settings(self) -> Mapping[str, Any]:
        """Returns fields of the config."""


def fill(
    folder: Path,
    adapter: PeftAdapter,
    *,
    targets: Iterable[str] | None = None,
    beside: Replaced | None = None,
) -> None:
    """As :func:`write`, into a folder that exists.

    Beside the two files of PEFT is a manifest of their hashes, which PEFT ignores.

    Args:
      folder: is empty.
      adapter: its modules may be read from elsewhere: each is asked for anew
        whenever it is looked at.
      targets: entries of target_modules; by default every module path in full.
      beside: what it replaces of its base; by default nothing.

    Raises:
      ValueError: if the adapter is empty.
    """
    if not adapter.modules:
        raise ValueError(
            "The adapter has no module to write: every factor of it is zero."
        )
    chosen = adapter.modules if targets is None else targets
    named = sorted({*chosen} - adapter.parameters.keys())
    raw = config(adapter) | {"target_modules": named}
    entries: dict[str, Entry] = {}
    reads: dict[str, Callable[[], np.ndarray]] = {}

    def add(key: str, read: Callable[[], np.ndarray]) -> None:
        reads[key], entries[key] = read, shards.entry_of(read())

    for path, module in sorted(adapter.modules.items()):
        for name, part in _names(module).items():
            key = f"base_model.model.{path}.{name}"
            add(key, functools.partial(_part, adapter.modules, path, part))
    if beside is not None:
        raw |= _add_replaced(beside, adapter.modules, add)
    shards.write_file(folder / WEIGHTS, entries, lambda key: reads[key]())
    text = json.dumps(raw, indent=2, sort_keys=True) + "\n"
    write_text(folder / CONFIG, text)
    trust.seal(folder, SEAL)


def _part(modules: Mapping[str, PeftModule], path: str, part: str) -> np.ndarray:
    return getattr(modules[path], part)


def _names(module: PeftModule) -> dict[str, str]:
    """Names of the tensors of a module, and the parts of it that they hold."""
    form = "lora_embedding_{}" if module.embedding else "lora_{}.weight"
    names = {form.format(part.upper()): part for part in ("a", "b")}
    if module.magnitude is not None:
        names["lora_magnitude_vector"] = "magnitude"
    if module.bias is not None:
        names["lora_B.bias"] = "bias"
    return names


def _add_replaced(
    beside: Replaced,
    modules: Mapping[str, PeftModule],
    add: Callable[[str, Callable[[], np.ndarray]], None],
) -> dict[str, Any]:
    """Lists what is replaced, and returns the fields of the config that say so."""
    for name in beside.replaced:
        path, _, part = name.rpartition(".")
        # PEFT wraps what is adapted, and its bias as well.
        inner = ".base_layer" if path in modules else ""
        key = f"base_model.model.{path}{inner}.{part}"
        add(key, functools.partial(beside.replacement, name))
    rows = beside.rows()
    for path, (_, values) in rows.items():
        key = f"base_model.model.{path}.token_adapter.trainable_tokens_delta"
        add(key, lambda values=values: values)
    tokens = {path.rpartition(".")[2]: list(x.ids) for path, x in rows.items()}
    return {**beside.settings()} | ({"trainable_token_indices": tokens} if rows else {})


def config(adapter: PeftAdapter) -> dict[str, Any]:
    """Returns adapter_config.json, without target_modules.

    Args:
      adapter: its ranks and scales are written so that PEFT computes them again.
    """
    ranks, scales, bare = {}, {}, adapter.parameters
    for path, module in adapter.modules.items():
        name, count = bare.get(path, (path, 1))
        ranks[name], scales[name] = module.a.shape[0] // count, module.scale
    alphas = {name: _number(scales[name] * rank) for name, rank in ranks.items()}
    # The commonest values are the defaults, so that patterns name the fewest modules.
    rank, alpha = (_commonest(values.values()) for values in (ranks, alphas))
    keys = _keys(ranks)
    first = next(iter(adapter.modules.values()))
    listed = sorted(name for name, _ in bare.values())
    return (
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": adapter.base_name,
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": {keys[path]: r for path, r in ranks.items() if r != rank},
            "alpha_pattern": {
                keys[path]: x for path, x in alphas.items() if x != alpha
            },
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "modules_to_save": None,
            "use_dora": first.magnitude is not None,
            "use_rslora": False,
        }
        | ({} if first.bias is None else {"lora_bias": True})
        | ({"target_parameters": listed} if listed else {})
    )


def _keys(paths: Iterable[str]) -> dict[str, str]:
    """Keys of patterns that name one module each.

    A key also names modules whose path ends in it, after a dot. Where there is one, the
    key is anchored.
    """
    ends = set()
    for path in paths:
        parts = path.split(".")
        # PEFT matches a key against the end of a path, after any of its dots.
        ends |= {".".join(parts[i:]) for i in range(1, len(parts))}
    return {path: f"^{path}" if path in ends else path for path in paths}


def used(a: np.ndarray, b: np.ndarray) -> int:
    """Returns the rank without trailing ones that are zero in both factors.

    Args:
      a: [D, R].
      b: [R, F].

    >>> used(np.asarray([[1.0, 0.0, 0.0]]), np.asarray([[1.0], [2.0], [0.0]]))
    2
    """
    kept = np.flatnonzero((a != 0).any(axis=0) | (b != 0).any(axis=1))
    return int(kept[-1]) + 1 if kept.size else 0


def _commonest(values: Iterable[Any]) -> Any:
    return collections.Counter(values).most_common(1)[0][0]


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)
