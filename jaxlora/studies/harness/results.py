"""What a study ends in: a table of rows, and a summary of everything else."""

import gzip
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from jaxlora.evaluate import predictions
from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import COLUMNS
from jaxlora.files import write_text
from jaxlora.io import tensors, trust
from jaxlora.strangers.text import cells


class Results(NamedTuple):
    """What a run gave."""

    rows: pd.DataFrame
    """Tidy rows with the columns of the schema."""
    summary: dict[str, Any]
    """Everything that is not a row, as in results.json."""
    failed: Sequence[Any] = ()
    """What did not come out as it must: bases below a criterion, missed claims."""


def table(study: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of a study as a table with the columns of the schema, in their order."""
    return pd.DataFrame([{"study": study, **x} for x in rows], columns=list(COLUMNS))


def write_rows(out: Path, rows: pd.DataFrame) -> None:
    """Writes results.csv."""
    write_text(out / "results.csv", cells(rows).to_csv(index=False))


def write_summary(out: Path, summary: Mapping[str, Any]) -> None:
    """Writes results.json, with its hash and that of results.csv."""
    fields = json.loads(to_json(summary))
    fields["rows_sha256"] = trust.file_hash(out / "results.csv")
    fields["sha256"] = trust.json_hash(fields)
    write_text(out / "results.json", to_json(fields))


def rows_file(folder: Path) -> Path:
    """Returns results.csv, or results.csv.gz; results.json must know what is in it.

    Args:
      folder: of a finished study.

    Raises:
      ValueError: naming the file that was changed or damaged since it was written.
    """
    packed, plain = folder / "results.csv.gz", folder / "results.csv"
    path = plain if plain.exists() else packed
    if not path.is_file() or not (folder / "results.json").is_file():
        return path
    summary = tensors.read_json(folder / "results.json", limit=2**28)
    if "sha256" in summary:
        trust.check_json(folder / "results.json", summary)
        content = path.read_bytes()
        content = gzip.decompress(content) if path == packed else content
        trust.check_bytes(path, content, summary["rows_sha256"])
    return path


def with_condition(
    row: Mapping[str, Any], entries: Mapping[str, Any]
) -> dict[str, Any]:
    """A row with more entries in its condition.

    Args:
      row: as ``schema.row`` makes it.
      entries: to add.
    """
    condition = json.loads(row["condition"]) | dict(entries)
    return dict(row) | {"condition": json.dumps(condition, sort_keys=True)}


def checked(
    claims: Sequence[Prediction],
    pooled: Sequence[Mapping[str, Any]],
    revision: str | None,
) -> dict[str, Any]:
    """What became of the predictions, as results.json holds it.

    Args:
      claims: the predictions.
      pooled: rows over all seeds.
      revision: the commit in which the claims were written down.
    """
    return {
        "digest": predictions.digest(claims),
        "revision": revision,
        "outcomes": [
            {
                "statement": x.prediction.statement,
                "outcome": str(x.ending),
                "held": x.held,
                "got": _value_and_interval(x),
                "detail": x.sentence,
            }
            for x in predictions.check(claims, pooled)
        ],
    }


def _value_and_interval(outcome: predictions.Outcome) -> str:
    numbers = (outcome.value, outcome.lo, outcome.hi)
    value, lo, hi = ("–" if x is None else f"{x:.2f}" for x in numbers)
    return f"{value} [{lo}, {hi}]"


def to_json(value: Any) -> str:
    """JSON in which numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=2, default=str) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
