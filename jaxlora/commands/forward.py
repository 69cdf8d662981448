"""``jaxlora forward``: token ids in, logits out, for comparison with other programs."""

import dataclasses
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, BinaryIO

import numpy as np
import tyro
from rich.console import Console

from jaxlora import files
from jaxlora.commands import bars, flags, loading, printing, talk
from jaxlora.commands.flags import Combine, Combining, Dtype, Model, outputs
from jaxlora.commands.flags.mesh import MeshSizes, mesh
from jaxlora.parallel import processes
from jaxlora.reuse import calls
from jaxlora.tasks import token_ids

PROG = "jaxlora forward"
DESCRIPTION = """\
Writes the logits of token ids: of a model, an adapter, a merge or a route.

FILE.json holds token ids [B][T], as in [[1, 5, 7], [1, 6, 8]]; FILE.npy gets float32
logits [B, T, V], whole or not at all. In float32 all products have full precision.

Several adapters are merged into one, or routed: weighed for each token and site, by
the adapters alone or by a gate that `jaxlora gate` made from data.

examples:
  jaxlora forward MODEL --tokens ids.json --out logits.npy
  jaxlora forward MODEL --adapter A --tokens ids.json --out logits.npy
  jaxlora forward MODEL --adapter A B --merge sum --weights 1 -0.5 \\
      --tokens ids.json --out logits.npy
  jaxlora forward MODEL --adapter A B C --route arrow --route-top-k 2 \\
      --route-temperature 0.7 --tokens ids.json --out logits.npy
  jaxlora forward MODEL --adapter A B --gate gate.safetensors \\
      --tokens ids.json --out logits.npy
  jaxlora forward MODEL --adapter A B --route genknowsub --general C \\
      --tokens ids.json --out logits.npy
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Writes the logits of token ids."""

    model: Model
    tokens: Annotated[Path, tyro.conf.arg(metavar="FILE.json")]
    """Token ids, [B][T]."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.npy")]
    """Logits, [B, T, V]."""
    force: flags.Force = False
    combine: Combine = dataclasses.field(default_factory=Combining)
    dtype: Dtype = "auto"
    batch: int = 8
    """Rows at once; fewer need less memory."""
    mesh: MeshSizes = ""


def run(arguments: Sequence[str]) -> int:
    """Reads, computes and writes."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    combining = given.combine.routing()
    flags.at_least(1, given, "batch")
    tokens = token_ids.read(given.tokens)
    processes.agreed(lambda: outputs.check_files(given.force, given.out))
    combining["mesh"] = mesh(given.mesh, batch={"rows of --batch": given.batch})
    reused = loading.load(given.model, given.combine.adapter, given.dtype, **combining)
    vocabulary, total = reused.model.config.vocab_size, len(tokens)
    token_ids.check(given.tokens, tokens, vocabulary)
    shape = (*tokens.shape, vocabulary)
    # Of many processes, all compute, and the first one writes.
    out = given.out if talk.current().writes else None
    with opened(out) as file, bars.bar("forward") as move:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        parts = calls.logits(
            reused,
            tokens,
            given.batch,
            progress=lambda n: move(f"{n} of {total} rows", n, total),
        )
        # A part at a time: all logits need not fit into memory.
        for part in parts:
            file.write(np.ascontiguousarray(part, "<f4").data)
    printing.line(Console(), f"{given.out}: logits {list(shape)}")
    return 0


def opened(path: Path | None) -> AbstractContextManager[BinaryIO]:
    """As :func:`jaxlora.files.opened`; without a path, what is written is dropped."""
    return open(os.devnull, "wb") if path is None else files.opened(path)
