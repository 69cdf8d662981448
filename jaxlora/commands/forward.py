"""``jaxlora forward``: token ids in, logits out, for comparison with other programs."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from jaxlora import models
from jaxlora.commands import bars, flags, loading, printing
from jaxlora.commands.flags import Combine, Combining, Dtype, Model
from jaxlora.reuse import Reuse

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
  jaxlora forward MODEL --adapter A B C --route arrow --top-k 2 --temperature 0.7 \\
      --tokens ids.json --out logits.npy
  jaxlora forward MODEL --adapter A B --gate gate.safetensors \\
      --tokens ids.json --out logits.npy
  jaxlora forward MODEL --adapter A B --route genknowsub --general C \\
      --tokens ids.json --out logits.npy
"""
EXAMPLE = "[[1, 5, 7], [1, 6, 8]]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Writes the logits of token ids."""

    model: Model
    tokens: Annotated[Path, tyro.conf.arg(metavar="FILE.json")]
    """Token ids, [B][T]."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.npy")]
    """Logits, [B, T, V]."""
    combine: Combine = dataclasses.field(default_factory=Combining)
    temperature: flags.RouteTemperature = None
    dtype: Dtype = "auto"
    batch: int = 8
    """Rows at once; fewer need less memory."""


def run(arguments: Sequence[str]) -> int:
    """Reads, computes and writes."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    combining = given.combine.routing(given.temperature)
    flags.at_least(1, given, "batch")
    tokens = read_tokens(given.tokens)
    flags.check_out(given.out)
    reused = loading.load(given.model, given.combine.adapter, given.dtype, **combining)
    vocabulary = reused.model.config.vocab_size
    _check_ids(given.tokens, tokens, vocabulary)
    with _whole(given.out) as file:
        shape = (*tokens.shape, vocabulary)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for rows in _logits(reused, tokens, given.batch):
            file.write(np.ascontiguousarray(rows, "<f4").data)
    printing.line(Console(), f"{given.out}: logits {list(shape)}")
    return 0


def read_tokens(path: Path) -> np.ndarray:
    """Reads token ids [B, T].

    Args:
      path: of a JSON file.

    Raises:
      ValueError: if the file is not a list of rows, of whole numbers, of one length.
    """
    rows = _json(path)
    fine = isinstance(rows, list) and rows and all(isinstance(r, list) for r in rows)
    if not fine:
        raise ValueError(
            f"{path} holds no rows of token ids, expected a list of lists, as in "
            f"{EXAMPLE}."
        )
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]) or not row:
            raise ValueError(
                f"{path}: row {i} has {len(row)} token ids and row 0 has "
                f"{len(rows[0])}, expected rows of one length, at least 1; run rows "
                f"of another length from a file of their own."
            )
        for j, value in enumerate(row):
            is_id = isinstance(value, int) and not isinstance(value, bool)
            if not is_id or not 0 <= value < 2**31:
                raise ValueError(
                    f"{path}: entry {j} of row {i} is {json.dumps(value)[:60]}, "
                    f"expected a token id, a whole number from 0."
                )
    return np.array(rows, np.int64)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"Cannot read {path}: {error.strerror or error}; expected a JSON file of "
            f"token ids, as in {EXAMPLE}."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not JSON ({error}); expected token ids, as in {EXAMPLE}."
        ) from None


def _check_ids(path: Path, tokens: np.ndarray, vocabulary: int) -> None:
    odd = np.argwhere(tokens >= vocabulary)
    if len(odd):
        row, at = odd[0]
        raise ValueError(
            f"{path}: entry {at} of row {row} is {tokens[row, at]}, but the model has "
            f"token ids 0 to {vocabulary - 1}; were they made by another tokenizer?"
        )


def _logits(reused: Reuse, tokens: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Yields logits [N, T, V] of some rows after another; the last batch is filled."""
    call = jax.jit(models.apply, static_argnums=0)
    size, extras = min(batch, len(tokens)), reused.arguments()
    precision = "highest" if reused.model.config.dtype == "float32" else None
    with bars.bar("forward") as move, jax.default_matmul_precision(precision):
        for start in range(0, len(tokens), size):
            used = min(size, len(tokens) - start)
            rows = np.minimum(np.arange(start, start + size), len(tokens) - 1)
            part = jnp.asarray(tokens[rows], jnp.int32)
            yield np.asarray(call(reused.model, reused.base, part, **extras))[:used]
            move(f"{start + used} of {len(tokens)} rows", start + used, len(tokens))


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """Gives a file beside ``path`` that becomes it if all goes well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
