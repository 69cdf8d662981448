"""``jaxlora fuse``: adds an adapter, or a merge of several, into the base."""

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from jaxlora import reuse
from jaxlora.commands import flags, loading, printing, talk
from jaxlora.commands.flags import Dtype, Merge, Merging, Model, outputs
from jaxlora.commands.flags.mesh import MeshSizes, mesh
from jaxlora.io import adapter_folders
from jaxlora.models import pretrained
from jaxlora.parallel import processes

PROG = "jaxlora fuse"
DESCRIPTION = """\
Adds an adapter into a model and writes the sum as a Hugging Face checkpoint.

The new folder has the model's config.json and tokenizer, and loads wherever the model
does; what is no part of a language model (a vision tower) is kept as it is. Sums are
made in float32 and rounded once, to the type of the checkpoint.

examples:
  jaxlora fuse MODEL ADAPTER --out FUSED
  jaxlora fuse MODEL A B --merge mean --out FUSED
  jaxlora fuse MODEL A B --merge sum --weights 1 -1 --dtype float32 --out FUSED
  jaxlora fuse MODEL LIBRARY --merge mean --mesh expert=4,fsdp=2 --out FUSED
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Adds an adapter, or a merge of several, into a model."""

    model: Model
    adapters: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="ADAPTER...")
    ] = ()
    """Folders of PEFT adapters, or of libraries; more than one need a merge."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """New folder for the checkpoint."""
    force: flags.Force = False
    combine: Merge = dataclasses.field(default_factory=Merging)
    dtype: Dtype = "auto"
    mesh: MeshSizes = ""


def run(arguments: Sequence[str]) -> int:
    """Reads, adds and writes."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    asked = (*given.adapters, *given.combine.adapter)
    folders = adapter_folders.expand(asked)
    if not folders:
        raise ValueError(
            f"Got no adapter to add to {given.model}; the command is "
            f"`jaxlora fuse MODEL ADAPTER --out DIR`."
        )
    combining = given.combine.options()
    reuse.check(reuse.Combination(**combining), len(folders))
    where = given.force, given.out, outputs.CHECKPOINT
    processes.agreed(lambda: outputs.check_folder(*where))
    combining["mesh"] = mesh(given.mesh)
    loaded = loading.load(given.model, asked, given.dtype, **combining)
    with Console(stderr=True).status(f"writing {given.out}"):
        what = {"adapter": processes.host(loaded.adapter), "like": given.model}
        # Of many processes all gather, and the first one writes.
        writes = talk.current().writes
        new = outputs.replaced(given.out) if writes else nullcontext(given.out)
        with new as folder:
            pretrained.save(folder, loaded.model, loaded.base, **what)
    processes.meet()
    names, dtype = " + ".join(x.name for x in folders), loaded.model.config.param_dtype
    printing.line(Console(), f"{given.out}: {given.model.name} and {names}, {dtype}")
    return 0
