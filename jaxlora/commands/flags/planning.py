"""Flags of ``jaxlora plan``: a model's shapes, the devices, and a mesh of them."""

import contextlib
import dataclasses
import os
from typing import Annotated, Any, Literal, TypeAlias

import jax
import tyro

from jaxlora.commands.flags.parsing import Several, at_least
from jaxlora.lora import ALL_LINEAR, LoraConfig
from jaxlora.plan import topology
from jaxlora.plan.topology import Topology
from jaxlora.plan.work import MODELS, Work, model_of, rank_check

Model: TypeAlias = Annotated[
    str,
    tyro.conf.arg(
        metavar="DIR",
        help="Folder with a config.json, of which no weights are read; or one of "
        f"{', '.join(MODELS)}.",
    ),
]


LENGTH = 512
"""Tokens of a row, where nothing is said."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices:
    """What a program is planned for."""

    topology: Annotated[
        str,
        tyro.conf.arg(
            metavar="NAME",
            help="v5e:4x4, v5p:2x4x4, v6e:2x4, or the cloud's v5e-16; h100:8, h200:8, "
            "a100:8; cpu:8. "
            "If not given, this machine.",
        ),
    ] = ""
    mesh: Annotated[
        str,
        tyro.conf.arg(
            metavar="AXIS=N,...",
            help="Such as expert=8,fsdp=2, of expert, data, fsdp and tensor, -1 for "
            "the rest; auto ranks those that divide the work.",
        ),
    ] = "auto"
    share: float = 0.4
    """Of a chip's peak that products reach, for the time of a step."""
    formula: bool = False
    """Do not compile: by formula alone, in a second."""

    def where(self) -> Topology:
        """The devices, once JAX is told which to start.

        Raises:
          ValueError: if there is no such topology, or a number is out of range.
        """
        if not 0 < self.share <= 1:
            raise ValueError(f"--share is {self.share}, expected above 0, at most 1.")
        name = self.topology.strip().lower()
        prepare(name)
        return topology.describe(name, compiled=not self.formula)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The shapes of a program."""

    model: Model
    experts: int = 8
    """E, adapters in one program."""
    rank: int = 16
    """R of every adapted kernel."""
    batch: int = 8
    """Rows of a microbatch of one adapter; prompts of a route."""
    length: int = 0
    """Tokens of a row; 0 is 512, or the model's context if that is shorter."""
    targets: Annotated[Several, tyro.conf.arg(metavar="REGEX...")] = ()
    """What is adapted: names as of PEFT (q_proj v_proj lm_head embed_tokens),
    all-linear, which leaves out the head, or regular expressions on full names;
    all-linear if none."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of weights and activations; adapters are float32."""

    def work(self, **more: Any) -> Work:
        """The program that these shapes are of.

        Args:
          **more: other fields of :class:`Work`.

        Raises:
          ValueError: if a number is out of range, or does not fit the model.
        """
        at_least(1, self, "experts", "rank", "batch")
        at_least(0, self, "length")
        types = {"dtype": self.dtype, "param_dtype": self.dtype}
        config = dataclasses.replace(model_of(self.model), **types)
        work = Work(
            config=config,
            experts=self.experts,
            lora=LoraConfig(rank=self.rank, targets=self.targets or ALL_LINEAR),
            batch=self.batch,
            length=self.length or min(LENGTH, config.max_length),
            **more,
        )
        rank_check(work)
        return work


def prepare(name: str) -> None:
    """Makes JAX start what a topology needs, if it has not started yet.

    Args:
      name: of the topology.
    """
    if not name:
        return
    # Nothing runs: the CPU is enough, and what else is here is not taken.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with contextlib.suppress(RuntimeError):  # it has started: it has what it has
        jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
        number = name.partition(":")[2] or name.partition("-")[2]
        if name.startswith("cpu") and number.isdecimal() and int(number) > 0:
            jax.config.update("jax_num_cpu_devices", int(number))
