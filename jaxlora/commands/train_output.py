"""What ``jaxlora train`` leaves beside the adapters, and what it prints."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
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
    history = zip(names, trained.loss, trained.norm, strict=True)
    columns = [
        pd.DataFrame({"adapter": name, "loss": losses, "gradient_norm": norms})
        for name, losses, norms in history
    ]
    table = pd.concat(columns).rename_axis("update").reset_index()
    table = table[np.isfinite(table["loss"])]  # an adapter may end before others
    order = ["adapter", "update", "loss", "gradient_norm"]
    text = table.to_csv(columns=order, index=False, float_format="%.6g", na_rep="nan")
    write_text(out / "losses.csv", text)
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
