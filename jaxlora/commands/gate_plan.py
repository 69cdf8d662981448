"""What ``jaxlora gate`` is asked for: its flags, and how the route is made."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from jax.sharding import Mesh

from jaxlora import reuse
from jaxlora import route as routes
from jaxlora.commands import flags
from jaxlora.commands.flags import Dtype, Folders, Model, Several, Words, adapters
from jaxlora.commands.flags.mesh import MeshSizes, mesh
from jaxlora.commands.flags.training import GateLearning, Remat
from jaxlora.io import adapter_folders
from jaxlora.registry import importable
from jaxlora.train import gate_making
from jaxlora.train.gate_making import Plan

PROG = "jaxlora gate"
DESCRIPTION = """\
Makes what a route must learn from data: the gate that chooses among experts.

The base and the adapters stay as they are. Data files are those of `jaxlora train`.
Routes of experts' own data take one file for each adapter, in the order of the
adapters: average-activation and retrieval measure its prompts, phatgoose trains a gate
for each adapter alone. linear, smear and lora-flow train one gate for all of them on
files of the target task, as many as you like. `--list` shows every route.

The file goes to the --gate of `jaxlora generate`, eval, forward and routes, with the
same adapters in the same order. Interrupted, the same command goes on where it stopped.
Over --mesh expert=N each device has some of the adapters.

examples:
  jaxlora gate MODEL --adapter A B --route linear --data task.jsonl \\
      --out gate.safetensors
  jaxlora gate MODEL --adapter A B --route phatgoose --data a.jsonl b.jsonl \\
      --steps 100 --out gate.safetensors
  jaxlora gate MODEL --adapter A B --route retrieval --data a.jsonl b.jsonl \\
      --out gate.safetensors
  jaxlora generate MODEL --adapter A B --gate gate.safetensors --prompt "Who?"
  jaxlora gate --list
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Makes what a route must learn from data."""

    model: Model
    adapter: Annotated[Folders, tyro.conf.arg(metavar="DIR")] = ()
    """Folder of a PEFT adapter for each expert, or of a library of several."""
    route: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    """The route; `jaxlora gate --list` shows every name."""
    data: Annotated[Several, tyro.conf.arg(metavar="FILE...")] = ()
    """Files, folders of *.jsonl, or tfds:NAME: one an adapter, or of the task."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.safetensors")]
    """Where the gate is written."""
    force: flags.Force = False
    route_top_k: flags.RouteTopK = None
    route_temperature: flags.RouteTemperature = None
    examples: int = 1000
    """Of each expert, that are measured at most; training sees all."""
    training: Annotated[GateLearning, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=GateLearning
    )
    remat: Remat = "auto"
    """Recompute layers in the backward pass; auto: from width 1024 on."""
    truncate: bool = False
    """Cut examples longer than a row, instead of leaving them out."""
    skip_bad: bool = False
    """Leave out lines that cannot be read, and count them."""
    dtype: Dtype = "auto"
    tokenizer: Words = None
    mesh: MeshSizes = ""
    list: bool = False
    """Show every route: what it is, the data it needs, and where it is from."""

    @property
    def adapters(self) -> tuple[Path, ...]:
        """Folders of the adapters, those of a library in its place."""
        return adapter_folders.expand(self.adapter)

    @property
    def fields(self) -> dict[str, float]:
        """The fields of the route that are asked for."""
        asked = {"top_k": self.route_top_k, "temperature": self.route_temperature}
        return {name: value for name, value in asked.items() if value is not None}

    def cut(self) -> Mesh | None:
        """The mesh that is asked for, or None.

        Raises:
          ValueError: if it does not divide devices, adapters or rows.
        """
        adapters = {"adapters": len(self.adapters)}
        rows = {"rows of --batch": self.training.batch}
        return mesh(self.mesh, expert=adapters, batch=rows)


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses flags.

    Args:
      arguments: what was given.

    Raises:
      ValueError: if a flag does not exist, or a number is out of range.
    """
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    adapters.check_top_k(given.route_top_k)
    flags.at_least(1, given, "examples")
    return given


def planned(given: Arguments) -> Plan:
    """Finds the route, and how it is made.

    Args:
      given: the flags.

    Raises:
      ValueError: if it needs no data, or cannot be made here.
    """
    known = ", ".join(reuse.gate_names())
    if not given.route:
        raise ValueError(
            f"Got no --route, expected the one to make; there are {known}."
        )
    with importable():
        route = routes.preset(given.route, **given.fields)
    route = route.fit(max(len(given.adapters), 1))
    data = route.gate.data
    if data in ("free", "labels"):
        kind = "the adapters alone" if data == "free" else "labels with each call"
        raise ValueError(
            f"The route {given.route!r} is made from {kind}, and there is no gate to "
            f"make from data; routes with one are {known}."
        )
    if data == "target" and route.top_k == 1 and len(given.adapters) > 1:
        raise ValueError(
            f"--route-top-k 1 leaves the route {given.route!r} nothing to learn: the "
            f"weight of the one that is kept is always 1; train with more, and give "
            f"--route-top-k 1 where the gate is used."
        )
    training = None if ":" in given.route else routes.describe(given.route).training
    return gate_making.plan(route, training)


def sources(given: Arguments, plan: Plan, names: Sequence[str]) -> dict[str, str]:
    """Data files by the name of their adapter, or by their own.

    Args:
      given: the flags.
      plan: how the route is made.
      names: of the adapters.

    Raises:
      ValueError: if there are no adapters, or not as many files as the route needs.
    """
    if not given.adapter:
        raise ValueError(
            f"Got no --adapter, expected one for each expert of the route "
            f"{given.route!r}."
        )
    if given.route_top_k is not None and given.route_top_k > len(given.adapters):
        raise ValueError(
            f"--route-top-k is {given.route_top_k} for {len(given.adapters)} adapters, "
            f"expected at most as many; leave it out for what the route says."
        )
    if plan.per_expert and len(given.data) != len(given.adapters):
        raise ValueError(
            f"The route {given.route!r} learns from each adapter's own data: got "
            f"{len(given.data)} --data for {len(given.adapters)} adapters, expected "
            f"one for each, in the same order."
        )
    if not given.data:
        raise ValueError("No --data was given, expected a file of the target task.")
    return dict(zip(names if plan.per_expert else given.data, given.data, strict=True))
