"""Flags of training: its numbers, and names of adapters by their data."""

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from jaxlora.commands.flags.parsing import at_least
from jaxlora.train.training import Training

RESERVED = (
    *("losses.csv", "progress.csv", "log.txt", "training.json", "tensorboard"),
    *("library.json", "manifest.json", "adapter_config.json", "study.json"),
)
"""What lies, or is taken for what lies, beside adapters in the folder of a run."""
Remat = Literal["auto", "on", "off"]
"""Whether layers are recomputed in the backward pass."""


# tyro reads what a flag means from the class of its field; hence a class for each text.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Learning(Training):
    """How adapters learn; numbers are refused by the names of their flags."""

    warmup: float = 0.05
    """Share of the updates in which the rate rises."""
    decay: tyro.conf.Suppress[float] = 1.0
    """No flag."""

    def __post_init__(self):
        at_least(1, self, "length", "batch", "accumulate")
        at_least(0, self, "steps", "together", "seed")
        for name, fine, expected in (
            ("epochs", 0 < self.epochs < math.inf, "a positive number"),
            ("learning-rate", 0 < self.learning_rate < math.inf, "a positive number"),
            ("weight-decay", 0 <= self.weight_decay < math.inf, "a number, 0 or more"),
            ("clip", 0 <= self.clip < math.inf, "a number, 0 or more"),
            ("warmup", 0 <= self.warmup < 1, "a share of the updates, from 0 to 1"),
        ):
            if not fine:
                got = getattr(self, name.replace("-", "_"))
                raise ValueError(f"--{name} is {got}, expected {expected}.")
        super().__post_init__()


@dataclasses.dataclass(frozen=True, kw_only=True)
class GateLearning(Learning):
    """How gates learn."""

    epochs: float = 3.0
    """Passes over the data."""
    steps: int = 0
    """Updates, in place of epochs, if not 0."""
    learning_rate: float = 5e-3
    """Peak of AdamW's rate: it rises linearly, then falls linearly to zero."""
    weight_decay: float = 0.0
    """Of AdamW, on the keys."""
    length: int = 512
    """Tokens of a row, and of a prompt at most."""
    together: int = 0
    """Gates that train at once; 0 chooses, fewer need less memory."""
    seed: int = 0
    """Of starts, orders and choices of examples."""


def adapter_names(sources: Sequence[str]) -> list[str]:
    """Returns the name of each source's adapter.

    Args:
      sources: as they were given.

    Raises:
      ValueError: if there is no source, a name is not one for a folder of an adapter,
        or two would have one name.
    """
    if not sources:
        raise ValueError("No --data was given, expected a file at least.")
    stems = [_name(source) for source in sources]
    for stem, source in zip(stems, sources, strict=True):
        # A dot hides a folder, and ours are hidden; a record is no adapter.
        if stem.startswith(".") or stem.casefold() in RESERVED:
            raise ValueError(
                f"--data {source} would give an adapter the name {stem!r}, which is "
                f"kept for files of the run; rename it."
            )
    if twice := sorted({x for x in stems if stems.count(x) > 1}):
        raise ValueError(
            f"Two data files would both be adapter {twice[0]!r}, as an adapter has the "
            f"name of its file; rename one."
        )
    return stems


def _name(source: str) -> str:
    """Returns a file's stem, a folder's name, or a data set's.

    Args:
      source: as it was given.

    Raises:
      ValueError: if it has none.

    >>> _name("data/gsm8k.train.jsonl"), _name("tfds:gsm8k/main:train")
    ('gsm8k.train', 'gsm8k-main-train')
    """
    path = Path(source).expanduser()
    if not path.exists() and path.suffix not in (".json", ".jsonl"):
        return source.removeprefix("tfds:").replace("/", "-").replace(":", "-")
    last = os.path.basename(os.path.abspath(path))  # of "." and ".." too
    stem = last.removesuffix(".jsonl").removesuffix(".json")
    if not stem:
        raise ValueError(f"--data {source} gives the adapter no name; rename it.")
    return stem
