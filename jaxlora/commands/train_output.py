"""What ``jaxlora train`` leaves beside the adapters, and what it prints."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxlora.files import write_text
from jaxlora.studies.harness import provenance
from jaxlora.train.session import Trained

RECORD = "training.json"


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
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["adapter", "update", "loss", "gradient_norm"])
    for name, losses, norms in zip(names, trained.loss, trained.norm, strict=True):
        for i, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
            if np.isfinite(loss):
                table.writerow([name, i, f"{loss:.6g}", f"{norm:.6g}"])
    write_text(out / "losses.csv", buffer.getvalue())
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
    for name in ("adapter", "updates", "first loss", "last loss"):
        table.add_column(name, justify="left" if name == "adapter" else "right")
    for name, losses in zip(names, trained.loss, strict=True):
        losses = losses[np.isfinite(losses)]
        few = max(1, len(losses) // 20)
        table.add_row(
            Text(name),
            str(len(losses)),
            f"{losses[:few].mean():.3f}",
            f"{losses[-few:].mean():.3f}",
        )
    Console().print(table)
