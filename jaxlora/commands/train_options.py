"""Flags of ``jaxlora train``."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro

from jaxlora.commands import flags
from jaxlora.commands.flags import Dtype, Several
from jaxlora.models.config import DecoderConfig

PROG = "jaxlora train"
DESCRIPTION = """\
Trains one LoRA adapter for each data file, all in one program.

A data file has one JSON object a line: {"prompt", "answer"}, {"question", "answer"},
{"messages": [...]} or {"text"}; a folder of them, or a prepared TFDS data set
(tfds:NAME/CONFIG:SPLIT), is one data set too. Only answers are learnt. Each adapter is
written as OUT/NAME in the PEFT format, NAME being that of its file. Interrupted, the
same command goes on where it stopped.

examples:
  jaxlora train --model MODEL --data gsm8k.jsonl --out LIBRARY
  jaxlora train --model MODEL --data ann.jsonl bo.jsonl --out LIBRARY --epochs 5
  jaxlora train --model MODEL --data FOLDER --out LIBRARY --rank 16 --length 1024 \\
      --batch 4 --accumulate 8
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Trains one adapter for each data file."""

    model: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of a Hugging Face checkpoint."""
    data: Annotated[Several, tyro.conf.arg(metavar="FILE...")]
    """Files, folders of *.jsonl, or tfds:NAME; one adapter each."""
    out: Annotated[Path, tyro.conf.arg(metavar="LIB")]
    """Folder of the library: one folder an adapter, and the losses."""
    rank: int = 8
    """R of every adapted kernel."""
    alpha: float = 16.0
    """The scale is alpha / rank."""
    rslora: bool = False
    """The scale is alpha / sqrt(rank) instead."""
    targets: Annotated[Several, tyro.conf.arg(metavar="REGEX...")] = ()
    """Kernels to adapt: regular expressions on full names; every linear one if none."""
    epochs: float = 3.0
    """Passes over each file."""
    steps: int = 0
    """Updates of every adapter, in place of epochs, if not 0."""
    learning_rate: float = 2e-4
    """Peak of AdamW's rate: it rises linearly, then falls linearly to zero."""
    warmup: float = 0.05
    """Share of the updates in which the rate rises; from 1 on, their number."""
    weight_decay: float = 0.0
    """Of AdamW, on a and b."""
    clip: float = 1.0
    """Gradients are clipped to this norm; 0 leaves them."""
    length: int = 512
    """Tokens of a row; several examples share one, without seeing each other."""
    batch: int = 8
    """Rows of a microbatch."""
    accumulate: int = 1
    """Microbatches of an update."""
    together: int = 0
    """Adapters that train at once; 0 chooses, fewer need less memory."""
    remat: Literal["auto", "on", "off"] = "auto"
    """Recompute layers in the backward pass; auto: from width 1024 on."""
    truncate: bool = False
    """Cut examples longer than a row, instead of leaving them out."""
    skip_bad: bool = False
    """Leave out lines that cannot be read, and count them."""
    seed: int = 0
    """Of starts and orders."""
    dtype: Dtype = "auto"
    data_devices: int = 1
    """Devices along the batch."""
    fsdp_devices: int = 1
    """Devices along which the base is cut."""
    expert_devices: int = 1
    """Devices along the adapters."""


def faster(remat: str, config: DecoderConfig) -> DecoderConfig:
    """Choices that change time and memory, not values.

    Args:
      remat: on, off, or auto.
      config: of the model as it was read.
    """
    auto = remat == "auto" and config.hidden_size >= 1024
    cpu = jax.default_backend() == "cpu"
    return dataclasses.replace(
        config,
        remat=remat == "on" or auto,
        unroll=min(4, config.num_layers) if cpu else 1,
    )


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses flags; ``--data A B`` stands for ``--data A --data B``, as --targets.

    Raises:
      ValueError: if a flag does not exist, or a number is out of range.
    """
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    flags.at_least(1, given, "rank", "length", "batch", "accumulate")
    flags.at_least(1, given, "data_devices", "fsdp_devices", "expert_devices")
    flags.at_least(0, given, "steps", "together", "seed")
    for name in ("weight_decay", "clip"):
        if not 0 <= (value := getattr(given, name)) < math.inf:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} is {value}, expected a number, 0 or more.")
    if len(given.data) % given.expert_devices or given.batch % given.data_devices:
        raise ValueError(
            f"{len(given.data)} data files on {given.expert_devices} --expert-devices, "
            f"and --batch {given.batch} on {given.data_devices} --data-devices: "
            f"expected both to divide without a rest."
        )
    return given
