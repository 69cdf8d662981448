"""Words of other programs for flags that have other names here."""

from collections.abc import Iterable

SYNONYMS = {
    "adapters": "adapter",
    "base": "model",
    "base-model": "model",
    "batch-size": "batch",
    "bs": "batch",
    "cache": "cache-dir",
    "checkpoint": "model",
    "dataset": "data",
    "eval-batch-size": "batch",
    "file": "data",
    "gradient-accumulation-steps": "accumulate",
    "gradient-clip": "clip",
    "input": "prompt",
    "k": "top-k",
    "learn-rate": "learning-rate",
    "level": "confidence",
    "lora": "adapter",
    "lora-alpha": "alpha",
    "lora-path": "adapter",
    "lora-r": "rank",
    "lora-rank": "rank",
    "lr": "learning-rate",
    "max-grad-norm": "clip",
    "max-length": "length",
    "max-new": "max-new-tokens",
    "max-seq-length": "length",
    "max-steps": "steps",
    "max-tokens": "max-new-tokens",
    "merge": "method",
    "method": "merge",
    "model-name-or-path": "model",
    "name": "out",
    "num-epochs": "epochs",
    "num-train-epochs": "epochs",
    "o": "out",
    "out-dir": "out",
    "outdir": "out",
    "output": "out",
    "output-dir": "out",
    "peft": "adapter",
    "per-device-train-batch-size": "batch",
    "plot": "figure",
    "precision": "dtype",
    "r": "rank",
    "random-seed": "seed",
    "replace": "force",
    "overwrite": "force",
    "save": "out",
    "seq-len": "length",
    "target-modules": "targets",
    "top": "top-k",
    "train-data": "data",
    "weight": "weights",
    "torch-dtype": "dtype",
    "wd": "weight-decay",
}
"""Names without dashes in front, by what is typed."""


def meant(flag: str, known: Iterable[str]) -> list[str]:
    """The flags that a word of another program stands for, if any of them exists.

    Args:
      flag: what was typed.
      known: what exists; ``--lora.rank`` is a ``rank``.

    >>> meant("--lr", ["--rank", "--train.learning-rate"])
    ['--train.learning-rate']
    """
    name = flag.lstrip("-").rpartition(".")[2]
    wanted = SYNONYMS.get(name, name)
    return [x for x in known if x.lstrip("-").rpartition(".")[2] == wanted]
