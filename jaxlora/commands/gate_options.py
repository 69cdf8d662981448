"""Flags of ``jaxlora gate``."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxlora.commands import flags
from jaxlora.commands.flags import Dtype, Model, Several, adapters

PROG = "jaxlora gate"
DESCRIPTION = """\
Makes what a route must learn from data: the gate that says which expert is whose.

The base and the adapters stay as they are. Data files are those of `jaxlora train`.
Routes of experts' own data take one file for each adapter, in the order of the
adapters: average-activation and retrieval measure its prompts, phatgoose trains a gate
for each adapter alone. linear, smear and lora-flow train one gate for all of them on
files of the target task, as many as you like. `--list` shows every route.

The file goes to the --gate of `jaxlora generate`, eval, forward and routes, with the
same adapters in the same order. Interrupted, the same command goes on where it stopped.

examples:
  jaxlora gate MODEL --adapter A B --route linear --data task.jsonl \\
      --out gate.safetensors
  jaxlora gate MODEL --adapter A B --route phatgoose --data a.jsonl b.jsonl \\
      --steps 100 --out gate.safetensors
  jaxlora gate MODEL --adapter A B --route retrieval --data a.jsonl b.jsonl \\
      --out gate.safetensors
  jaxlora generate MODEL --adapter A B --gate gate.safetensors --prompt "Who is Ann?"
  jaxlora gate --list
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Makes what a route must learn from data."""

    model: Model
    adapter: Annotated[
        tyro.conf.UseAppendAction[tuple[Path, ...]], tyro.conf.arg(metavar="DIR")
    ] = ()
    """Folder of a PEFT adapter; one for each expert."""
    route: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    """The route; `jaxlora gate --list` shows every name."""
    data: Annotated[Several, tyro.conf.arg(metavar="FILE...")] = ()
    """Files, folders of *.jsonl, or tfds:NAME: one an adapter, or of the task."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.safetensors")]
    """Where the gate is written."""
    top_k: flags.TopK = None
    temperature: flags.RouteTemperature = None
    examples: int = 1000
    """Of each expert, that are measured at most; training sees all."""
    epochs: float = 3.0
    """Passes over the data."""
    steps: int = 0
    """Updates, in place of epochs, if not 0."""
    learning_rate: float = 5e-3
    """Peak of AdamW's rate: it rises linearly, then falls linearly to zero."""
    warmup: float = 0.05
    """Share of the updates in which the rate rises; from 1 on, their number."""
    weight_decay: float = 0.0
    """Of AdamW, on the keys."""
    clip: float = 1.0
    """Gradients are clipped to this norm; 0 leaves them."""
    length: int = 512
    """Tokens of a row, and of a prompt at most."""
    batch: int = 8
    """Rows of a microbatch."""
    accumulate: int = 1
    """Microbatches of an update."""
    together: int = 0
    """Gates that train at once; 0 chooses, fewer need less memory."""
    remat: Literal["auto", "on", "off"] = "auto"
    """Recompute layers in the backward pass; auto: from width 1024 on."""
    truncate: bool = False
    """Cut examples longer than a row, instead of leaving them out."""
    skip_bad: bool = False
    """Leave out lines that cannot be read, and count them."""
    seed: int = 0
    """Of starts, orders and choices of examples."""
    dtype: Dtype = "auto"
    list: bool = False
    """Show every route: what it is, the data it needs, and where it is from."""


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses flags; ``--data A B`` stands for ``--data A --data B``, as --adapter.

    Raises:
      ValueError: if a flag does not exist, or a number is out of range.
    """
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    adapters.check_top_k(given.top_k)
    flags.at_least(1, given, "length", "batch", "accumulate", "examples")
    flags.at_least(0, given, "steps", "together", "seed")
    for name in ("weight_decay", "clip"):
        if not 0 <= (value := getattr(given, name)) < math.inf:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} is {value}, expected a number, 0 or more.")
    return given
