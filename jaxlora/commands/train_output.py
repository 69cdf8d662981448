"""What ``jaxlora train`` leaves beside the adapters, and what it prints."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxlora.commands import talk
from jaxlora.files import write_text
from jaxlora.strangers.text import cells, visible
from jaxlora.studies.harness import provenance
from jaxlora.tasks import text_shown
from jaxlora.tasks.data_sets import Counts
from jaxlora.train.session import Trained

RECORD, LOSSES = "training.json", "losses.csv"
LEFT_OUT = ("bad_lines", "refused", "too_long", "truncated", "no_answer")


def say(counts: Mapping[str, Counts], length: int, updates: Mapping[str, int]) -> None:
    """Prints what each file became, and what was left out of it, on stderr.

    Args:
      counts: by the name of the adapter.
      length: tokens of a row.
      updates: of each adapter.
    """
    quiet = talk.current().level < 0
    how = {"soft_wrap": True, "highlight": False, "markup": False}
    console = Console(stderr=True, quiet=quiet, **how)
    for name, count in counts.items():
        left = ", ".join(
            f"{count[key]} {key.replace('_', ' ')}" for key in LEFT_OUT if count[key]
        )
        console.print(
            f"{visible(name)}: {count['examples']} examples in {count['rows']} rows of "
            f"{length} tokens, {100 * count['efficiency']:.0f}% full; "
            f"{updates[name]} updates" + (f"; left out or cut: {left}" if left else "")
        )
        if count["asked_apart"]:
            console.print(
                "  the chat template opens an answer for generation otherwise than in "
                "training (with <think>, say): a trained adapter is asked what it did "
                "not learn to answer"
            )
        for sentence in text_shown.note(count["not_shown"], visible(name)):
            console.print(f"  {sentence}")
        if count["first_error"]:
            console.print(f"  first of them: {visible(count['first_error'])}")


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Notes, on an interruption before this run saved anything, what another one did.

    Args:
      folder: of the checkpoints.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        steps = [x for x in folder.glob("*") if x.name.isdigit()]
        if steps and not getattr(stop, "__notes__", ()):
            stop.add_note("what an earlier start had saved is kept")
        raise


def write(
    out: Path, trained: Trained, names: Sequence[str], facts: Mapping[str, Any]
) -> None:
    """Writes the losses and the record of a run.

    Args:
      out: folder of the library.
      trained: what the run gave.
      names: of the adapters.
      facts: what else the record says.
    """
    history = zip(names, trained.loss, trained.norm, strict=True)
    columns = [
        pd.DataFrame({"adapter": name, "loss": losses, "gradient_norm": norms})
        for name, losses, norms in history
    ]
    table = pd.concat(columns).rename_axis("update").reset_index()
    table = table[np.isfinite(table["loss"])]  # an adapter may end before others
    order = ["adapter", "update", "loss", "gradient_norm"]
    # Names are of files, and an adapter may be called "=1+1".
    table = cells(table[order])
    text = table.to_csv(index=False, float_format="%.6g", na_rep="nan")
    write_text(out / LOSSES, text)
    record = {**facts, "resumed_at": trained.resumed, **provenance.here()}
    write_text(out / RECORD, json.dumps(record, indent=2) + "\n")


def show(out: Path, trained: Trained, names: Sequence[str], seconds: float) -> None:
    """Prints the first and the last losses of each adapter.

    Args:
      out: folder of the library.
      trained: what the run gave.
      names: of the adapters.
      seconds: that the run took.
    """
    table = Table(title=Text(f"{out} ({seconds:.0f} s)"))
    table.add_column("adapter")
    for head in ("updates", "first loss", "last loss"):
        table.add_column(head, justify="right")
    for name, losses in zip(names, trained.loss, strict=True):
        losses = losses[np.isfinite(losses)]
        few = max(1, len(losses) // 20)
        ends = losses[:few], losses[-few:]
        cells = (f"{values.mean():.3f}" for values in ends)
        table.add_row(Text(name), str(len(losses)), *cells)
    Console().print(table)
