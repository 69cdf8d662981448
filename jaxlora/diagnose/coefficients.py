"""The coefficients that are shipped: made from a table of a study, kept as JSON."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import jaxlora
from jaxlora import files
from jaxlora.diagnose import predictor
from jaxlora.diagnose.features import NAMES
from jaxlora.diagnose.predictor import Coefficients
from jaxlora.strangers import data

FILE = Path(__file__).with_name("coefficients.json")
"""The shipped ones."""
COUNTS = ("composed", "n")
FOLDS = ("cell", "ask", "seed")
"""Columns whose values are left out, one after another, to score the predictor."""


class Shipped(NamedTuple):
    """A predictor, and where it is from."""

    coefficients: Coefficients
    about: Mapping[str, Any]
    """Of what and when it was made, and its scores."""


def make(table: pd.DataFrame, source: str) -> Shipped:
    """Fits a predictor to the table of a study, and scores it.

    Args:
      table: a row for each base, group, way to ask and regime, with the columns seed,
        cell, ask, composed, n and those of :data:`.NAMES`.
      source: where the table is from, in words: study, file and revision.

    Raises:
      ValueError: if a column is missing, or as :func:`.predictor.fit`.
    """
    absent = [x for x in (*FOLDS, *COUNTS, *NAMES) if x not in table]
    if absent:
        raise ValueError(
            f"The table lacks the columns {', '.join(absent)}; it has "
            f"{', '.join(map(str, table.columns))}."
        )
    about = {
        "source": source,
        "table_sha256": hashlib.sha256(table.to_csv(index=False).encode()).hexdigest(),
        "jaxlora": jaxlora.__version__,
        "groups": len(table),
        "people": int(table["n"].sum()),
        "seeds": sorted({int(x) for x in table["seed"]}),
        "brier": scores(table),
    }
    return Shipped(predictor.fit(*_arrays(table)), about)


def scores(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Brier scores of predictions for what was left out, by column that was left out.

    Beside the predictor stand its two references: no transfer at all, which is the
    share ``chance`` of the table (0 without this column), and the mean of the rest.

    Args:
      table: as for :func:`make`.
    """
    x, k, n = _arrays(table)
    never = table["chance"].to_numpy() if "chance" in table else np.zeros(len(table))
    out = {}
    for column in FOLDS:
        folds = [str(value) for value in table[column]]
        if len(set(folds)) < 2:
            continue
        predicted, mean = predictor.held_out(x, k, n, folds)
        every = {"predictor": predicted, "no transfer": never, "training mean": mean}
        out[column] = {name: predictor.brier(p, k, n) for name, p in every.items()}
    return out


def misses(table: pd.DataFrame, column: str, most: int = 3) -> pd.DataFrame:
    """The groups whose share was predicted worst while their fold was left out.

    Args:
      table: as for :func:`make`.
      column: one of :data:`FOLDS`.
      most: how many.

    Returns:
      Rows of the table with the columns ``predicted`` and ``share``, the worst first.
    """
    folds = [str(value) for value in table[column]]
    predicted, _ = predictor.held_out(*_arrays(table), folds)
    out = table.assign(predicted=predicted, share=table["composed"] / table["n"])
    worst = (out["predicted"] - out["share"]).abs().sort_values(ascending=False)
    return out.loc[worst.index[:most]]


def _arrays(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [G, K], and the counts composed [G] and asked [G]."""
    composed, n = (table[name].to_numpy() for name in COUNTS)
    return table[list(NAMES)].to_numpy(np.float64), composed, n


def write(path: Path, shipped: Shipped) -> None:
    """Writes a predictor as JSON.

    Args:
      path: of the file.
      shipped: as :func:`make` returns it.
    """
    plain = {"about": dict(shipped.about), **dataclasses.asdict(shipped.coefficients)}
    files.write_text(path, json.dumps(plain, indent=1, allow_nan=False) + "\n")


def read(path: Path) -> Shipped:
    """Reads what :func:`write` wrote.

    Args:
      path: of the file.

    Raises:
      ValueError: if it is of other features than this version computes.
    """
    plain = data.read(path, what="coefficients")
    about = plain.pop("about")
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in plain.items()
    }
    coefficients = Coefficients(**fields)
    if coefficients.names != NAMES:
        raise ValueError(
            f"{path} has coefficients of {', '.join(coefficients.names)}, expected "
            f"{', '.join(NAMES)}; make them again with this version."
        )
    return Shipped(coefficients, about)


def shipped() -> Shipped:
    """Returns the predictor of this version."""
    return read(FILE)
